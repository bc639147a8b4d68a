// What the driver's side of a split virtqueue writes, byte for byte: virtio 1.3 §2.7.4 to §2.7.8 and §2.7.13.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { ADDED, QUEUE_FULL } from '../../src/virtqueue/driver-queue.ts';
import { PLAIN, PlainRing } from '../support/plain-ring.test.helper.ts';

/** Descriptor `index` of a table, from the bytes. */
function descriptor(ring: PlainRing, table: number, index: number) {
  const view = new DataView(ring.region.buffer, table + index * 16, 16);
  return {
    addr: Number(view.getBigUint64(0, true)),
    len: view.getUint32(8, true),
    flags: view.getUint16(12, true),
    next: view.getUint16(14, true),
  };
}

function u16(ring: PlainRing, address: number): number {
  return new DataView(ring.region.buffer).getUint16(address, true);
}

test('§2.7 the three areas are aligned to 16, 2 and 4 bytes and do not overlap, for every size', () => {
  for (let size = 1; size <= 1024; size *= 2) {
    const ring = new PlainRing(size);
    assert.equal(ring.descriptorArea % 16, 0);
    assert.equal(ring.driverArea % 2, 0);
    assert.equal(ring.deviceArea % 4, 0);
    assert.ok(ring.descriptorArea + 16 * size <= ring.driverArea);
    assert.ok(ring.driverArea + 6 + 2 * size <= ring.deviceArea);
  }
});

test('§2.7.10.1 a queue starts with all fields zero', () => {
  const ring = new PlainRing(8, { indirect: true, eventIndex: true });
  const bytes = new Uint8Array(ring.region.buffer, ring.descriptorArea, ring.deviceArea + 6 + 64);
  assert.ok(bytes.every((byte) => byte === 0));
});

test('§2.7.13.1 a chain has addresses, lengths, WRITE, and NEXT on all but its last descriptor', () => {
  const ring = new PlainRing(8);
  const buffers = new BufferList().addReadable(100, 16).addWritable(200, 512).addWritable(900, 1);
  assert.equal(ring.driver.add(buffers, 0), ADDED);
  const head = u16(ring, ring.driverArea + 4);
  const first = descriptor(ring, ring.descriptorArea, head);
  const second = descriptor(ring, ring.descriptorArea, first.next);
  const third = descriptor(ring, ring.descriptorArea, second.next);
  assert.deepEqual([first.addr, first.len, first.flags], [100, 16, 1]);
  assert.deepEqual([second.addr, second.len, second.flags], [200, 512, 3]);
  assert.deepEqual([third.addr, third.len, third.flags], [900, 1, 2]);
  assert.equal(new Set([head, first.next, second.next]).size, 3);
});

test('§2.7.4.2 all readable buffers come before the first writable one', () => {
  const ring = new PlainRing(8);
  ring.driver.add(new BufferList().addReadable(0, 1).addReadable(8, 2).addWritable(16, 3), 0);
  const chain = ring.pop();
  assert.equal(chain.readable.byteLength, 3);
  assert.equal(chain.writable.byteLength, 3);
});

test('§2.7.13.2 §2.7.13.3 the head goes into the next ring entry, then the index goes up by one', () => {
  const ring = new PlainRing(4);
  for (let i = 0; i < 10; i++) {
    ring.add(i);
    assert.equal(u16(ring, ring.driverArea + 2), i + 1);
    const head = u16(ring, ring.driverArea + 4 + 2 * (i % 4));
    const chain = ring.pop();
    assert.equal(chain.head, head);
    ring.device.complete(chain, 0, 0);
    assert.equal(ring.driver.poll(), i);
  }
});

test('§2.7.5 a queue takes as many descriptors as its size, and says when it is full', () => {
  for (const size of [1, 2, 4, 8]) {
    const ring = new PlainRing(size);
    for (let i = 0; i < size; i++) ring.add(i);
    const before = ring.region.u8.slice();
    assert.equal(ring.driver.hasRoom(1), false);
    assert.equal(ring.driver.add(new BufferList().addReadable(0, 1), 99), QUEUE_FULL);
    assert.deepEqual(ring.region.u8, before, 'a request that is refused changes nothing');
  }
});

test('§2.7.5 a chain that is longer than the room there is is refused whole', () => {
  const ring = new PlainRing(4);
  ring.add(0);
  ring.add(1);
  const three = new BufferList().addReadable(0, 1).addReadable(2, 1).addReadable(4, 1);
  assert.equal(ring.driver.add(three, 2), QUEUE_FULL);
  ring.device.complete(ring.pop(), 0, 0);
  assert.equal(ring.driver.poll(), 0);
  assert.equal(ring.driver.add(three, 2), ADDED);
  assert.equal(ring.driver.hasRoom(1), false);
});

test('§2.7.8 completions are taken in the order of the used ring, not of the requests', () => {
  const ring = new PlainRing(4);
  for (let i = 0; i < 4; i++) ring.add(i);
  const chains = [0, 1, 2, 3].map(() => ring.pop());
  for (const index of [2, 0, 3, 1]) ring.device.complete(chains[index], 0, index);
  for (const index of [2, 0, 3, 1]) {
    assert.equal(ring.driver.poll(), index);
    assert.equal(ring.driver.lastLength, index);
  }
  assert.equal(ring.driver.poll(), -1);
  assert.equal(ring.driver.inFlight, 0);
});

test('§2.7.7.1 §2.7.10.1 without event indices, flags are 0 or 1 and the event fields are not looked at', () => {
  const ring = new PlainRing(4, PLAIN);
  ring.driver.disableInterrupts();
  assert.equal(u16(ring, ring.driverArea), 1);
  ring.driver.enableInterrupts();
  assert.equal(u16(ring, ring.driverArea), 0);
  ring.used.availEvent = 0x4000;
  ring.add(0);
  assert.equal(ring.driver.takeNotification(), true);
  ring.used.flags = 1;
  ring.add(1);
  assert.equal(ring.driver.takeNotification(), false);
});

test('§2.7.7.1 §2.7.10.1 with event indices, flags stay 0 and the lower bit of the other side is ignored', () => {
  const ring = new PlainRing(4, { indirect: false, eventIndex: true });
  ring.driver.disableInterrupts();
  ring.driver.enableInterrupts();
  assert.equal(u16(ring, ring.driverArea), 0);
  ring.used.flags = 1;
  ring.add(0);
  assert.equal(ring.driver.takeNotification(), true);
});

test('§2.7.7.1 used_event follows the last entry of the available ring', () => {
  const ring = new PlainRing(4, { indirect: false, eventIndex: true });
  for (let i = 0; i < 3; i++) {
    ring.add(i);
    ring.device.complete(ring.pop(), 0, 0);
    ring.driver.poll();
  }
  ring.driver.enableInterrupts();
  assert.equal(u16(ring, ring.driverArea + 4 + 2 * 4), 3);
});

test('§2.7.10.1 no notification is due while nothing was added', () => {
  const ring = new PlainRing(4);
  assert.equal(ring.driver.takeNotification(), false);
  ring.add(0);
  assert.equal(ring.driver.takeNotification(), true);
  assert.equal(ring.driver.takeNotification(), false);
});

test('§2.7.7 enabling interrupts reports what was completed meanwhile', () => {
  for (const eventIndex of [false, true]) {
    const ring = new PlainRing(4, { indirect: false, eventIndex });
    ring.add(0);
    assert.equal(ring.driver.enableInterrupts(), false);
    ring.device.complete(ring.pop(), 0, 0);
    assert.equal(ring.driver.enableInterrupts(), true);
    ring.driver.poll();
    assert.equal(ring.driver.enableInterrupts(), false);
  }
});
