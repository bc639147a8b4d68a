// What a guest does with a disk, whichever kernel it runs: reads all of it, writes and reads back in several
// ways, and keeps a file system on its first half; and what the host must then find in the image.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { seededBytes } from '../content.ts';
import { programPath } from './needs.ts';
import type { Program } from './program.ts';
import type { Rig } from './rig.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;

/** Size of the disk in bytes. */
const SIZE = 32 * MIB;
/** The file system's part, from the start. */
const FILE_SYSTEM = 16 * MIB;

/** What is written: the first bytes of it, as many as a write has. */
export const PATTERN = seededBytes(MIB, 51);

/** A write of `length` bytes at `offset`, in blocks of `block` bytes; `direct` past the guest's page cache. */
interface Write {
  readonly offset: number;
  readonly length: number;
  readonly block: number;
  readonly direct: boolean;
}

const WRITES: readonly Write[] = [
  { offset: 17 * MIB, length: MIB, block: 64 * KIB, direct: false },
  { offset: 20_000_000, length: 3000, block: 1000, direct: false },
  { offset: 20 * MIB, length: MIB, block: 256 * KIB, direct: true },
  { offset: 22 * MIB + 4 * KIB, length: 64 * KIB, block: 4 * KIB, direct: true },
  { offset: 23 * MIB + 512, length: 1536, block: 512, direct: true },
  { offset: SIZE - 512, length: 512, block: 512, direct: true },
];

/** Where each processor writes its part of the pattern at the same time as the others. */
const TOGETHER = 24 * MIB;
const TOGETHER_LENGTH = 256 * KIB;

/** The disk before: no two blocks are alike, and nothing looks like a partition table. */
function diskBefore(): Buffer {
  return seededBytes(SIZE, 50).fill(0, 0, 64 * KIB);
}

/** The second half of the disk afterwards. */
function rawAfter(processors: number): Buffer {
  const disk = diskBefore();
  for (const { offset, length } of WRITES) PATTERN.copy(disk, offset, 0, length);
  PATTERN.copy(disk, TOGETHER, 0, processors * TOGETHER_LENGTH);
  return disk.subarray(FILE_SYSTEM);
}

/** Makes the image. Returns its path. */
export function makeDisk(rig: Rig): string {
  return rig.file('disk.img', diskBefore());
}

/** The guest's commands; the disk is vda, and the file /pattern holds the pattern. */
export function diskScript(processors: number): string {
  return [
    `step 'the whole disk'
     tell "sectors $(cat /sys/block/vda/size)"
     tell "queues $(ls /sys/block/vda/mq | wc -l)"
     tell "md5 $(md5sum </dev/vda)"`,
    ...WRITES.map(writeScript),
    togetherScript(Array.from({ length: processors }, (_, processor) => processor)),
    FILE_SYSTEM_SCRIPT,
  ].join('\n');
}

function writeScript({ offset, length, block, direct }: Write): string {
  const [reading, writing] = direct ? ['iflag=direct', 'oflag=direct'] : ['', ''];
  const [place, count] = [offset / block, length / block];
  const how = direct ? 'O_DIRECT' : 'fsync';
  return `
    step '${length} bytes at ${offset} in blocks of ${block}, ${how}, read back'
    dd if=/pattern of=/dev/vda bs=${block} seek=${place} count=${count} conv=notrunc,fsync status=none ${writing}
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=${block} skip=${place} count=${count} status=none ${reading} | cmp -n ${length} - /pattern`;
}

function togetherScript(processors: readonly number[]): string {
  const part = `bs=4k count=${TOGETHER_LENGTH / (4 * KIB)} status=none`;
  const place = (processor: number) => (TOGETHER + processor * TOGETHER_LENGTH) / (4 * KIB);
  return `
    step 'every processor at the same time'
    ${processors.map((at) => `dd if=/pattern of=/part${at} skip=${(at * TOGETHER_LENGTH) / (4 * KIB)} ${part}`).join('\n')}
    jobs=
    ${processors.map((at) => `taskset -c ${at} dd if=/part${at} of=/dev/vda seek=${place(at)} oflag=direct conv=notrunc,fsync ${part} & jobs="$jobs $!"`).join('\n')}
    for job in $jobs; do wait $job; done
    jobs=
    ${processors.map((at) => `taskset -c ${at} dd if=/dev/vda skip=${place(at)} iflag=direct ${part} | cmp - /part${at} & jobs="$jobs $!"`).join('\n')}
    for job in $jobs; do wait $job; done
    tell "queues that interrupted: $(awk '/virtio0-req/ && $2 + $3 + $4 + $5 > 0' /proc/interrupts | wc -l)"`;
}

const FILE_SYSTEM_SCRIPT = `
    step 'a file system'
    mke2fs -F /dev/vda ${FILE_SYSTEM / KIB} >/dev/null
    mount -t ext2 /dev/vda /mnt
    mkdir -p /mnt/folder/below
    cp /pattern /mnt/folder/below/pattern
    cp /bin/busybox /mnt/busybox
    cp /pattern /mnt/removed
    for i in $(seq 100); do echo "file $i" >/mnt/folder/$i; done
    (cd /mnt && find . -type f | xargs md5sum) >/sums
    umount /mnt
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext2 /dev/vda /mnt
    (cd /mnt && md5sum -c /sums) >/dev/null
    rm /mnt/removed
    umount /mnt`;

/** Follows the guest through the script to its end, then looks at the image. */
export async function checkDisk(rig: Rig, guest: Program, disk: string, processors: number): Promise<void> {
  const md5 = createHash('md5').update(diskBefore()).digest('hex');
  assert.equal((await guest.says(/^GRANTIO sectors (\d+)/))[1], `${SIZE / 512}`);
  assert.equal((await guest.says(/^GRANTIO queues (\d+)/))[1], `${processors}`);
  assert.equal((await guest.says(/^GRANTIO md5 (\w+)/))[1], md5, 'the disk as the guest reads it');
  await guest.says(/^GRANTIO done/);
  assert.deepEqual(await guest.ended(), { status: 0, signal: null });
  assertSame(readFileSync(disk).subarray(FILE_SYSTEM), rawAfter(processors));
  await checkFileSystem(rig, disk);
}

/** The file system must be whole, and hold the files. */
async function checkFileSystem(rig: Rig, disk: string): Promise<void> {
  const tree = rig.path('tree');
  mkdirSync(tree);
  for (const [program, ...words] of [
    ['e2fsck', '-fn', disk],
    ['debugfs', '-R', `rdump / ${tree}`, disk],
  ]) {
    const ending = await rig.start(program!, programPath(program!), ...words).ended();
    assert.deepEqual(ending, { status: 0, signal: null }, `${program} of the image`);
  }
  assert.ok(readFileSync(join(tree, 'folder/below/pattern')).equals(PATTERN), 'the file of the pattern');
  assert.equal(readFileSync(join(tree, 'folder/100'), 'utf8'), 'file 100\n');
  assert.deepEqual(readdirSync(tree).sort(), ['busybox', 'folder', 'lost+found']);
}

function assertSame(found: Buffer, wanted: Buffer): void {
  const at = found.findIndex((byte, offset) => byte !== wanted[offset]);
  assert.equal(
    at,
    -1,
    `the image has 0x${found[at]?.toString(16)} at ${FILE_SYSTEM + at}, not 0x${wanted[at]?.toString(16)}`,
  );
}
