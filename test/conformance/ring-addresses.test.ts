// What the driver writes into descriptors and tells the transport are guest-physical addresses, wherever the
// guest's memory begins: virtio 1.3 §2.7 and §2.7.5.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { ADDED } from '../../src/virtqueue/driver-queue.ts';
import { ALL_FEATURES, nameOf, PlainRing } from '../support/plain-ring.test.helper.ts';

const BYTES = 64 * 1024;
/** Arm; across 2 GiB; across 4 GiB, so that ring and buffers lie on both sides; Arm's second bank. */
const BASES = [0x4000_0000, 0x8000_0000 - BYTES / 2, 0x1_0000_0000 - 0x1000, 0x2_0000_0000];

for (const base of BASES) {
  for (const features of ALL_FEATURES) {
    test(`§2.7 requests go to and fro, memory from 0x${base.toString(16)}, ${nameOf(features)}`, () => {
      const ring = new PlainRing(8, features, BYTES, base);
      for (const area of [ring.descriptorArea, ring.driverArea, ring.deviceArea])
        assert.ok(area >= base + 0x1000 && area < base + BYTES, `0x${area.toString(16)}`);
      // Twice around the ring; five buffers at a time take a table where there are any.
      for (let request = 0; request < 16; request++) {
        const [read, written] = [base + 16 * request, base + 2048 + 64 * request];
        ring.memory.bytes(read, 16).fill(request + 1);
        const buffers = new BufferList().addReadable(read, 8).addReadable(read + 8, 8);
        for (let piece = 0; piece < 3; piece++) buffers.addWritable(written + 16 * piece, 16);
        assert.equal(ring.driver.add(buffers, request), ADDED);
        const chain = ring.pop();
        const got = new Uint8Array(16);
        chain.readable.copyTo(got, 0, 16);
        assert.ok(got.every((byte) => byte === request + 1));
        chain.writable.copyFrom(new Uint8Array(48).fill(request + 101), 0);
        ring.device.complete(chain, 16, 48);
        assert.equal(ring.driver.poll(), request);
        assert.ok(ring.memory.bytes(written, 48).every((byte) => byte === request + 101));
      }
      assert.ok(ring.driver.close());
    });
  }
}

test('§2.7.5 a descriptor holds the address in full, above 4 GiB too', () => {
  const base = 0x2_0000_0000;
  const ring = new PlainRing(4, { indirect: false, eventIndex: false }, BYTES, base);
  ring.driver.add(new BufferList().addReadable(base + 0x123, 1), 0);
  assert.deepEqual([ring.table.addressHigh(0), ring.table.addressLow(0)], [2, 0x123]);
  const { descriptorHigh, driverHigh, deviceHigh } = ring.driver.addresses;
  assert.deepEqual([descriptorHigh, driverHigh, deviceHigh], [2, 2, 2]);
});
