// Sharing runs of pages and ending it: what is granted, what is revoked, and what is told to the trace when.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { sharedEntries } from '../hosts/model/grants/recount.test.helper.ts';
import type { GrantRef } from '../xen/ids.ts';
import { Grants } from './grants.ts';
import { checkNothingShared, newSharing, takePages, traceTo } from './sharing.test.helper.ts';

test('R5: a run of pages is granted through references in a row, to this backend and nobody else', () => {
  const sharing = newSharing();
  const { grants, domain, guest } = sharing;
  // Holes of one and two references before the first run of three.
  const refs = Array.from({ length: 6 }, () => domain.references.allocate(1));
  for (const ref of [refs[0], refs[2], refs[3]]) domain.references.release(ref, 1);
  const frame = takePages(sharing, 3) / XEN_PAGE_SIZE;
  const first = grants.share(frame, 3, true);
  assert.ok(first > refs[5]);
  assert.deepEqual(
    sharedEntries(guest).map(({ ref, flags, domid, frame: granted }) => [ref, flags, domid, granted]),
    [0, 1, 2].map((page) => [first + page, 5, 1, frame + page]),
  );
  assert.equal(grants.frameOf(first), frame);
  assert.equal(grants.live, 3);
});

test('5: share and unshare leave table, references and counters as they were', () => {
  const sharing = newSharing();
  const { grants, backend } = sharing;
  for (const count of [1, 2, 7, 64]) {
    const first = grants.share(10, count, false);
    assert.equal(backend.reach().length, count);
    assert.ok(grants.unshare(first, count));
    assert.deepEqual(backend.reach(), []);
    checkNothingShared(sharing);
  }
});

test('a run beyond the table is refused, and nothing is granted', () => {
  const sharing = newSharing();
  assert.equal(sharing.grants.share(0, 505, false), -1);
  checkNothingShared(sharing);
  const all = sharing.grants.share(0, 200, false);
  assert.equal(sharing.grants.share(0, 305, false), -1);
  assert.equal(sharing.grants.live, 200);
  assert.ok(sharing.grants.unshare(all, 200));
  checkNothingShared(sharing);
});

test('two devices of one guest draw on one table, and count what is their own', () => {
  const sharing = newSharing();
  const other = new Grants(sharing.domain, sharing.grants.backend);
  const [mine, theirs] = [sharing.grants.share(1, 2, false), other.share(3, 4, false)];
  assert.deepEqual([sharing.grants.live, other.live, sharing.domain.references.live], [2, 4, 6]);
  assert.throws(() => sharing.grants.unshare(theirs, 4), { name: 'AssertionError' });
  assert.ok(sharing.grants.unshare(mine, 2) && other.unshare(theirs, 4));
  checkNothingShared(sharing);
});

test('G18: a run that is not shared so is not unshared: an assertion, and nothing has changed', () => {
  const sharing = newSharing();
  const { grants, backend } = sharing;
  const first = grants.share(5, 3, false);
  const before = backend.reach();
  for (const [ref, count] of [
    [first, 2],
    [first, 4],
    [first + 1, 2],
    [first + 3, 1],
    [0, 1],
    [-1, 1],
    [100_000, 1],
  ])
    assert.throws(() => grants.unshare(ref, count), { name: 'AssertionError' });
  assert.deepEqual(backend.reach(), before);
  assert.equal(grants.live, 3);
  assert.ok(grants.unshare(first, 3));
  assert.throws(() => grants.unshare(first, 3), { name: 'AssertionError' });
  checkNothingShared(sharing);
});

test('the trace is never behind: a grant is told before it is open, a revoke after it has ended', () => {
  const told: string[] = [];
  const sharing = newSharing({
    tracer: traceTo((name, _domain, ref, ...rest) => {
      const at = name === 'grant' ? Number(rest[0]) : Number(ref);
      const open = sharedEntries(sharing.guest).some((entry) => entry.ref === at);
      told.push(`${name} ${at} ${open ? 'open' : 'shut'}`);
    }),
  });
  const { grants, backend } = sharing;
  const first = grants.share(5, 2, false);
  assert.ok(grants.unshare(first, 2));
  assert.equal(grants.share(5, 2, false), first);
  const handle = backend.map(first + 1);
  assert.ok(!grants.unshare(first, 2));
  backend.unmap(handle);
  grants.retry();
  assert.deepEqual(told, [
    'grant 8 shut',
    'revoke 8 shut',
    'grant 8 shut',
    'revoke 8 shut',
    'busy 9 open',
    'revoke 9 shut',
  ]);
});

test('a peer that only knows the ABI sees an entry whole or not at all: its flags come last', () => {
  const sharing = newSharing();
  const { guest, domain } = sharing;
  domain.table.grant(8 as GrantRef, 2, sharing.grants.backend, 0x1234 as never, false);
  const { ref, flags, domid, frame } = sharedEntries(guest)[1];
  assert.deepEqual({ ref, flags, domid, frame }, { ref: 9, flags: 1, domid: 1, frame: 0x1235 });
  assert.ok(!domain.table.isFree(9 as GrantRef));
  assert.equal(domain.table.revoke(8 as GrantRef, 2), 0);
  assert.ok(domain.table.isFree(9 as GrantRef));
});
