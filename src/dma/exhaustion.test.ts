// Mapping with less and less to be had: at whichever step it fails, nothing is granted, nothing is lost, no
// copy of the buffer is left, and the next attempt with enough succeeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { grantDma } from './exposure-modes.ts';
import type { DmaOperations } from './dma.ts';
import { Grants } from './grants.ts';
import {
  checkNothingShared,
  dmaOf,
  GRANTING_MODES,
  grantedFrames,
  newSharing,
  type Sharing,
  takePages,
  traceTo,
} from './sharing.test.helper.ts';

const FAILED = { low: 0xffff_ffff, high: 0xffff_ffff };
const LONGEST = 4 * XEN_PAGE_SIZE;

/** A guest whose buffer is full of ones, and the frames of its pool. */
function machine(mode: (typeof GRANTING_MODES)[number]) {
  const pool = new Set<number>();
  const tracer = traceTo((name, _domain, _device, frame, count) => {
    for (let page = 0; name === 'privatePages' && page < Number(count); page++)
      pool.add(Number(frame) + page);
  });
  const sharing = newSharing({ pages: 64, tracer });
  const buffer = takePages(sharing, 5);
  sharing.u8.fill(1, buffer, buffer + LONGEST);
  return { sharing, dma: dmaOf(mode, sharing), buffer, pool };
}

/** Takes all but `left` of the guest's references and pages. Returns what gives them back. */
function leave({ domain }: Sharing, left: { references?: number; pages?: number }): () => void {
  const { references, memory } = domain;
  const refs = left.references === undefined ? 0 : references.free - left.references;
  const pages = left.pages === undefined ? 0 : memory.pagesFree - left.pages;
  const first = refs > 0 ? references.allocate(refs) : 0;
  const address = pages > 0 ? memory.allocatePages(pages) : 0;
  assert.ok(first >= 0 && address !== undefined);
  return () => {
    if (refs > 0) references.release(first, refs);
    if (pages > 0) memory.freePages(address, pages);
  };
}

function attempt(dma: DmaOperations, address: number, size: number, direction: number): boolean {
  const at = { low: 0, high: 0 };
  if (!dma.map(address, size, direction, at)) {
    assert.deepEqual(at, FAILED);
    return false;
  }
  assert.ok(dma.unmap(at.low, at.high, size, direction));
  return true;
}

for (const mode of GRANTING_MODES) {
  for (const direction of [DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE]) {
    for (const size of [1, 100, 600, 2049, LONGEST]) {
      test(`H20 G8: ${mode}, direction ${direction}, ${size} bytes, with ever fewer references and pages`, () => {
        const needed = Math.ceil(size / XEN_PAGE_SIZE);
        for (let left = 0; left <= needed; left++) {
          for (const what of ['references', 'pages'] as const) {
            const { sharing, dma, buffer, pool } = machine(mode);
            const pagesFree = sharing.domain.memory.pagesFree;
            const giveBack = leave(sharing, { [what]: left });
            const isOwnPages = mode === 'direct' || (mode === 'auto' && size === LONGEST);
            const enough = left === needed || (isOwnPages && what === 'pages');
            for (let tries = 0; tries < 3; tries++)
              assert.equal(attempt(dma, buffer, size, direction), enough, `${left} ${what}`);
            dma.revokeIdle();
            assert.deepEqual(grantedFrames(sharing), []);
            assert.equal(dma.live, 0);
            for (const frame of pool) {
              const page = sharing.u8.subarray(frame * XEN_PAGE_SIZE, (frame + 1) * XEN_PAGE_SIZE);
              assert.ok(page.every((byte) => byte === 0));
            }
            giveBack();
            checkNothingShared(sharing);
            assert.ok(attempt(dma, buffer, size, direction));
            dma.close();
            checkNothingShared(sharing);
            assert.equal(sharing.domain.memory.pagesFree, pagesFree);
          }
        }
      });
    }
  }
}

test('H20: a table that may not grow for one device leaves what another one has mapped', () => {
  const sharing = newSharing({ maxGrantFrames: 2 });
  const one = grantDma('direct', sharing.grants, 0);
  const two = grantDma('direct', new Grants(sharing.domain, sharing.grants.backend), 1);
  const held: { low: number; high: number }[] = [];
  for (let at = { low: 0, high: 0 }; one.map(0, LONGEST, DMA_TO_DEVICE, at); at = { low: 0, high: 0 })
    held.push(at);
  assert.equal(held.length, (1024 - 8) / 4);
  assert.ok(!two.map(0, 1, DMA_TO_DEVICE, { low: 0, high: 0 }));
  const [first] = held;
  assert.ok(sharing.backend.readAt(first, LONGEST).every((byte) => byte === 0));
  assert.ok(one.unmap(first.low, first.high, LONGEST, DMA_TO_DEVICE));
  const at = { low: 0, high: 0 };
  assert.ok(two.map(0, LONGEST, DMA_TO_DEVICE, at));
  assert.deepEqual([one.live, two.live, sharing.domain.references.free], [1012, 4, 0]);
});
