// The block device against virtio 1.3 §5.2.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import { MMIO_CONFIG } from '../../src/abi/virtio-mmio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { Segments } from '../../src/memory/segments.ts';
import type { StoreResult } from '../../src/storage/block-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { RawDisk, range } from '../support/raw-disk.test.helper.ts';
import { BASE, DISK_SIZE, diskBytes, NO_STATUS, Scene } from '../support/scene.test.helper.ts';

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;

/** A disk that remembers what was asked of it, and fails on demand. */
class WatchedStore extends MemoryStore {
  readonly calls: string[] = [];
  failing = '';

  override read(offset: number, into: Segments): StoreResult {
    return this.#note('read', `${offset}+${into.byteLength}`) ?? super.read(offset, into);
  }

  override write(offset: number, from: Segments): StoreResult {
    return this.#note('write', `${offset}+${from.byteLength}`) ?? super.write(offset, from);
  }

  override flush(): StoreResult {
    return this.#note('flush', '') ?? super.flush();
  }

  override writeZeroes(offset: number, length: number): StoreResult {
    return this.#note('zeroes', `${offset}+${length}`) ?? super.writeZeroes(offset, length);
  }

  #note(call: string, what: string): StoreResult | undefined {
    this.calls.push(`${call} ${what}`.trim());
    return call === this.failing ? 'EIO' : undefined;
  }
}

function watched(without = 0n) {
  const store = new WatchedStore(diskBytes(DISK_SIZE, 0x21));
  const scene = new Scene({ store });
  const disk = new RawDisk(scene, without);
  return { store, scene, disk };
}

test('§5.2.4 seg_max fits a ring of 128, to which a monitor may cut a larger one', () => {
  const store = new WatchedStore(diskBytes(DISK_SIZE, 0x21));
  const device = new BlkDevice(store, { queues: 1, queueSize: 256, id: '' });
  assert.equal(blk.virtioBlkConfig.over(device.config).seg_max, 126);
});

test('§5.2.4 the configuration space says what the device is', async () => {
  const scene = new Scene({ queues: 3, queueSize: 32 });
  const config = new Uint8Array(blk.virtioBlkConfig.size);
  for (let at = 0; at < config.length; at++)
    config[at] = scene.driver.guest.ports.mmio.read(BASE + MMIO_CONFIG + at, 1);
  const fields = blk.virtioBlkConfig.over(config);
  assert.equal(fields.capacity, DISK_SIZE / 512);
  assert.equal(fields.seg_max, 30);
  assert.equal(fields.blk_size, 512);
  assert.equal(fields.num_queues, 3);
  assert.deepEqual([fields.max_discard_seg, fields.max_discard_sectors], [16, 2 ** 21]);
  assert.deepEqual([fields.max_write_zeroes_seg, fields.max_write_zeroes_sectors], [16, 2 ** 21]);
  assert.equal(fields.write_zeroes_may_unmap, 0, 'what no store does is not announced');
  // §5.2.5.2: padding is zero, and so is what belongs to features that are not offered.
  assert.deepEqual([fields.unused0, ...fields.unused1, ...fields.unused2], [0, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual([fields.size_max, fields.cylinders, fields.writeback, fields.model], [0, 0, 0, 0]);
  await scene.finish();
});

test('§5.2.5.2 VIRTIO_BLK_F_FLUSH is offered', async () => {
  const scene = new Scene();
  assert.ok(scene.driver.readFeatures() & blk.VIRTIO_BLK_F_FLUSH);
  await scene.finish();
});

test('§5.2.6 a read fills the data and the status, and the used length counts both', async () => {
  const { store, scene, disk } = watched();
  const answer = disk.ask(blk.VIRTIO_BLK_T_IN, 5, undefined, 3 * 512);
  assert.deepEqual([answer.status, answer.length], [OK, 3 * 512 + 1]);
  assert.deepEqual(answer.data, store.bytes.slice(5 * 512, 8 * 512));
  assert.deepEqual(store.calls, ['read 2560+1536']);
  await scene.finish();
});

test('§5.2.6 a write changes exactly its sectors, and the used length counts the status', async () => {
  const { store, scene, disk } = watched();
  const expected = store.bytes.slice();
  const data = diskBytes(1024, 0x99);
  const answer = disk.ask(blk.VIRTIO_BLK_T_OUT, 126, data);
  expected.set(data, 126 * 512);
  assert.deepEqual([answer.status, answer.length], [OK, 1]);
  assert.deepEqual(store.bytes, expected);
  await scene.finish();
});

test('§5.2.6 the largest sector of the disk is served, with data of the whole disk', async () => {
  const { store, scene, disk } = watched();
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_IN, 127, undefined, 512).status, OK);
  const whole = disk.ask(blk.VIRTIO_BLK_T_IN, 0, undefined, DISK_SIZE);
  assert.deepEqual([whole.status, whole.length], [OK, DISK_SIZE + 1]);
  assert.deepEqual(whole.data, store.bytes);
  await scene.finish();
});

for (const room of [0, 1, 7, 19, 20, 21, 512]) {
  test(`§5.2.6 GET_ID with room for ${room} bytes gives at most the 20 bytes of the id, padded with NUL`, async () => {
    const scene = new Scene();
    const disk = new RawDisk(scene);
    const answer = disk.ask(blk.VIRTIO_BLK_T_GET_ID, 0, undefined, room);
    const id = new Uint8Array(20);
    id.set(new TextEncoder().encode('suspect'));
    const given = Math.min(room, 20);
    assert.equal(answer.status, OK);
    assert.deepEqual(answer.data.slice(0, given), id.slice(0, given));
    assert.ok(answer.data.subarray(given).every((byte) => byte === NO_STATUS));
    assert.equal(answer.length, room <= 20 ? room + 1 : 20);
    await scene.finish();
  });
}

test('§5.2.6.2 after write zeroes the ranges read as zero, with and without unmap', async () => {
  const { store, scene, disk } = watched();
  const expected = store.bytes.slice();
  const ranges = new Uint8Array(48);
  ranges.set(range(0, 1), 0);
  ranges.set(range(10, 5, blk.VIRTIO_BLK_RANGE_F_UNMAP), 16);
  ranges.set(range(127, 1), 32);
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges).status, OK);
  for (const [from, count] of [
    [0, 1],
    [10, 5],
    [127, 1],
  ])
    expected.fill(0, from * 512, (from + count) * 512);
  assert.deepEqual(store.bytes, expected);
  const read = disk.ask(blk.VIRTIO_BLK_T_IN, 9, undefined, 7 * 512);
  assert.deepEqual(read.data, expected.slice(9 * 512, 16 * 512));
  await scene.finish();
});

test('§5.2.6.2 a discard leaves everything outside its range as it was', async () => {
  const { store, scene, disk } = watched();
  const before = store.bytes.slice();
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_DISCARD, 0, range(4, 4)).status, OK);
  assert.deepEqual(store.bytes.slice(0, 4 * 512), before.slice(0, 4 * 512));
  assert.deepEqual(store.bytes.slice(8 * 512), before.slice(8 * 512));
  await scene.finish();
});

test('§5.2.6.2 a flush reaches the store, and its failure the driver', async () => {
  const { store, scene, disk } = watched();
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_FLUSH, 0).status, OK);
  store.failing = 'flush';
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_FLUSH, 0).status, IOERR);
  assert.deepEqual(store.calls, ['flush', 'flush']);
  await scene.finish();
});

test('§5.2.6.2 with VIRTIO_BLK_F_FLUSH negotiated, a write is volatile until a flush', async () => {
  const { store, scene, disk } = watched();
  disk.ask(blk.VIRTIO_BLK_T_OUT, 0, new Uint8Array(512));
  assert.deepEqual(store.calls, ['write 0+512']);
  await scene.finish();
});

test('§5.2.6.2 without VIRTIO_BLK_F_FLUSH negotiated, a write is stable when it completes', async () => {
  const { store, scene, disk } = watched(blk.VIRTIO_BLK_F_FLUSH);
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_OUT, 0, new Uint8Array(512)).status, OK);
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(2, 1)).status, OK);
  assert.deepEqual(store.calls, ['write 0+512', 'flush', 'zeroes 1024+512', 'flush']);
  store.calls.length = 0;
  store.failing = 'flush';
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_OUT, 0, new Uint8Array(512)).status, IOERR, 'it is not stable');
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_IN, 0, undefined, 512).status, OK);
  assert.deepEqual(store.calls, ['write 0+512', 'flush', 'read 0+512']);
  await scene.finish();
});

for (const failing of ['read', 'write', 'zeroes']) {
  test(`§5.2.6.2 a store that fails to ${failing} fails that request alone`, async () => {
    const { store, scene, disk } = watched();
    store.failing = failing;
    const read = () => disk.ask(blk.VIRTIO_BLK_T_IN, 0, undefined, 512);
    const write = () => disk.ask(blk.VIRTIO_BLK_T_OUT, 0, new Uint8Array(512));
    const zeroes = () => disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(0, 1));
    const expected = ['read', 'write', 'zeroes'].map((call) => (call === failing ? IOERR : OK));
    assert.deepEqual([read().status, write().status, zeroes().status], expected);
    store.failing = '';
    assert.deepEqual([read().status, write().status, zeroes().status], [OK, OK, OK]);
    await scene.finish();
  });
}

test('§2.7.8.2 a read that failed claims no byte of the data, for it has not written all of it', async () => {
  const { store, scene, disk } = watched();
  store.failing = 'read';
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_IN, 0, undefined, 512).length, 0);
  await scene.finish();
});
