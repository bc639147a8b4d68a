// A page that the backend still maps when sharing should end is neither reused nor freed, nor is its
// reference, until the backend has let go: and then nothing is lost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import { Grants } from './grants.ts';
import {
  checkNothingShared,
  dmaOf,
  GRANTING_MODES,
  newSharing,
  type Sharing,
  takePages,
} from './sharing.test.helper.ts';
import { grantAddressRef } from '../abi/grant-address.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';

/** Every page that the guest can still allocate, given back at once. */
function allocatablePages({ domain }: Sharing): Set<number> {
  const pages = new Set<number>();
  for (let at = domain.memory.allocatePages(1); at !== undefined; at = domain.memory.allocatePages(1))
    pages.add(at / XEN_PAGE_SIZE);
  for (const page of pages) domain.memory.freePages(page * XEN_PAGE_SIZE, 1);
  return pages;
}

/** Every reference that can still be taken, given back at once. */
function allocatableReferences({ domain }: Sharing): Set<number> {
  const refs = new Set<number>();
  for (let ref = domain.references.allocate(1); ref >= 0; ref = domain.references.allocate(1)) refs.add(ref);
  for (const ref of refs) domain.references.release(ref, 1);
  return refs;
}

test('R4 G10 G13: page and reference of a busy grant stay out of use until the backend has let go', () => {
  const sharing = newSharing();
  const { grants, backend, domain } = sharing;
  const pagesFree = domain.memory.pagesFree;
  const address = takePages(sharing, 4);
  const frame = address / XEN_PAGE_SIZE;
  const first = grants.share(frame, 4, false);
  const handle = backend.map(first + 2);
  assert.ok(!grants.unshare(first, 4));
  domain.memory.freePages(address, 4);
  assert.deepEqual([grants.live, grants.quarantined, domain.references.quarantined], [0, 1, 1]);
  for (let round = 0; round < 3; round++) {
    assert.equal(grants.retry(), 0);
    const pages = allocatablePages(sharing);
    assert.deepEqual(
      [0, 1, 2, 3].map((page) => pages.has(frame + page)),
      [true, true, false, true],
    );
    assert.ok(!allocatableReferences(sharing).has(first + 2));
    assert.equal(domain.memory.pagesFree, pagesFree - 1);
  }
  backend.write(handle, 0, Uint8Array.of(0xba, 0xad));
  backend.unmap(handle);
  assert.equal(grants.retry(), 1);
  assert.equal(grants.retry(), 0);
  checkNothingShared(sharing);
  assert.equal(domain.memory.pagesFree, pagesFree);
  assert.ok(allocatablePages(sharing).has(frame + 2));
});

test('G14: what a backend wrote into a quarantined page is gone when the page is allocated again', () => {
  const sharing = newSharing({ pages: 4 });
  const { grants, backend, domain } = sharing;
  const address = takePages(sharing, 4);
  const first = grants.share(address / XEN_PAGE_SIZE, 4, false);
  const handles = [0, 1, 2, 3].map((page) => backend.map(first + page));
  assert.ok(!grants.unshare(first, 4));
  domain.memory.freePages(address, 4);
  assert.equal(domain.memory.pagesFree, 0);
  for (const handle of handles) {
    backend.write(handle, 0, new Uint8Array(XEN_PAGE_SIZE).fill(0xba));
    backend.unmap(handle);
  }
  assert.equal(grants.retry(), 4);
  assert.equal(takePages(sharing, 4), address);
  assert.ok(sharing.u8.every((byte) => byte === 0));
});

test('a page that its owner goes on using while it is quarantined is the owner’s when it has come back', () => {
  const sharing = newSharing();
  const { grants, backend, domain } = sharing;
  const address = takePages(sharing, 1);
  const first = grants.share(address / XEN_PAGE_SIZE, 1, true);
  const handle = backend.map(first, true);
  assert.ok(!grants.unshare(first, 1));
  backend.unmap(handle);
  assert.equal(grants.retry(), 1);
  assert.ok(!allocatablePages(sharing).has(address / XEN_PAGE_SIZE));
  domain.memory.freePages(address, 1);
  assert.ok(allocatablePages(sharing).has(address / XEN_PAGE_SIZE));
});

/** A table whose backend acts between two steps of the guest. */
function withBackendBetween(table: GrantTable, before: (step: 'revoke' | 'isFree') => void): GrantTable {
  return {
    entries: table.entries,
    maxEntries: table.maxEntries,
    grantsParts: table.grantsParts,
    grow: (entries) => table.grow(entries),
    grant: (...entry) => table.grant(...entry),
    grantPart: (...entry) => table.grantPart(...entry),
    revoke: (first, count) => {
      before('revoke');
      return table.revoke(first, count);
    },
    isFree: (ref) => {
      before('isFree');
      return table.isFree(ref);
    },
  };
}

test('G12: a backend that maps at the last moment before the revoke is found, whatever was seen earlier', () => {
  const sharing = newSharing();
  let handle = -1;
  const table = withBackendBetween(sharing.domain.table, (step) => {
    if (step === 'revoke' && handle < 0) handle = sharing.backend.map(first + 1);
  });
  const grants = new Grants({ ...sharing.domain, table }, sharing.grants.backend);
  const first = grants.share(7, 3, false);
  assert.ok(!grants.unshare(first, 3));
  assert.equal(grants.quarantined, 1);
  sharing.backend.unmap(handle);
  assert.equal(grants.retry(), 1);
  checkNothingShared(sharing);
});

test('G12: a backend that lets go, and tries again, right after the revoke loses nothing for the guest', () => {
  const sharing = newSharing();
  const { backend } = sharing;
  let handle = -1;
  const refused: number[] = [];
  const table = withBackendBetween(sharing.domain.table, (step) => {
    if (step !== 'isFree') return;
    if (handle >= 0) backend.unmap(handle);
    handle = -1;
    refused.push(backend.map(first));
  });
  const grants = new Grants({ ...sharing.domain, table }, sharing.grants.backend);
  const first = grants.share(7, 2, false);
  handle = backend.map(first + 1);
  assert.ok(!grants.unshare(first, 2));
  // The first page's access had ended; the second's has not, though nobody maps it any more.
  assert.deepEqual(refused, [-1, -1]);
  assert.equal(grants.quarantined, 1);
  assert.equal(grants.retry(), 1);
  checkNothingShared(sharing);
});

for (const mode of GRANTING_MODES) {
  for (const [direction, size] of [
    [DMA_TO_DEVICE, 100],
    [DMA_FROM_DEVICE, 100],
    [DMA_TO_DEVICE, 3 * XEN_PAGE_SIZE],
    [DMA_FROM_DEVICE, 3 * XEN_PAGE_SIZE],
  ]) {
    test(`G10 G13: ${mode}, direction ${direction}, ${size} bytes: a mapping kept through unmap and free costs only its page`, () => {
      const sharing = newSharing();
      const { backend, domain } = sharing;
      const dma = dmaOf(mode, sharing);
      const pagesFree = domain.memory.pagesFree;
      const pages = Math.ceil(size / XEN_PAGE_SIZE);
      const address = takePages(sharing, pages);
      const at = { low: 0, high: 0 };
      assert.ok(dma.map(address, size, direction, at));
      const ref = grantAddressRef(at.low, at.high);
      const { frame } = backend.reach().find((page) => page.ref === ref)!;
      const handle = backend.map(ref, true);
      // Only in direct mode are these the caller's own pages.
      assert.equal(dma.unmap(at.low, at.high, size, direction), mode !== 'direct');
      assert.equal(frame === address / XEN_PAGE_SIZE, mode === 'direct');
      domain.memory.freePages(address, pages);
      dma.close();
      assert.deepEqual([dma.live, dma.quarantined, dma.recover()], [0, 1, 0]);
      assert.ok(!allocatablePages(sharing).has(frame));
      assert.equal(domain.memory.pagesFree, pagesFree - 1);
      backend.unmap(handle);
      assert.deepEqual([dma.recover(), dma.quarantined], [1, 0]);
      assert.equal(domain.memory.pagesFree, pagesFree);
      checkNothingShared(sharing);
    });
  }
}

test('2: no page is allocated while it is granted or mapped, whatever the backend holds on to', () => {
  const step = fc.record({ act: fc.nat(5), at: fc.nat(), count: fc.integer({ min: 1, max: 5 }) });
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
      const sharing = newSharing({ pages: 24 });
      const { grants, backend, domain } = sharing;
      const runs: { first: number; address: number; count: number }[] = [];
      const held: { handle: number; frame: number }[] = [];
      for (const { act, at, count } of steps) {
        if (act <= 1) {
          const address = domain.memory.allocatePages(count);
          if (address === undefined) continue;
          const frame = address / XEN_PAGE_SIZE;
          assert.ok(!held.some((page) => page.frame >= frame && page.frame < frame + count));
          runs.push({ first: grants.share(frame, count, false), address, count });
        } else if (act === 2 && runs.length > 0) {
          const run = runs[at % runs.length];
          const page = at % run.count;
          held.push({ handle: backend.map(run.first + page), frame: run.address / XEN_PAGE_SIZE + page });
        } else if (act === 3 && held.length > 0) backend.unmap(held.splice(at % held.length, 1)[0].handle);
        else if (act === 4 && runs.length > 0) {
          const [run] = runs.splice(at % runs.length, 1);
          grants.unshare(run.first, run.count);
          domain.memory.freePages(run.address, run.count);
        } else if (act === 5) grants.retry();
      }
      for (const { handle } of held) backend.unmap(handle);
      for (const run of runs) {
        assert.ok(grants.unshare(run.first, run.count));
        domain.memory.freePages(run.address, run.count);
      }
      grants.retry();
      checkNothingShared(sharing);
      assert.equal(domain.memory.pagesFree, 24);
    }),
    { seed: 2, numRuns: 100 },
  );
});
