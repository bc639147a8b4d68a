// What one device keeps idle is there for another that needs it: references, and pages of the guest's memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE } from '../trace.ts';
import { type ExposureMode, grantDma } from './exposure-modes.ts';
import { Grants } from './grants.ts';
import { newSharing, takePages } from './sharing.test.helper.ts';

const BUFFER = 8 * XEN_PAGE_SIZE;

/** Two devices of one guest, and a buffer that the first has used: the pages of its pool are idle. */
function twoDevices(other: ExposureMode, pages: number) {
  const sharing = newSharing({ pages });
  const { domain, backend } = sharing;
  const idle = grantDma('persistent', new Grants(domain, backend.domain.id), 0);
  const dma = grantDma(other, new Grants(domain, backend.domain.id), 1);
  const buffer = takePages(sharing, 8);
  const at = { low: 0, high: 0 };
  assert.ok(idle.map(buffer, BUFFER, DMA_FROM_DEVICE, at));
  assert.ok(idle.unmap(at.low, at.high, BUFFER, DMA_FROM_DEVICE));
  return { sharing, idle, dma, buffer, at };
}

for (const mode of ['direct', 'bounce', 'persistent', 'auto'] as const) {
  test(`H20 G8: ${mode}: references that another device keeps for idle pages are given up`, () => {
    const { sharing, idle, dma, buffer, at } = twoDevices(mode, 64);
    const { references } = sharing.domain;
    const taken = references.allocate(references.free);
    assert.equal(references.free, 0);
    assert.equal(idle.live, 8);
    assert.ok(dma.map(buffer, BUFFER, DMA_FROM_DEVICE, at));
    assert.equal(idle.live, 0);
    assert.ok(!idle.map(buffer, BUFFER, DMA_FROM_DEVICE, { low: 0, high: 0 }), 'what is in use is not');
    assert.ok(dma.unmap(at.low, at.high, BUFFER, DMA_FROM_DEVICE));
    references.release(taken, references.live - dma.live);
  });
}

test('memory that another device keeps in its pool is given back to the guest', () => {
  const { sharing, idle, dma } = twoDevices('bounce', 16);
  assert.equal(sharing.domain.memory.pagesFree, 0);
  const rings = dma.allocate(5 * XEN_PAGE_SIZE);
  assert.ok(rings !== undefined);
  assert.deepEqual([idle.live, sharing.domain.memory.pagesFree], [0, 3]);
  assert.ok(dma.free(rings));
});

test('a device that is closed is asked for nothing any more', () => {
  const { sharing, idle, dma } = twoDevices('direct', 64);
  idle.close();
  assert.equal(sharing.domain.pools.reclaimReferences(), false);
  assert.equal(sharing.domain.pools.reclaimPages(), false);
  dma.close();
});
