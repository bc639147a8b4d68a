// What a Linux guest on Xen does with a disk: reads all of it, writes, flushes and reads back past its page cache, and
// keeps a file system; and what the first domain must then find in the image.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { seededBytes } from '../peers/content.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const SIZE = 8 * MIB;

/** The file system's part of the disk, from the start, in bytes. */
const FILE_SYSTEM = 4 * MIB;

/** What is written comes from the disk itself: this many of its first bytes. */
const PATTERN = 256 * KIB;

/** Where it is written, in bytes. */
const PLACES = [5 * MIB, SIZE - PATTERN] as const;

/** A disk of which no two blocks are alike. */
export function diskBefore(seed: number): Buffer {
  return seededBytes(SIZE, seed);
}

/** Its second half after the guest's work. */
function rawAfter(seed: number): Buffer {
  const disk = diskBefore(seed);
  for (const place of PLACES) disk.copy(disk, place, 0, PATTERN);
  return disk.subarray(FILE_SYSTEM);
}

/** The guest's commands for the disk with the name `disk` in /dev. */
export function diskScript(disk: string, seed: number): string {
  const md5 = createHash('md5').update(diskBefore(seed)).digest('hex');
  const count = PATTERN / (4 * KIB);
  return `
step 'the whole of ${disk}'
[ "$(md5sum </dev/${disk})" = '${md5}  -' ]
dd if=/dev/${disk} of=/tmp/pattern bs=4k count=${count} status=none
${PLACES.map(
  (place) => `
step 'write ${disk} at ${place}, fsync, read back'
dd if=/tmp/pattern of=/dev/${disk} bs=4k seek=${place / (4 * KIB)} count=${count} conv=notrunc,fsync status=none
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/${disk} bs=4k skip=${place / (4 * KIB)} count=${count} status=none | cmp - /tmp/pattern`,
).join('\n')}
step 'a file system on ${disk}'
mke2fs -F /dev/${disk} ${FILE_SYSTEM / KIB} >/dev/null
mount -t ext2 /dev/${disk} /mnt
mkdir /mnt/folder
cp /tmp/pattern /mnt/folder/pattern
for i in $(seq 30); do echo "file $i" >/mnt/folder/$i; done
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext2 /dev/${disk} /mnt
cmp /tmp/pattern /mnt/folder/pattern
[ "$(cat /mnt/folder/30)" = 'file 30' ]
umount /mnt
`;
}

/** Commands that write to the disk until the guest is killed, `blocks` of 64 KiB in each round. */
export function writeForever(disk: string, blocks: number): string {
  return `
step 'write for ever'
while true; do
  dd if=/dev/urandom of=/dev/${disk} bs=64k count=${blocks} conv=notrunc,fsync status=none
  tell round
done`;
}

/** Checks what the image holds behind the file system. */
export function checkRaw(image: Buffer, seed: number): void {
  const [found, wanted] = [image.subarray(FILE_SYSTEM), rawAfter(seed)];
  assert.equal(image.length, SIZE);
  const at = found.findIndex((byte, offset) => byte !== wanted[offset]);
  assert.equal(at, -1, `the image has other bytes than were written at ${FILE_SYSTEM + at}`);
}
