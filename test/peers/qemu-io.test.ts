// qemu-io on grantio's disks: writes patterns at all sorts of offsets, reads them back through the guest,
// and what is then in the image is compared with what the same writes make of a buffer.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { seededBytes } from './content.ts';
import { peerTest } from './peer.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const SIZE = 8 * MIB;
/** Contents are undefined after a discard: this range is not compared. */
const DISCARDED = { start: 6 * MIB, end: 7 * MIB };

/** Byte value, offset, length and qemu-io's command for a write. */
type Write = readonly [pattern: number, offset: number, length: number, command?: string];

const WRITES: readonly Write[] = [
  [0xa1, 0, 64 * KIB],
  [0x5b, 511, 1025],
  [0x01, 4095, 2],
  [0x77, 12_345, 1],
  [0xc3, 64 * KIB - 1, 128 * KIB + 3],
  [0x3c, MIB + 512, 512],
  [0x3d, MIB + 8 * KIB, 4 * KIB, 'write -f'],
  [0, MIB + 2 * KIB, 1536, 'write -z'],
  [0, 70_001, 30_003, 'write -z -u'],
  [0x99, 2 * MIB - 4096, 8 * KIB],
  [0xee, SIZE - 4096, 4096],
  [0xef, SIZE - 1, 1],
];

const ASYNCHRONOUS: readonly Write[] = [
  [0x11, 3 * MIB, MIB],
  [0x22, 4 * MIB, 64 * KIB],
  [0x33, 4 * MIB + 64 * KIB, 4 * KIB],
  [0x44, 4 * MIB + 100 * KIB + 1, 7 * KIB + 5],
  [0x55, 5 * MIB, 512 * KIB],
];

/** One call of qemu-io with all its commands, which must not find a wrong byte. */
function qemuIo(commands: readonly string[]): string {
  // The status does not tell of wrong bytes that an asynchronous read found.
  return `qemu-io -f raw ${commands.map((command) => `-c '${command}'`).join(' ')} "$uri" >qemu-io.out || { cat qemu-io.out; exit 1; }
cat qemu-io.out
if grep -i -e fail -e error qemu-io.out; then exit 1; fi`;
}

function expected(before: Buffer): Buffer {
  const disk = Buffer.from(before);
  for (const [pattern, offset, length] of [...WRITES, ...ASYNCHRONOUS])
    disk.fill(pattern, offset, offset + length);
  return disk;
}

function assertSame(disk: Buffer, wanted: Buffer): void {
  for (const image of [disk, wanted]) image.fill(0, DISCARDED.start, DISCARDED.end);
  const at = disk.findIndex((byte, offset) => byte !== wanted[offset]);
  assert.equal(
    at,
    -1,
    `the image has 0x${disk[at]?.toString(16)} at ${at}, not 0x${wanted[at]?.toString(16)}`,
  );
  assert.equal(disk.length, wanted.length);
}

peerTest('qemu-io finds the patterns that it wrote', ['qemu-io'], async (peer) => {
  const disk = peer.path('disk.img');
  const before = seededBytes(SIZE, 21);
  writeFileSync(disk, before);
  // Each write is read back at once, before a later one covers it.
  const synchronous = WRITES.flatMap(([pattern, offset, length, command = 'write']) => [
    command.includes('-z')
      ? `${command} ${offset} ${length}`
      : `${command} -P ${pattern} ${offset} ${length}`,
    `read -P ${pattern} ${offset} ${length}`,
  ]);
  const writes = ASYNCHRONOUS.map((write) => `aio_write -P ${write.join(' ')}`);
  const reads = ASYNCHRONOUS.map((read) => `aio_read -P ${read.join(' ')}`);
  await peer.serve(
    [disk],
    [
      qemuIo([...synchronous, 'flush']),
      qemuIo([...writes, 'aio_flush', ...reads, 'aio_flush', 'flush']),
      qemuIo([`discard ${DISCARDED.start} ${DISCARDED.end - DISCARDED.start}`, 'flush']),
      // A later client finds what an earlier one wrote.
      qemuIo(ASYNCHRONOUS.map(([pattern, offset, length]) => `read -P ${pattern} ${offset} ${length}`)),
    ].join('\n'),
  );
  assertSame(readFileSync(disk), expected(before));
});

peerTest('qemu-io cannot write to a read-only disk nor past the end of one', ['qemu-io'], async (peer) => {
  const disk = peer.path('disk.img');
  const before = seededBytes(SIZE, 22);
  writeFileSync(disk, before);
  await peer.serve(
    [disk, `${disk},ro`],
    `if qemu-io -f raw -c 'write ${SIZE} 512' "$uri"; then exit 1; fi
     if qemu-io -f raw -c 'write ${SIZE - 512} 1024' "$uri"; then exit 1; fi
     readonly="nbd+unix:///xvdb?socket=$unixsocket"
     if qemu-io -f raw -c 'write 0 512' "$readonly"; then exit 1; fi
     qemu-io -r -f raw -c 'read 0 ${SIZE}' "$readonly"`,
  );
  assert.ok(readFileSync(disk).equals(before), 'a refused write changed the image');
});
