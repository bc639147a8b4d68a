// Modes bounce and persistent: copies in and out of a pool of private pages, slots for short buffers and runs for
// long ones. What only persistent does is in kept-grants.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { grantDma } from './exposure-modes.ts';
import type { DmaAddress, DmaOperations } from './dma.ts';
import {
  checkNothingShared,
  grantedFrames,
  newSharing,
  type Sharing,
  takePages,
} from './sharing.test.helper.ts';

type Mode = 'bounce' | 'persistent';

function scene(mode: Mode, options: Parameters<typeof newSharing>[0] = {}) {
  const sharing = newSharing(options);
  return { sharing, dma: grantDma(mode, sharing.grants, 0) };
}

/** All that was shared is over, but for what persistent keeps until it is told. */
function checkOver(mode: Mode, sharing: Sharing, dma: DmaOperations): void {
  if (mode === 'persistent') dma.revokeIdle();
  checkNothingShared(sharing);
}

function mapAt(dma: DmaOperations, address: number, size: number, direction: number): DmaAddress {
  const at = { low: 0, high: 0 };
  assert.ok(dma.map(address, size, direction, at));
  return at;
}

const bytesAt = ({ u8 }: Sharing, address: number, size: number) => [...u8.subarray(address, address + size)];

for (const mode of ['bounce', 'persistent'] as const) {
  for (const size of [1, 128, 129, 512, 513, 2048, 2049, 4096, 4097, 65_536]) {
    test(`9 G16: ${mode}: ${size} bytes: the page for a to-device buffer is read-only, for the others not, and never shared by both`, () => {
      const { sharing, dma } = scene(mode);
      const address = takePages(sharing, 17) + 3;
      const mapped = [DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL].map((direction) => ({
        direction,
        at: mapAt(dma, address, size, direction),
      }));
      for (const { direction, at } of mapped) {
        const ref = grantAddressRef(at.low, at.high);
        const writing = sharing.backend.map(ref);
        assert.equal(writing < 0, direction === DMA_TO_DEVICE);
        if (writing >= 0) sharing.backend.unmap(writing);
      }
      for (const { direction, at } of mapped) dma.unmap(at.low, at.high, size, direction);
      checkOver(mode, sharing, dma);
    });
  }

  test(`a short buffer shares its page with others of its size and direction; 32, 8 or 2 fill one: ${mode}`, () => {
    for (const [size, slots] of [
      [128, 32],
      [512, 8],
      [2048, 2],
    ]) {
      const { sharing, dma } = scene(mode);
      const address = takePages(sharing, 1);
      const mapped = Array.from({ length: slots + 1 }, () => mapAt(dma, address, size, DMA_TO_DEVICE));
      assert.equal(new Set(mapped.map(({ low, high }) => grantAddressRef(low, high))).size, 2);
      assert.equal(new Set(mapped.map(({ low }) => low)).size, slots + 1);
      assert.equal(dma.live, 2);
      for (const { low, high } of mapped) assert.ok(dma.unmap(low, high, size, DMA_TO_DEVICE));
      checkOver(mode, sharing, dma);
    }
  });

  test(`G23 B7: what the driver has taken is its own: later writes of the device do not reach it: ${mode}`, () => {
    for (const size of [64, 3 * XEN_PAGE_SIZE]) {
      const { sharing, dma } = scene(mode);
      const address = takePages(sharing, 4);
      const neighbour = mapAt(dma, address + 3 * XEN_PAGE_SIZE, size === 64 ? 64 : 1, DMA_FROM_DEVICE);
      const at = mapAt(dma, address, size, DMA_FROM_DEVICE);
      const ref = grantAddressRef(at.low, at.high);
      sharing.backend.writeAt(at, new Uint8Array(size).fill(0x11));
      const handle = sharing.backend.map(ref);
      dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE);
      sharing.backend.write(handle, 0, new Uint8Array(XEN_PAGE_SIZE).fill(0x22));
      assert.ok(bytesAt(sharing, address, size).every((byte) => byte === 0x11));
      sharing.backend.unmap(handle);
      dma.unmap(neighbour.low, neighbour.high, size === 64 ? 64 : 1, DMA_FROM_DEVICE);
      dma.recover();
      checkOver(mode, sharing, dma);
    }
  });

  test(`B3: what the device did not write of a from-device buffer comes back as zeroes, not as anything old: ${mode}`, () => {
    for (const size of [100, 2 * XEN_PAGE_SIZE]) {
      const { sharing, dma } = scene(mode);
      const address = takePages(sharing, 2);
      for (const value of [0x11, 0x22]) {
        sharing.u8.fill(0x99, address, address + size);
        const at = mapAt(dma, address, size, DMA_FROM_DEVICE);
        sharing.backend.writeAt(at, new Uint8Array(10).fill(value));
        dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE);
        assert.deepEqual(
          bytesAt(sharing, address, size),
          Array.from({ length: size }, (_, i) => (i < 10 ? value : 0)),
        );
      }
    }
  });

  test(`a to-device buffer is a snapshot: the device sees what it was when it was mapped, and cannot change it: ${mode}`, () => {
    for (const size of [100, 2 * XEN_PAGE_SIZE]) {
      const { sharing, dma } = scene(mode);
      const address = takePages(sharing, 2);
      sharing.u8.fill(0x11, address, address + size);
      const at = mapAt(dma, address, size, DMA_TO_DEVICE);
      sharing.u8.fill(0x22, address, address + size);
      assert.ok(sharing.backend.readAt(at, size).every((byte) => byte === 0x11));
      dma.unmap(at.low, at.high, size, DMA_TO_DEVICE);
      assert.ok(bytesAt(sharing, address, size).every((byte) => byte === 0x22));
    }
  });

  test(`close gives every page of the pool back, and is an error while something is mapped: ${mode}`, () => {
    const { sharing, dma } = scene(mode);
    const address = takePages(sharing, 8);
    const before = sharing.domain.memory.pagesFree;
    const mapped = [40, 400, 2000, 5000].map((size) => ({
      size,
      ...mapAt(dma, address, size, DMA_TO_DEVICE),
    }));
    assert.throws(() => dma.close(), { name: 'AssertionError' });
    for (const { low, high, size } of mapped) dma.unmap(low, high, size, DMA_TO_DEVICE);
    assert.ok(sharing.domain.memory.pagesFree < before);
    dma.close();
    assert.equal(sharing.domain.memory.pagesFree, before);
  });

  test(`G8: idle pages of the pool are no reason to refuse a buffer of another length, or a ring: ${mode}`, () => {
    const { sharing, dma } = scene(mode, { pages: 64 });
    const address = takePages(sharing, 20);
    const free = sharing.domain.memory.pagesFree;
    for (let pages = 1; pages <= 20; pages++) {
      for (const direction of [DMA_TO_DEVICE, DMA_FROM_DEVICE]) {
        const at = mapAt(dma, address, pages * XEN_PAGE_SIZE, direction);
        const small = mapAt(dma, address, 100 * pages, direction);
        assert.ok(dma.unmap(small.low, small.high, 100 * pages, direction));
        assert.ok(dma.unmap(at.low, at.high, pages * XEN_PAGE_SIZE, direction));
      }
    }
    const ring = dma.allocate(free * XEN_PAGE_SIZE)!;
    assert.ok(!dma.map(address, 1, DMA_TO_DEVICE, { low: 0, high: 0 }));
    assert.ok(dma.free(ring));
    const at = mapAt(dma, address, 1, DMA_TO_DEVICE);
    assert.ok(dma.unmap(at.low, at.high, 1, DMA_TO_DEVICE));
    checkOver(mode, sharing, dma);
  });
}

test('the pool is granted only while something is in it, and reused', () => {
  const { sharing, dma } = scene('bounce');
  const address = takePages(sharing, 8);
  const frames = new Set<number>();
  for (let round = 0; round < 5; round++) {
    const mapped = [40, 400, 2000, 5000].map((size) => ({
      size,
      ...mapAt(dma, address, size, DMA_BIDIRECTIONAL),
    }));
    for (const { frame } of grantedFrames(sharing)) frames.add(frame);
    for (const { low, high, size } of mapped) dma.unmap(low, high, size, DMA_BIDIRECTIONAL);
    checkNothingShared(sharing);
  }
  assert.equal(frames.size, 5);
});
