// L10 Addresses of before a reset, or of another host: the operations that come after do not know them, and nothing of
// what is shared now changes by them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE } from '../trace.ts';
import {
  checkNothingShared,
  dmaOf,
  grantedFrames,
  GRANTING_MODES,
  newSharing,
  takePages,
} from './sharing.test.helper.ts';

for (const mode of GRANTING_MODES) {
  test(`L10 G18: ${mode}: unmap of an address that other operations have mapped is refused, and changes nothing`, () => {
    const sharing = newSharing();
    const [before, after] = [dmaOf(mode, sharing), dmaOf(mode, sharing)];
    const address = takePages(sharing, 2);
    const old = { low: 0, high: 0 };
    assert.ok(before.map(address, XEN_PAGE_SIZE, DMA_FROM_DEVICE, old));
    assert.ok(before.unmap(old.low, old.high, XEN_PAGE_SIZE, DMA_FROM_DEVICE));
    before.revokeIdle();
    before.forget();
    before.close();
    const now = { low: 0, high: 0 };
    // The same reference, for another buffer.
    assert.ok(after.map(address, 2 * XEN_PAGE_SIZE, DMA_FROM_DEVICE, now));
    assert.deepEqual(now, old);
    const granted = grantedFrames(sharing);
    for (const dma of [before, after])
      assert.throws(() => dma.unmap(old.low, old.high, XEN_PAGE_SIZE, DMA_FROM_DEVICE), /not mapped/);
    assert.deepEqual(grantedFrames(sharing), granted);
    assert.ok(after.unmap(now.low, now.high, 2 * XEN_PAGE_SIZE, DMA_FROM_DEVICE));
    after.close();
    checkNothingShared(sharing);
  });

  test(`L10: ${mode}: a host is not left while something is shared in it`, () => {
    const sharing = newSharing();
    const dma = dmaOf(mode, sharing);
    const at = { low: 0, high: 0 };
    assert.ok(dma.map(takePages(sharing, 1), 100, DMA_FROM_DEVICE, at));
    assert.throws(() => dma.forget(), /nothing is shared when its host is left/);
    assert.ok(dma.unmap(at.low, at.high, 100, DMA_FROM_DEVICE));
    dma.revokeIdle();
    dma.forget();
  });
}
