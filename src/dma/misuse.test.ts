// G18: a driver that unmaps what it did not map so. It is an error of ours, found before anything has changed:
// neither a grant nor a byte of the guest's memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { MAX_MAPPING_SIZE } from './dma.ts';
import {
  checkNothingShared,
  dmaOf,
  GRANTING_MODES,
  type GrantingMode,
  newSharing,
  takePages,
} from './sharing.test.helper.ts';

/** A device with two buffers of `size` bytes mapped, and a check that nothing has changed since. */
function machine(mode: GrantingMode, size: number, direction: number) {
  const sharing = newSharing();
  const dma = dmaOf(mode, sharing);
  const address = takePages(sharing, 8) + 16;
  sharing.u8.fill(0x5e, address, address + 7 * XEN_PAGE_SIZE);
  const [other, at] = [
    { low: 0, high: 0 },
    { low: 0, high: 0 },
  ];
  assert.ok(dma.map(address + 4 * XEN_PAGE_SIZE, size, direction, other));
  assert.ok(dma.map(address, size, direction, at));
  const state = () => [Buffer.from(sharing.u8).toString('base64'), sharing.backend.reach(), dma.live];
  const refused = (low: number, high: number, length: number, way: number) => {
    const before = state();
    assert.throws(() => dma.unmap(low, high, length, way), { name: 'AssertionError' });
    assert.deepEqual(state(), before);
  };
  return { sharing, dma, at, other, refused, address };
}

for (const mode of GRANTING_MODES) {
  for (const size of [1, 100, 2048, 3000, 2 * XEN_PAGE_SIZE]) {
    for (const direction of [DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL]) {
      test(`G18: ${mode}, ${size} bytes, direction ${direction}: unmapped as it was mapped, once, or not at all`, () => {
        const { sharing, dma, at, other, refused } = machine(mode, size, direction);
        const { low, high } = at;
        for (const wrong of [size + 1, size - 1, size + 128, size + XEN_PAGE_SIZE, 0])
          refused(low, high, wrong, direction);
        for (const way of [DMA_TO_DEVICE, DMA_FROM_DEVICE, DMA_BIDIRECTIONAL].filter(
          (each) => each !== direction,
        ))
          refused(low, high, size, way);
        for (const elsewhere of [low + 1, low + 64, low + 0x100_0000, 0])
          refused(elsewhere, high, size, direction);
        refused(low, high + 1, size, direction);
        // A plain address, and what a failed mapping has.
        refused(low, 0, size, direction);
        refused(0xffff_ffff, 0xffff_ffff, size, direction);
        assert.ok(dma.unmap(low, high, size, direction));
        refused(low, high, size, direction);
        assert.ok(dma.unmap(other.low, other.high, size, direction));
        refused(other.low, other.high, size, direction);
        dma.revokeIdle();
        checkNothingShared(sharing);
      });
    }
  }

  test(`${mode}: what is mapped has 1 byte or more, no more than fit, and one of the three directions`, () => {
    const sharing = newSharing();
    const dma = dmaOf(mode, sharing);
    for (const [size, direction] of [
      [0, DMA_TO_DEVICE],
      [-1, DMA_TO_DEVICE],
      [MAX_MAPPING_SIZE + 1, DMA_TO_DEVICE],
      [100, 3],
      [100, -1],
    ])
      assert.throws(() => dma.map(0, size, direction, { low: 0, high: 0 }), { name: 'AssertionError' });
    checkNothingShared(sharing);
    assert.equal(sharing.domain.memory.pagesFree, 256);
  });
}
