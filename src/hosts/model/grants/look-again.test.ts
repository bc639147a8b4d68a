// What another processor does to an entry between Xen's first look at it and its taking of the entry's lock: Xen
// looks again under the lock, and never holds two of these locks at once.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { GNTMAP_HOST_MAP, GNTST_BAD_GNTREF, GNTST_OKAY } from '../../../abi/grant.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { ACTIVE_FRAME, ACTIVE_LOCK, ACTIVE_PINS, PIN_HOST_READONLY } from './active-entry.ts';
import { CopyBench, ownFrame, reference } from './copying.test.helper.ts';
import { passOn } from './entries.test.helper.ts';
import { recount } from './recount.test.helper.ts';

const REF = 8;
/** A machine frame of nobody's. */
const ELSEWHERE = 77;

/** Has `act` run each time when the lock of an entry is about to be taken, but not by `act` itself. */
function beforeLock(
  t: TestContext,
  { xen, record }: TestDomain,
  ref: number,
  act: (time: number) => void,
): void {
  const heap = new Int32Array(xen.state.heap);
  const word = record.activeEntry(ref) + ACTIVE_LOCK;
  const { compareExchange } = Atomics;
  let times = 0;
  let acting = false;
  t.mock.method(
    Atomics,
    'compareExchange',
    (array: Int32Array, index: number, before: number, after: number) => {
      if (index === word && array.buffer === heap.buffer && !acting) {
        acting = true;
        act(++times);
        acting = false;
      }
      return compareExchange(array, index, before, after);
    },
  );
}

test('H8: a switch to half as many entries, between the check of a reference and its use, is noticed', (t) => {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2, { maxGrantFrames: 2 });
  const { id, record } = addDomain(xen, 1);
  const { grantTable } = granter.ports;
  // There in version 1, past the end of as large a table in version 2.
  const ref = 300 as GrantRef;
  grantTable.grant(ref, 1, id, 3 as FrameNumber, false);
  beforeLock(t, granter, ref, (time) => {
    if (time === 1) assert.equal(grantTable.setVersion(2), 0);
  });
  assert.equal(xen.grants.map(record, record.window, GNTMAP_HOST_MAP, ref, granter.id), GNTST_BAD_GNTREF);
  assert.equal(granter.record.grantVersion, 2);
  assert.equal(xen.grants.pins(granter.record, ref), 0);
});

test('H11: an entry that is pinned while its source is looked up is left alone, and the copy begins again', (t) => {
  const bench = new CopyBench(2);
  const { granter, third, xen } = bench;
  bench.grant(REF, 3, false, third, granter);
  passOn(granter, REF, 1, third.id, REF);
  const heap = new Int32Array(xen.state.heap);
  const entry = granter.record.activeEntry(REF);
  beforeLock(t, third, REF, (time) => {
    assert.equal(heap[entry + ACTIVE_LOCK], 0, 'two entries are never locked at once');
    if (time > 1) return;
    heap[entry + ACTIVE_PINS] += PIN_HOST_READONLY;
    heap[entry + ACTIVE_FRAME] = ELSEWHERE;
  });
  const copy = () => bench.copy(reference(granter.id, REF), ownFrame(5), 16);
  assert.ok(copy() > GNTST_OKAY, 'no status: it is to be tried again');
  assert.equal(heap[entry + ACTIVE_FRAME], ELSEWHERE, 'what is pinned stays as it is');
  assert.equal(xen.grants.pins(granter.record, REF), PIN_HOST_READONLY);
  assert.equal(xen.grants.pins(third.record, REF), 0);
  heap[entry + ACTIVE_PINS] = 0;
  assert.equal(copy(), GNTST_OKAY);
  recount(bench.all);
});
