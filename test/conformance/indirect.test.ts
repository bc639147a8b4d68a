// Indirect descriptors, both sides: virtio 1.3 §2.7.5.3.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_WRITE } from '../../src/abi/split-ring.ts';
import { VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { AssertionError } from '../../src/errors.ts';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { ADDED, QUEUE_FULL } from '../../src/virtqueue/driver-queue.ts';
import { PlainRing } from '../support/plain-ring.test.helper.ts';
import { fillTable } from '../support/raw-driver.test.helper.ts';
import { readyToRead, Scene } from '../support/scene.test.helper.ts';

function buffers(count: number): BufferList {
  const list = new BufferList();
  for (let i = 0; i < count; i++) list.addReadable(64 + i * 10, i + 1);
  return list;
}

test('§2.7.5.3 a long chain takes one ring descriptor, INDIRECT alone, whose table has it whole', () => {
  const ring = new PlainRing(16, { indirect: true, eventIndex: false });
  assert.equal(ring.driver.add(buffers(7).addWritable(900, 5), 0), ADDED);
  assert.equal(ring.table.flags(0), VIRTQ_DESC_F_INDIRECT);
  assert.equal(ring.table.len(0), 8 * 16);
  const view = new DataView(ring.region.buffer, ring.table.addressLow(0), 8 * 16);
  for (let i = 0; i < 8; i++) {
    assert.equal(view.getUint32(i * 16, true), i < 7 ? 64 + i * 10 : 900);
    assert.equal(view.getUint32(i * 16 + 8, true), i < 7 ? i + 1 : 5);
    assert.equal(view.getUint16(i * 16 + 12, true), i < 7 ? 1 : 2);
    assert.equal(view.getUint16(i * 16 + 14, true), i < 7 ? i + 1 : 0);
  }
  assert.equal(ring.pop().readable.byteLength, 28);
});

test('§2.7.5.3 with tables, a queue holds as many requests as it has descriptors, whatever their length', () => {
  const ring = new PlainRing(8, { indirect: true, eventIndex: false });
  for (let i = 0; i < 8; i++) assert.equal(ring.driver.add(buffers(5), i), ADDED);
  assert.equal(ring.driver.add(buffers(5), 8), QUEUE_FULL);
  for (let i = 0; i < 8; i++) ring.device.complete(ring.pop(), 0, 0);
  for (let i = 0; i < 8; i++) assert.equal(ring.driver.poll(), i);
});

test('§2.7.5.3 without the feature, the same chain takes ring descriptors', () => {
  const ring = new PlainRing(16);
  assert.equal(ring.driver.add(buffers(7), 0), ADDED);
  for (let i = 0; i < 7; i++) assert.equal(ring.table.flags(i) & VIRTQ_DESC_F_INDIRECT, 0);
  assert.equal(ring.pop().readable.byteLength, 28);
});

test('§2.7.5.3.1 a chain is never longer than the queue, though a table would have room', () => {
  for (const size of [1, 2, 4]) {
    const ring = new PlainRing(size, { indirect: true, eventIndex: false });
    assert.equal(ring.driver.maxBuffers, size);
    assert.throws(() => ring.driver.add(buffers(size + 1), 0), AssertionError);
    assert.equal(ring.available.index, 0);
    assert.equal(ring.driver.add(buffers(size), 0), ADDED);
    assert.equal(ring.pop().access.readable.byteLength, (size * (size + 1)) / 2);
  }
});

test('§2.7.5.3.2 the write flag of a descriptor that refers to a table is ignored', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const table = scene.driver.share(1);
  fillTable(table, 0, request.read(512));
  queue.table.write(0, table.low, table.high, 48, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE, 0);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});

test('§2.7.5.3.2 ordinary descriptors followed by one that refers to a table are one chain', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const table = scene.driver.share(1);
  const [header, data, status] = request.read(512);
  scene.driver.chain(queue, 7, [header, { at: table, length: 32 }]);
  queue.table.write(8, table.low, table.high, 32, VIRTQ_DESC_F_INDIRECT, 0);
  fillTable(table, 0, [data, status]);
  scene.driver.submit(queue, 7);
  assert.equal(queue.used.id(0), 7);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});
