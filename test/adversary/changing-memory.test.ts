// A driver that rewrites shared memory between any two reads of the device (XSA-155): what the device has
// looked at once decides, and nothing is looked at twice.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Region } from '../../src/abi/region.ts';
import * as blk from '../../src/abi/virtio-blk.ts';
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../src/abi/virtio.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { DISK_SIZE, diskBytes, RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

/** `words`, each of which becomes all ones as soon as it has been read. */
function readOnce<Words extends Uint16Array | Uint32Array>(words: Words, reads: number[]): Words {
  return new Proxy(words, {
    get(target, key) {
      const index = Number(key);
      const value = target[index];
      target[index] = 0xffff_ffff;
      reads.push(target.BYTES_PER_ELEMENT * index);
      return value;
    },
  });
}

/** Has the next page that the backend maps read through `readOnce`. */
function trapNextMapping(scene: Scene, reads: number[]): void {
  const { grantMapper } = scene.backend.ports;
  const region = grantMapper.region.bind(grantMapper);
  let trapped: number | undefined;
  grantMapper.region = (handle): Region => {
    trapped ??= handle;
    const real = region(handle);
    if (handle !== trapped) return real;
    return { ...real, u16: readOnce(real.u16, reads), u32: readOnce(real.u32, reads) };
  };
}

test('F15 every word of a descriptor is read once; a change after that has no effect', async () => {
  const scene = new Scene();
  const { driver } = scene;
  const reads: number[] = [];
  driver.negotiate();
  const queue = driver.layOut(0, 16);
  // The descriptor table is the first of the three areas to be mapped.
  trapNextMapping(scene, reads);
  driver.enable(queue);
  driver.driverOk();
  const request = new RawRequest(driver);
  request.header(blk.VIRTIO_BLK_T_IN, 0);
  driver.chain(queue, 0, request.read(512));
  driver.submit(queue, 0);
  assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK);
  assert.deepEqual(request.data.bytes.slice(0, 512), scene.bytes.slice(0, 512));
  assert.equal(new Set(reads).size, reads.length, 'no word is read twice');
  assert.equal(reads.length, 3 * 5, 'address (two halves), length, flags and next of three descriptors');
  await scene.finish();
});

test('F15 an available entry that changes once it was taken has no effect', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const { grantMapper } = scene.backend.ports;
  const map = grantMapper.map.bind(grantMapper);
  grantMapper.map = (owner, ref, readonly) => {
    queue.available.setHead(0, 9);
    for (let i = 0; i < 16; i++) queue.table.write(i, 0, 0, 0xffff, 0, 0);
    return map(owner, ref, readonly);
  };
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(queue.used.id(0), 0, 'the head that was taken is returned');
  assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK);
  await scene.finish();
});

/** A disk in whose midst of an operation the driver gets to run. */
class InterruptedStore extends MemoryStore {
  during: () => void = () => undefined;

  override read(...args: Parameters<MemoryStore['read']>) {
    this.during();
    return super.read(...args);
  }

  override writeZeroes(...args: Parameters<MemoryStore['writeZeroes']>) {
    const result = super.writeZeroes(...args);
    this.during();
    return result;
  }
}

test('F15 a header that changes while the request is served does not redirect it', async () => {
  const bytes = diskBytes(DISK_SIZE, 0x33);
  const store = new InterruptedStore(bytes);
  const scene = new Scene({ store });
  const { queue, request } = readyToRead(scene);
  store.during = () => {
    request.head.bytes.fill(0xff);
    scene.driver.chain(queue, 0, request.write(1024));
  };
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK);
  assert.deepEqual(request.data.bytes.slice(0, 512), bytes.slice(0, 512));
  assert.equal(queue.used.len(0), 513);
  await scene.finish();
});

test('F15 ranges that change after they were checked are not what is wiped', async () => {
  const bytes = diskBytes(DISK_SIZE, 0x44);
  const original = bytes.slice();
  const store = new InterruptedStore(bytes);
  const scene = new Scene({ store });
  const { queue, request } = readyToRead(scene);
  request.header(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0);
  const ranges = [2, 5].map((sector) => blk.virtioBlkRange.make({ sector, num_sectors: 1 }).bytes);
  request.data.bytes.set(ranges[0], 0);
  request.data.bytes.set(ranges[1], 16);
  // Between the first range and the second: huge, and far behind the end of the disk.
  store.during = () => request.data.bytes.fill(0xff, 0, 32);
  scene.driver.chain(queue, 0, request.write(32));
  scene.driver.submit(queue, 0);
  assert.equal(request.status(32), blk.VIRTIO_BLK_S_OK);
  original.fill(0, 2 * 512, 3 * 512);
  original.fill(0, 5 * 512, 6 * 512);
  assert.deepEqual(bytes, original);
  await scene.finish();
});

test('F15 data that is rewritten after it was written out does not reach the disk', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  request.header(blk.VIRTIO_BLK_T_OUT, 7);
  request.data.bytes.fill(0x5a, 0, 512);
  scene.driver.chain(queue, 0, request.write(512));
  scene.driver.submit(queue, 0);
  request.data.bytes.fill(0xa5, 0, 512);
  assert.ok(scene.bytes.subarray(7 * 512, 8 * 512).every((byte) => byte === 0x5a));
  assert.equal(scene.driver.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
  await scene.finish();
});
