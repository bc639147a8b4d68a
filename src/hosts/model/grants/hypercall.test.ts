// Batches of the grant table hypercall in the caller's memory: a status for each element and for no other, pointers
// that lead nowhere, and what is no operation at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as op from '../../../abi/grant-table-op.ts';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
} from '../../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, TEST_PAGES } from '../domains.test.helper.ts';
import { EFAULT, EINVAL, ENOSYS } from '../errno.ts';
import { Machine } from '../state.ts';
import { Xen } from '../xen.ts';
import { ARGUMENTS, call, callWith, getArguments, putArguments, UNSET } from './hypercall.test.helper.ts';
import { GrantMapping } from './mapping.ts';
import { grantState, recount } from './recount.test.helper.ts';
import { SharedEntries } from './shared-entry.ts';

const FIRST = 8;
/** An address at which no domain has memory. */
const NOWHERE = 0xd000_0000;
const MEMORY_END = TEST_PAGES * XEN_PAGE_SIZE;
const { gnttabCopy, gnttabMapGrantRef, gnttabUnmapGrantRef } = op;

/** Domain 2 grants each of its pages to domain 1, from reference 8. */
function machine(maxMaptrackFrames = 1) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const caller = addDomain(xen, 1, { maxMaptrackFrames });
  granter.ports.grantTable.grant(FIRST as GrantRef, TEST_PAGES, caller.id, 0 as FrameNumber, false);
  const at = (place: number) => (caller.record.window + place) * XEN_PAGE_SIZE;
  const mapOf = (index: number) => ({
    host_addr: at(index),
    flags: GNTMAP_HOST_MAP,
    ref: FIRST + index,
    dom: 2,
    status: UNSET,
    handle: UNSET,
  });
  const unmapOf = (handle: number, place = handle) => ({ host_addr: at(place), handle, status: UNSET });
  return { xen, granter, caller, all: [granter, caller], at, mapOf, unmapOf };
}

test('H19: every element of a batch of maps has a status of its own, whatever its neighbours have', () => {
  const { caller, all, mapOf } = machine();
  const wrong = { ref: { ref: 5000 }, domain: { dom: 99 }, entry: { ref: 0 }, flags: { flags: 0 } };
  const batch = [0, 1, 2, 3, 4, 5, 6, 7].map(mapOf);
  Object.assign(batch[0], wrong.ref);
  Object.assign(batch[2], wrong.domain);
  Object.assign(batch[3], wrong.entry);
  Object.assign(batch[7], wrong.flags);
  const { result, elements } = call(caller, op.GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, batch);
  assert.equal(result, 0);
  assert.deepEqual(
    elements.map(({ status }) => status),
    [GNTST_BAD_GNTREF, 0, GNTST_BAD_DOMAIN, GNTST_GENERAL_ERROR, 0, 0, 0, GNTST_BAD_GNTREF],
  );
  // The handle of an element that failed is what the caller had there.
  assert.deepEqual(
    elements.map(({ handle }) => handle === UNSET),
    [true, false, true, true, false, false, false, true],
  );
  assert.equal(new Set(elements.filter(({ status }) => status === 0).map(({ handle }) => handle)).size, 4);
  recount(all);
});

test('H19 XSA-318 XSA-361: a batch that is interrupted between any two elements fills every status', () => {
  const { xen, granter, caller, all, mapOf, unmapOf } = machine();
  const statuses = <R extends { status: number }>(
    layout: Parameters<typeof getArguments<R>>[1],
    count: number,
  ) => getArguments(caller, layout, count).map(({ status }) => status);
  let pauses = 0;
  // Another domain uses its processor: what was done so far is whole.
  const pause = () => {
    pauses++;
    recount(all);
    assert.equal(granter.ports.grantTable.revoke((FIRST + 60) as GrantRef, 1), 0);
  };
  putArguments(caller, gnttabMapGrantRef, [0, 1, 2, 3, 4].map(mapOf));
  assert.equal(callWith(caller, { pause }, op.GNTTABOP_MAP_GRANT_REF, 5), 0);
  assert.deepEqual([statuses(gnttabMapGrantRef, 5), pauses], [[0, 0, 0, 0, 0], 4]);
  const copy = {
    source_u: FIRST,
    source_domid: 2,
    dest_u: 1,
    dest_domid: DOMID_SELF,
    len: 9,
    flags: 1,
    status: UNSET,
  };
  putArguments(caller, gnttabCopy, [copy, { ...copy, source_u: 1 }, copy]);
  assert.equal(callWith(caller, { pause }, op.GNTTABOP_COPY, 3), 0);
  assert.deepEqual([statuses(gnttabCopy, 3), pauses], [[0, GNTST_GENERAL_ERROR, 0], 6]);
  putArguments(
    caller,
    gnttabUnmapGrantRef,
    [0, 1, 77, 2, 3, 4].map((handle) => unmapOf(handle)),
  );
  assert.equal(callWith(caller, { pause }, op.GNTTABOP_UNMAP_GRANT_REF, 6), 0);
  assert.deepEqual(statuses(gnttabUnmapGrantRef, 6), [0, 0, GNTST_BAD_HANDLE, 0, 0, 0]);
  assert.equal(xen.grants.pins(granter.record, FIRST), 0);
  recount(all);
});

test('H19: a batch of no elements is done, wherever it is', () => {
  const { caller, all } = machine();
  const before = grantState(all);
  for (const command of [0, 1, 4, 5, 7, 11]) assert.equal(caller.ports.grantTableOp(command, NOWHERE, 0), 0);
  assert.deepEqual(grantState(all), before);
});

test('XSA-316: the handle of a successful map is never a status', () => {
  const { caller, mapOf } = machine();
  const { elements } = call(caller, op.GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, [0, 1, 2].map(mapOf));
  assert.deepEqual(
    elements.map(({ status, handle }) => [status, handle]),
    [
      [0, 0],
      [0, 1],
      [0, 2],
    ],
  );
});

test('a map tells the bus address of the page, the one that the granter’s memory has in the machine', () => {
  const { granter, caller, mapOf } = machine();
  const { elements } = call(caller, op.GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, [mapOf(5)]);
  assert.equal(elements[0].dev_bus_addr, (granter.record.ramFrame + 5) * XEN_PAGE_SIZE);
});

for (const [what, addressOf] of [
  ['nowhere', () => NOWHERE],
  ['past 64 bits', () => 2 ** 64],
  ['before its memory', () => -4096],
  ['half past the end of its memory', () => MEMORY_END - 2],
] as const) {
  test(`arguments that lie ${what}: -EFAULT for every operation, and nothing has changed`, () => {
    const { xen, caller, all } = machine();
    const before = [grantState(all), xen.free];
    for (const command of [0, 1, 2, 5, 6, 7, 8, 9, 10, 11])
      assert.equal(caller.ports.grantTableOp(command, addressOf(), 1), EFAULT, `GNTTABOP ${command}`);
    assert.equal(caller.ports.grantTableOp(op.GNTTABOP_TRANSFER, addressOf(), 1), EFAULT);
    assert.deepEqual([grantState(all), xen.free], before);
  });
}

test('H19: a batch that runs out of the caller’s memory: -EFAULT, and the elements before are done and say so', () => {
  const { caller, all, mapOf, unmapOf } = machine();
  const start = MEMORY_END - 3 * gnttabMapGrantRef.size;
  putArguments(caller, gnttabMapGrantRef, [0, 1, 2].map(mapOf), start);
  assert.equal(caller.ports.grantTableOp(op.GNTTABOP_MAP_GRANT_REF, start, 1000), EFAULT);
  assert.deepEqual(
    getArguments(caller, gnttabMapGrantRef, 3, start).map(({ status }) => status),
    [0, 0, 0],
  );
  recount(all);
  const unmaps = MEMORY_END - 3 * gnttabUnmapGrantRef.size;
  putArguments(
    caller,
    gnttabUnmapGrantRef,
    [0, 1, 2].map((handle) => unmapOf(handle)),
    unmaps,
  );
  assert.equal(caller.ports.grantTableOp(op.GNTTABOP_UNMAP_GRANT_REF, unmaps, 0x7fff_ffff), EFAULT);
  assert.deepEqual(grantState(all)[1].mappings, []);
  recount(all);
});

test('a batch of 2^31 - 1 elements ends where the caller’s memory does', () => {
  const { caller, all } = machine();
  putArguments(caller, gnttabMapGrantRef, [{ flags: 0 }]);
  assert.equal(caller.ports.grantTableOp(op.GNTTABOP_MAP_GRANT_REF, ARGUMENTS, 0x7fff_ffff), EFAULT);
  recount(all);
});

for (const count of [-1, 0x8000_0000, 0xffff_ffff, Number.NaN])
  test(`a count of ${count} is refused with -EINVAL, whatever the operation`, () => {
    const { caller, all } = machine();
    const before = grantState(all);
    for (let command = 0; command < 20; command++)
      assert.equal(caller.ports.grantTableOp(command, ARGUMENTS, count), EINVAL);
    assert.deepEqual(grantState(all), before);
  });

test('a status that cannot be written: -EFAULT, and the caller keeps what was done until its end', () => {
  const { xen, granter, caller, all, at, mapOf } = machine();
  // The argument lies in a page that the granter lets the caller read.
  const { bytes } = gnttabMapGrantRef.make(mapOf(3));
  granter.ports.memory.region.u8.set(bytes, 0);
  assert.ok(
    xen.grants.map(caller.record, caller.record.window, GNTMAP_HOST_MAP | GNTMAP_READONLY, FIRST, 2) >= 0,
  );
  assert.equal(caller.ports.grantTableOp(op.GNTTABOP_MAP_GRANT_REF, at(0), 1), EFAULT);
  assert.deepEqual(granter.ports.memory.region.u8.slice(0, bytes.length), bytes);
  assert.equal(grantState([caller])[0].mappings.length, 2);
  recount(all);
});

test('arguments in a page that the hypercall itself takes away: the rest of the batch is what stands there then', () => {
  const { caller, all, mapOf } = machine();
  // A page of the granter, full of zeros, is mapped over the page of the arguments.
  const batch = [mapOf(0), mapOf(1)].map((element) => ({ ...element, host_addr: ARGUMENTS }));
  putArguments(caller, gnttabMapGrantRef, batch);
  assert.equal(caller.ports.grantTableOp(op.GNTTABOP_MAP_GRANT_REF, ARGUMENTS, 2), 0);
  assert.deepEqual(
    getArguments(caller, gnttabMapGrantRef, 2).map(({ status }) => status),
    [GNTST_OKAY, GNTST_BAD_GNTREF],
  );
  recount(all);
});

for (const command of [op.GNTTABOP_DUMP_TABLE, op.GNTTABOP_CACHE_FLUSH, 13, 63, 0xfff]) {
  test(`GNTTABOP ${command} is not there for a guest on x86: -ENOSYS`, () => {
    const { caller, all } = machine();
    const before = grantState(all);
    for (const count of [0, 1]) assert.equal(caller.ports.grantTableOp(command, ARGUMENTS, count), ENOSYS);
    assert.deepEqual(grantState(all), before);
  });
}

test('a handle that another processor unmaps, and whose granter dies, before the map is answered: Xen goes on', () => {
  const { xen, granter, caller, mapOf } = machine();
  const { record } = caller;
  const state = new Machine(xen.state);
  const mapping = new (class extends GrantMapping {
    override map(...parts: Parameters<GrantMapping['map']>): number {
      const handle = super.map(...parts);
      const other = new Xen(xen.state);
      assert.equal(other.grants.unmap(record, record.window + 5, handle), GNTST_OKAY);
      for (const _ of other.destroyDomain(granter.id));
      return handle;
    }
  })(state, xen.domains, new SharedEntries(state));
  putArguments(caller, gnttabMapGrantRef, [mapOf(5)]);
  assert.equal(callWith(caller, { mapping }, op.GNTTABOP_MAP_GRANT_REF, 1), 0);
  const [{ status, handle, dev_bus_addr: bus }] = getArguments(caller, gnttabMapGrantRef, 1);
  assert.deepEqual([status, handle, bus], [GNTST_OKAY, 0, (granter.record.ramFrame + 5) * XEN_PAGE_SIZE]);
  recount([caller]);
});

for (const command of [0x1000, 0x1005, 0x8000_0000, 0xffff_ffff, -1]) {
  test(`command ${command} has bits that are Xen’s own, for calls that it continues: -EINVAL`, () => {
    const { caller, all } = machine();
    const before = grantState(all);
    assert.equal(caller.ports.grantTableOp(command, ARGUMENTS, 1), EINVAL);
    assert.deepEqual(grantState(all), before);
  });
}
