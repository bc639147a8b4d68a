// Copies through entries that the granter rewrites meanwhile (XSA-226, XSA-500), that were passed on, that are not
// there; and batches whose elements go each their own way (XSA-316, XSA-318, XSA-365).

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import {
  GNTCOPY_DEST_GREF,
  GNTCOPY_SOURCE_GREF,
  GNTTABOP_COPY,
  GNTTABOP_MAP_GRANT_REF,
  gnttabCopy,
  gnttabMapGrantRef,
} from '../../src/abi/grant-table-op.ts';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_COPY_ARG,
  GNTST_BAD_GNTREF,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
} from '../../src/abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../../src/hosts/model/domains.test.helper.ts';
import * as active from '../../src/hosts/model/grants/active-entry.ts';
import { sharedEntry } from '../../src/hosts/model/grants/recount.test.helper.ts';
import type { FrameNumber, GrantRef } from '../../src/xen/ids.ts';
import { entriesV2, hypercall } from '../support/grant-hypercalls.test.helper.ts';

const REF = 8;
const FRAME = 3;
/** A frame that an entry was pinned with by another processor. */
const ELSEWHERE = 77;
/** The caller's own page. */
const OWN = 5;

/** Granters 2 and 3 with tables of a version, whose pages are full of their ids, and a caller, 1. */
function machine(version: number) {
  const xen = bootTestMachine();
  const caller = addDomain(xen, 1);
  const [granter, other] = [2, 3].map((id) => {
    const domain = addDomain(xen, id);
    domain.ports.grantTable.setVersion(version);
    domain.ports.memory.region.u8.fill(id * 0x11, 0, 16 * XEN_PAGE_SIZE);
    return domain;
  });
  const copyFrom = (page: number, length: number, offset = 0) => ({
    source_u: page,
    source_domid: granter.id as number,
    source_offset: offset,
    dest_u: OWN,
    dest_domid: DOMID_SELF,
    len: length,
    flags: GNTCOPY_SOURCE_GREF,
    status: 0x7777,
  });
  const copy = (...batch: readonly Partial<ReturnType<typeof copyFrom>>[]) =>
    hypercall(caller, GNTTABOP_COPY, gnttabCopy, ...batch).done.map(({ status }) => status);
  const got = (length: number) => [
    ...caller.ports.memory.region.u8.subarray(OWN * XEN_PAGE_SIZE).slice(0, length),
  ];
  return { xen, caller, granter, other, copyFrom, copy, got };
}

const unpinned = ({ xen, record }: TestDomain, refs: readonly number[]) =>
  assert.deepEqual(
    refs.map((ref) => xen.grants.pins(record, ref)),
    refs.map(() => 0),
  );

test('H12: a copy of nothing is done whatever its ends are; one across the end of a page is not', () => {
  const { granter, caller, copy, copyFrom, got } = machine(1);
  granter.ports.grantTable.grant(REF as GrantRef, 1, caller.id, FRAME as FrameNumber, true);
  const nowhere = { source_u: 2 ** 40, source_domid: 99, source_offset: 0xffff, dest_u: 2 ** 40, len: 0 };
  assert.deepEqual(copy({ ...copyFrom(REF, 0), ...nowhere }), [GNTST_OKAY]);
  assert.deepEqual(copy(copyFrom(REF, 2, XEN_PAGE_SIZE - 1)), [GNTST_BAD_COPY_ARG]);
  assert.deepEqual(got(2), [0, 0]);
  assert.deepEqual(copy(copyFrom(REF, 1, XEN_PAGE_SIZE - 1)), [GNTST_OKAY]);
  assert.deepEqual(got(2), [0x22, 0]);
  unpinned(granter, [REF]);
});

test('H11: what the granter makes of a pinned entry is not copied to: neither the old page nor the new one', () => {
  const { xen, granter, caller } = machine(1);
  granter.ports.grantTable.grant(REF as GrantRef, 1, caller.id, FRAME as FrameNumber, false);
  const { record } = caller;
  const handle = xen.grants.map(record, record.window, GNTMAP_HOST_MAP | GNTMAP_READONLY, REF, granter.id);
  assert.ok(handle >= 0);
  sharedEntry(granter, REF).frame = FRAME + 1;
  const before = granter.ports.memory.region.u8.slice(0, 16 * XEN_PAGE_SIZE);
  const source = { domain: DOMID_SELF, page: OWN, offset: 0 };
  const dest = { domain: granter.id, page: REF, offset: 0 };
  assert.equal(xen.copies.copy(record, source, dest, 16, GNTCOPY_DEST_GREF), GNTST_GENERAL_ERROR);
  assert.deepEqual(granter.ports.memory.region.u8.slice(0, 16 * XEN_PAGE_SIZE), before);
  assert.equal(xen.grants.pins(granter.record, REF), active.PIN_HOST_READONLY);
  sharedEntry(granter, REF).frame = FRAME;
  assert.equal(xen.copies.copy(record, source, dest, 16, GNTCOPY_DEST_GREF), GNTST_OKAY);
});

test('H15: of a page of which a part is granted, that part can be copied to the byte', () => {
  const { granter, caller, copy, copyFrom, got } = machine(2);
  entriesV2(granter).part(REF, caller.id, FRAME, 100, 8);
  assert.deepEqual(copy(copyFrom(REF, 8, 99), copyFrom(REF, 9, 100), copyFrom(REF, 1, 108)), [-1, -1, -1]);
  assert.deepEqual(got(2), [0, 0]);
  assert.deepEqual(copy(copyFrom(REF, 8, 100)), [GNTST_OKAY]);
  assert.deepEqual(got(9), [...new Array(8).fill(0x22), 0]);
  unpinned(granter, [REF]);
});

test('H11: a grant is passed on once, not in a chain, to itself, or in a circle', () => {
  const { granter, other, caller, copy, copyFrom, got } = machine(2);
  const [near, far] = [entriesV2(granter), entriesV2(other)];
  far.page(REF, granter.id, FRAME);
  near.passOn(REF, caller.id, other.id, REF);
  near.passOn(REF + 1, caller.id, other.id, REF + 1);
  far.passOn(REF + 1, granter.id, granter.id, REF + 2);
  near.page(REF + 2, other.id, FRAME);
  near.passOn(REF + 3, caller.id, granter.id, REF + 3);
  near.passOn(REF + 4, caller.id, other.id, REF + 4);
  far.passOn(REF + 4, granter.id, granter.id, REF + 4);
  const refused = [1, 2, 3, 4].map((step) => copyFrom(REF + step, 4));
  assert.deepEqual(copy(...refused), [-1, -1, -1, -1]);
  assert.deepEqual(got(4), [0, 0, 0, 0]);
  assert.deepEqual(copy(copyFrom(REF, 4)), [GNTST_OKAY]);
  assert.deepEqual(got(4), [0x33, 0x33, 0x33, 0x33]);
  const refs = [0, 1, 2, 3, 4].map((step) => REF + step);
  for (const domain of [granter, other]) unpinned(domain, refs);
  for (const { status } of [near, far]) assert.deepEqual(refs.map(status), [0, 0, 0, 0, 0]);
});

/** Lets another processor pin the entry that is passed on while its source is looked up. */
function pinMeanwhile(t: TestContext, { granter, other }: { granter: TestDomain; other: TestDomain }): void {
  const heap = new Int32Array(granter.xen.state.heap);
  const entry = granter.record.activeEntry(REF);
  const source = other.record.activeEntry(REF);
  const { compareExchange } = Atomics;
  const meanwhile = (look: number) => {
    assert.equal(heap[entry + active.ACTIVE_LOCK], 0, 'two entries are never locked at once');
    if (look === 1) {
      heap[entry + active.ACTIVE_PINS] += active.PIN_HOST_READONLY;
      heap[entry + active.ACTIVE_FRAME] = ELSEWHERE;
    }
    // And lets go of it before the copy is tried again.
    if (look === 2) {
      heap[entry + active.ACTIVE_PINS] -= active.PIN_HOST_READONLY;
      assert.equal(heap[entry + active.ACTIVE_FRAME], ELSEWHERE, 'what is pinned stays as it is');
    }
  };
  let looks = 0;
  t.mock.method(
    Atomics,
    'compareExchange',
    (array: Int32Array, index: number, before: number, after: number) => {
      if (index === source + active.ACTIVE_LOCK && array.buffer === heap.buffer) meanwhile(++looks);
      return compareExchange(array, index, before, after);
    },
  );
}

test('H19: a copy that has to begin again writes no status in between, and one in the end', (t) => {
  const { granter, other, caller, copy, copyFrom, got } = machine(2);
  entriesV2(other).page(REF, granter.id, FRAME);
  entriesV2(granter).passOn(REF, caller.id, other.id, REF);
  pinMeanwhile(t, { granter, other });
  assert.deepEqual(copy(copyFrom(REF, 4), copyFrom(600, 4), copyFrom(REF, 4)), [0, GNTST_BAD_GNTREF, 0]);
  assert.deepEqual(got(1), [0x33]);
  for (const domain of [granter, other]) unpinned(domain, [REF]);
});

test('every element of a batch has a status of its own, 0 or negative, and a refused one no handle', () => {
  const { granter, caller } = machine(1);
  granter.ports.grantTable.grant(REF as GrantRef, 3, caller.id, FRAME as FrameNumber, false);
  const batch = [REF, 600, REF + 1, REF + 20, REF + 2].map((ref, place) => ({
    host_addr: (caller.record.window + place) * XEN_PAGE_SIZE,
    flags: GNTMAP_HOST_MAP,
    ref,
    dom: granter.id,
    handle: 0xdddd_dddd,
    status: 0x7777,
  }));
  const { result, done } = hypercall(caller, GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, ...batch);
  assert.equal(result, 0);
  assert.deepEqual(
    done.map(({ status }) => status),
    [GNTST_OKAY, GNTST_BAD_GNTREF, GNTST_OKAY, GNTST_GENERAL_ERROR, GNTST_OKAY],
  );
  assert.deepEqual(
    done.map(({ handle }) => handle === 0xdddd_dddd),
    [false, true, false, true, false],
  );
});
