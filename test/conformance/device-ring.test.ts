// What the device's side of a split virtqueue reads and writes, byte for byte: virtio 1.3 §2.7.5 to §2.7.10.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/abi/split-ring.ts';
import { PlainRing } from '../support/plain-ring.test.helper.ts';

function view(ring: PlainRing): DataView {
  return new DataView(ring.region.buffer);
}

/** Makes `head` available by hand. */
function offer(ring: PlainRing, head: number): void {
  const bytes = view(ring);
  const index = bytes.getUint16(ring.driverArea + 2, true);
  bytes.setUint16(ring.driverArea + 4 + 2 * (index % ring.device.size), head, true);
  bytes.setUint16(ring.driverArea + 2, index + 1, true);
}

test('§2.7.6 nothing is taken while the available index stands still', () => {
  const ring = new PlainRing(4);
  view(ring).setUint16(ring.driverArea + 4, 3, true);
  assert.equal(ring.device.pop(), undefined);
  offer(ring, 0);
  ring.table.write(0, 64, 0, 4, 0, 0);
  assert.equal(ring.pop().head, 0);
  assert.equal(ring.device.pop(), undefined);
});

test('§2.7.5 next is followed through the table in any order', () => {
  const ring = new PlainRing(8);
  ring.region.u8.set([1, 2, 3, 4, 5, 6], 64);
  ring.table.write(6, 66, 0, 2, VIRTQ_DESC_F_NEXT, 1);
  ring.table.write(1, 64, 0, 2, VIRTQ_DESC_F_NEXT, 7);
  ring.table.write(7, 200, 0, 9, VIRTQ_DESC_F_WRITE, 3);
  offer(ring, 6);
  const chain = ring.pop();
  const read = new Uint8Array(4);
  chain.readable.copyTo(read, 0, 4);
  assert.deepEqual([...read], [3, 4, 1, 2]);
  assert.deepEqual([chain.writable.byteLength, chain.writable.offsets[0]], [9, 200]);
});

test('§2.7.8 a used element is the head and the bytes written, then the index goes up', () => {
  const ring = new PlainRing(4);
  for (let i = 0; i < 10; i++) {
    const head = (i * 3) % 4;
    ring.table.write(head, 64, 0, 100, VIRTQ_DESC_F_WRITE, 0);
    offer(ring, head);
    const chain = ring.pop();
    assert.equal(view(ring).getUint16(ring.deviceArea + 2, true), i);
    ring.device.complete(chain, 0, i * 10);
    const element = ring.deviceArea + 4 + 8 * (i % 4);
    assert.equal(view(ring).getUint32(element, true), head);
    assert.equal(view(ring).getUint32(element + 4, true), i * 10);
    assert.equal(view(ring).getUint16(ring.deviceArea + 2, true), i + 1);
  }
});

test('§2.7.5.1 descriptor table and available ring are never written', () => {
  const ring = new PlainRing(4, { indirect: true, eventIndex: true });
  const written = () => ring.region.u8.slice(ring.descriptorArea, ring.deviceArea);
  for (let i = 0; i < 4; i++) {
    ring.table.write(i, 64 + i, 0, 10, i % 2 ? VIRTQ_DESC_F_WRITE : 0, 3);
    offer(ring, i);
  }
  const before = written();
  for (let i = 0; i < 4; i++) ring.device.complete(ring.pop(), 0, 0);
  ring.device.takeInterrupt();
  ring.device.enableNotifications();
  ring.device.disableNotifications();
  assert.deepEqual(written(), before);
});

test('§2.7.7.2 without event indices, flags decide about interrupts and used_event is ignored', () => {
  const ring = new PlainRing(4);
  ring.table.write(0, 64, 0, 1, VIRTQ_DESC_F_WRITE, 0);
  for (const [flags, usedEvent, expected] of [
    [0, 0, true],
    [1, 1, false],
    [0, 9, true],
    [1, 3, false],
  ] as const) {
    ring.available.flags = flags;
    ring.available.usedEvent = usedEvent;
    offer(ring, 0);
    ring.device.complete(ring.pop(), 0, 0);
    assert.equal(ring.device.takeInterrupt(), expected);
    assert.equal(ring.device.takeInterrupt(), false, 'once');
  }
});

test('§2.7.7.2 with event indices, used_event decides and the lower bit of flags is ignored', () => {
  const ring = new PlainRing(4, { indirect: false, eventIndex: true });
  ring.table.write(0, 64, 0, 1, VIRTQ_DESC_F_WRITE, 0);
  ring.available.flags = 1;
  ring.available.usedEvent = 2;
  const interrupts = [0, 1, 2, 3].map(() => {
    offer(ring, 0);
    ring.device.complete(ring.pop(), 0, 0);
    return ring.device.takeInterrupt();
  });
  assert.deepEqual(interrupts, [false, false, true, false]);
});

test('§2.7.10.2 without event indices, NO_NOTIFY is set while the device looks by itself', () => {
  const ring = new PlainRing(4);
  ring.device.disableNotifications();
  assert.equal(view(ring).getUint16(ring.deviceArea, true), 1);
  ring.device.enableNotifications();
  assert.equal(view(ring).getUint16(ring.deviceArea, true), 0);
});

test('§2.7.10.2 with event indices, flags stay 0 and avail_event is the entry that is waited for', () => {
  const ring = new PlainRing(4, { indirect: false, eventIndex: true });
  const availEvent = ring.deviceArea + 4 + 8 * 4;
  ring.table.write(0, 64, 0, 1, 0, 0);
  for (let i = 0; i < 6; i++) {
    ring.device.disableNotifications();
    assert.equal(ring.device.enableNotifications(), false);
    assert.equal(view(ring).getUint16(ring.deviceArea, true), 0);
    assert.equal(view(ring).getUint16(availEvent, true), i);
    offer(ring, 0);
    assert.equal(ring.device.enableNotifications(), true, 'one has come meanwhile');
    ring.device.complete(ring.pop(), 0, 0);
  }
});
