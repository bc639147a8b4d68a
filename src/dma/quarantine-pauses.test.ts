// When the quarantine tries again: at the tick after a page came in, then after pauses that double, a bounded
// amount at a time, and everything at once when it is asked to.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import { Grants } from './grants.ts';
import { checkNothingShared, newSharing, type Sharing, takePages, traceTo } from './sharing.test.helper.ts';

interface Scene extends Sharing {
  /** References whose revocation has been tried since the last look. */
  readonly tried: number[];
}

/** A guest whose tries to end access can be watched, with `pages` pages that the backend does not let go of. */
function held(pages: number): Scene & { handles: number[]; first: number } {
  const sharing = newSharing();
  const tried: number[] = [];
  const { table } = sharing.domain;
  const watched: GrantTable = {
    entries: table.entries,
    maxEntries: table.maxEntries,
    grantsParts: table.grantsParts,
    grow: (entries) => table.grow(entries),
    grant: (...entry) => table.grant(...entry),
    grantPart: (...entry) => table.grantPart(...entry),
    isFree: (ref) => table.isFree(ref),
    revoke: (first, count) => {
      tried.push(first);
      return table.revoke(first, count);
    },
  };
  const grants = new Grants({ ...sharing.domain, table: watched }, sharing.grants.backend);
  const first = grants.share(takePages(sharing, pages) / XEN_PAGE_SIZE, pages, false);
  const handles = Array.from({ length: pages }, (_, page) => sharing.backend.map(first + page));
  assert.ok(!grants.unshare(first, pages));
  sharing.domain.memory.freePages(sharing.domain.memory.base, pages);
  tried.length = 0;
  return { ...sharing, grants, tried, handles, first };
}

test('R4 G10: a page that is not let go of is tried after pauses that double up to four seconds', () => {
  const { grants, tried } = held(1);
  const tries: number[] = [];
  for (let now = 1000, due = 0; tries.length < 17; now = due) {
    due = grants.quarantine.tick(now);
    assert.equal(tried.splice(0).length, 1, `at ${now}`);
    // Nothing is tried too early.
    assert.equal(grants.quarantine.tick(due - 1), due);
    assert.equal(tried.length, 0);
    tries.push(due - now);
  }
  assert.deepEqual(tries, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096, 4096, 4096]);
});

test('G13: a page is given back at the first due try after the backend has let go, and counted', () => {
  const sharing = held(3);
  const { grants, handles, backend } = sharing;
  assert.deepEqual(grants.quarantine.counts, { entered: 3, recovered: 0, now: 3, oldest: 0 });
  grants.quarantine.tick(10);
  assert.deepEqual(grants.quarantine.counts, { entered: 3, recovered: 0, now: 3, oldest: 10 });
  backend.unmap(handles[1]);
  assert.equal(grants.quarantine.tick(11), 13);
  assert.deepEqual(grants.quarantine.counts, { entered: 3, recovered: 1, now: 2, oldest: 11 });
  for (const page of [0, 2]) backend.unmap(handles[page]);
  assert.equal(grants.quarantine.tick(13), Number.POSITIVE_INFINITY);
  assert.deepEqual(grants.quarantine.counts, { entered: 3, recovered: 3, now: 0, oldest: 0 });
  checkNothingShared(sharing);
});

test('a tick has bounded work, and says that it wants another one at once', () => {
  const { grants, tried } = held(200);
  const counts: number[] = [];
  let due = 0;
  for (let turn = 0; turn < 4; turn++) {
    due = grants.quarantine.tick(0);
    counts.push(tried.splice(0).length);
  }
  assert.deepEqual(counts, [64, 64, 64, 8]);
  assert.equal(due, 1);
});

test('what is retried at once is retried whatever its pause', () => {
  const sharing = held(5);
  const { grants, handles, backend } = sharing;
  for (const now of [0, 1, 3, 7, 15, 31]) grants.quarantine.tick(now);
  for (const handle of handles) backend.unmap(handle);
  assert.equal(grants.quarantine.tick(62), 63, 'it would wait');
  assert.equal(grants.retry(), 5);
  assert.equal(grants.quarantine.tick(63), Number.POSITIVE_INFINITY);
  checkNothingShared(sharing);
});

test('L10: what is forgotten frees its pages, touches no entry of the table that was left, and closes the trace', () => {
  const sharing = held(2);
  const events: string[] = [];
  const tracer = traceTo((name, ...figures) => events.push(`${name} ${figures}`));
  const grants = new Grants({ ...sharing.domain, tracer }, sharing.grants.backend);
  const free = sharing.domain.memory.pagesFree;
  const address = takePages(sharing, 1);
  const first = grants.share(address / XEN_PAGE_SIZE, 1, false);
  const handle = sharing.backend.map(first);
  grants.unshare(first, 1);
  sharing.domain.memory.freePages(address, 1);
  grants.quarantine.forget();
  assert.deepEqual(
    events.filter((event) => /busy|revoke/.test(event)),
    [`busy 2,${first}`, `revoke 2,${first},1`],
  );
  assert.equal(sharing.domain.memory.pagesFree, free);
  assert.equal(grants.quarantine.tick(1), Number.POSITIVE_INFINITY);
  assert.ok(!sharing.domain.table.isFree(first as never), 'the entry is as it was');
  sharing.backend.unmap(handle);
});

test('whatever comes and goes in whatever order, entered is recovered and now, and every page comes back', () => {
  const step = fc.record({ act: fc.nat(3), at: fc.nat(), wait: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
      const sharing = newSharing({ pages: 32 });
      const { grants, backend, domain } = sharing;
      const handles: number[] = [];
      let now = 0;
      for (const { act, at, wait } of steps) {
        const address = act <= 1 ? domain.memory.allocatePages(1) : undefined;
        if (address !== undefined) {
          const ref = grants.share(address / XEN_PAGE_SIZE, 1, act === 0);
          handles.push(backend.map(ref, act === 0));
          assert.ok(!grants.unshare(ref, 1));
          domain.memory.freePages(address, 1);
        } else if (act === 2 && handles.length > 0) backend.unmap(handles.splice(at % handles.length, 1)[0]);
        now += wait;
        grants.quarantine.tick(now);
        const { entered, recovered, now: inside } = grants.quarantine.counts;
        assert.equal(entered, recovered + inside);
        assert.ok(inside >= handles.length);
      }
      for (const handle of handles) backend.unmap(handle);
      for (let due = grants.quarantine.tick(now); due < Number.POSITIVE_INFINITY; )
        due = grants.quarantine.tick(due);
      checkNothingShared(sharing);
      assert.equal(domain.memory.pagesFree, 32);
    }),
    { seed: 13, numRuns: 100 },
  );
});
