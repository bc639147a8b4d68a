// D2 D3 Block requests that no correct driver makes: that request gets an error status, the disk is as it
// was, and the queue goes on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { RawDisk, range } from '../support/raw-disk.test.helper.ts';
import { DISK_SIZE, diskBytes, NO_STATUS, readyToRead, Scene } from '../support/scene.test.helper.ts';

const SECTORS = DISK_SIZE / 512;
const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK, VIRTIO_BLK_S_UNSUPP: UNSUPP } = blk;
const IN = blk.VIRTIO_BLK_T_IN;
const OUT = blk.VIRTIO_BLK_T_OUT;
const DISCARD = blk.VIRTIO_BLK_T_DISCARD;
const ZEROES = blk.VIRTIO_BLK_T_WRITE_ZEROES;

/** Runs `ask`, which must end in `status` and leave the disk as it was; then the queue must go on. */
function refusedWith(status: number, ask: (disk: RawDisk) => { status: number; length: number }) {
  return async () => {
    const scene = new Scene();
    const disk = new RawDisk(scene);
    const original = scene.bytes.slice();
    const answer = ask(disk);
    assert.equal(answer.status, status);
    assert.deepEqual(scene.bytes, original, 'the disk is as it was');
    const next = disk.ask(IN, 0, new Uint8Array(0), 512);
    assert.equal(next.status, OK, 'the queue goes on');
    assert.deepEqual(next.data, original.slice(0, 512));
    await scene.finish();
  };
}

for (const length of [0, 1, 511, 513, 1023]) {
  const data = new Uint8Array(length);
  test(
    `D2 a read of ${length} bytes is an error`,
    refusedWith(IOERR, (disk) => {
      const answer = disk.ask(IN, 0, undefined, length);
      assert.ok(answer.data.every((byte) => byte === NO_STATUS));
      return answer;
    }),
  );
  test(
    `D2 a write of ${length} bytes is an error`,
    refusedWith(IOERR, (disk) => disk.ask(OUT, 0, data)),
  );
}

const past: [number, number][] = [
  [SECTORS, 1],
  [SECTORS - 1, 2],
  [SECTORS + 1, 1],
  [2 ** 32 - 1, 1],
  [2 ** 53 - 1, 1],
];
for (const [sector, count] of past) {
  const title = `${count} sectors from ${sector} of a disk of ${SECTORS}`;
  const data = new Uint8Array(count * 512);
  test(
    `D2 reading ${title} is an error`,
    refusedWith(IOERR, (d) => d.ask(IN, sector, undefined, data.length)),
  );
  test(
    `D2 writing ${title} is an error`,
    refusedWith(IOERR, (disk) => disk.ask(OUT, sector, data)),
  );
  test(
    `D3 discarding ${title} is an error`,
    refusedWith(IOERR, (d) => d.ask(DISCARD, 0, range(sector, count))),
  );
  test(
    `D3 wiping ${title} is an error`,
    refusedWith(IOERR, (d) => d.ask(ZEROES, 0, range(sector, count))),
  );
}

test(
  'D2 a sector so large that its byte offset wraps 2^64 is an error',
  refusedWith(IOERR, (disk) => {
    const stream = new Uint8Array(16 + 512);
    new DataView(stream.buffer).setUint32(0, OUT, true);
    // 2^55 sectors are 2^64 bytes: sector 0 again, for who multiplies without looking.
    new DataView(stream.buffer).setBigUint64(8, 2n ** 55n, true);
    return disk.askRaw(stream, 0);
  }),
);

for (const length of [0, 1, 8, 15]) {
  test(
    `D2 a header of ${length} bytes is an error`,
    refusedWith(IOERR, (disk) => disk.askRaw(new Uint8Array(length), 512)),
  );
}

for (const type of [2, 3, 5, 7, 10, 12, 14, 16, 26, 0xffff, 0x8000_0000, 0xffff_ffff]) {
  test(
    `D2 request type ${type} is unsupported`,
    refusedWith(UNSUPP, (disk) => disk.ask(type, 0, undefined, 512)),
  );
}

test('D2 a request without any room for its status breaks the device', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  scene.driver.chain(queue, 0, request.read(512).slice(0, 1));
  scene.driver.submit(queue, 0);
  await scene.broken('§5.2.6');
});

test('D2 a status byte among the readable buffers is not written: the device breaks', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  request.header(OUT, 0);
  const original = scene.bytes.slice();
  scene.driver.chain(
    queue,
    0,
    request.write(512).map((buffer) => ({ ...buffer, writable: false })),
  );
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), NO_STATUS);
  assert.deepEqual(scene.bytes, original, 'and nothing is written to the disk');
  await scene.broken('§5.2.6');
});

test('D2 nothing is written to a read-only disk, whatever is asked', async () => {
  const bytes = diskBytes(DISK_SIZE, 0x55);
  const original = bytes.slice();
  const scene = new Scene({ store: new MemoryStore(bytes, true) });
  const disk = new RawDisk(scene);
  assert.ok(scene.driver.readFeatures() & blk.VIRTIO_BLK_F_RO);
  assert.equal(scene.driver.readFeatures() & blk.VIRTIO_BLK_F_DISCARD, 0n);
  assert.equal(disk.ask(OUT, 0, new Uint8Array(512)).status, IOERR);
  assert.equal(disk.ask(ZEROES, 0, range(0, 1)).status, IOERR);
  assert.equal(disk.ask(DISCARD, 0, range(0, 1)).status, IOERR);
  assert.equal(disk.ask(IN, 0, undefined, 512).status, OK);
  assert.deepEqual(bytes, original);
  await scene.finish();
});

for (const flags of [2, 3, 0x8000_0000, 0xffff_fffe]) {
  test(
    `D3 wiping with the unknown flags ${flags} is unsupported`,
    refusedWith(UNSUPP, (disk) => disk.ask(ZEROES, 0, range(0, 1, flags))),
  );
}
for (const flags of [1, 2, 0xffff_ffff]) {
  test(
    `D3 discarding with flags ${flags}, unmap among them or not, is unsupported`,
    refusedWith(UNSUPP, (disk) => disk.ask(DISCARD, 0, range(0, 1, flags))),
  );
}

for (const length of [0, 1, 15, 17, 31]) {
  test(
    `D3 ${length} bytes of ranges are an error`,
    refusedWith(IOERR, (disk) => disk.ask(ZEROES, 0, new Uint8Array(length))),
  );
}

test(
  'D3 more ranges than announced are an error, and none is wiped',
  refusedWith(IOERR, (disk) => {
    const most = 16;
    const ranges = new Uint8Array((most + 1) * 16);
    for (let i = 0; i <= most; i++) ranges.set(range(i, 1), i * 16);
    return disk.ask(ZEROES, 0, ranges);
  }),
);

test(
  'D3 one bad range among good ones fails all of them, before anything is wiped',
  refusedWith(IOERR, (disk) => {
    const ranges = new Uint8Array(32);
    ranges.set(range(0, 1), 0);
    ranges.set(range(SECTORS, 1), 16);
    return disk.ask(ZEROES, 0, ranges);
  }),
);

test(
  'D3 a range longer than announced is an error',
  refusedWith(IOERR, (disk) => disk.ask(ZEROES, 0, range(0, 2 ** 21 + 1))),
);
