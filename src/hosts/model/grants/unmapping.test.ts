// Unmaps as guests make them: owners are told after each 32, a PV guest ends the parts of a mapping one by one, and
// has a page of its own put back in the same step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { everyInterleaving, withPreemption } from '../../../../test/support/preemption.test.helper.ts';
import {
  GNTTABOP_MAP_GRANT_REF,
  GNTTABOP_UNMAP_AND_REPLACE,
  GNTTABOP_UNMAP_GRANT_REF,
  gnttabMapGrantRef,
  gnttabUnmapAndReplace,
  gnttabUnmapGrantRef,
} from '../../../abi/grant-table-op.ts';
import {
  GNTMAP_CONTAINS_PTE,
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DEV_ADDR,
  GNTST_BAD_HANDLE,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GTF_READING,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import type { DomainKind } from '../address-map.ts';
import { addDomain, bootTestMachine, TEST_PAGES } from '../domains.test.helper.ts';
import { GuestCopy } from '../guest-copy.ts';
import { P2M_NONE, P2M_RAM, p2mEntry, p2mType } from '../physmap.ts';
import { Xen } from '../xen.ts';
import { call, callOne, callWith, getArguments, putArguments, UNSET } from './hypercall.test.helper.ts';
import { grantState, recount, sharedEntry } from './recount.test.helper.ts';

const FIRST = 8;
const BOTH = GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP;
const RW = GTF_READING | GTF_WRITING;

/** Domain 2 grants its pages to domain 1, which is of `kind`. */
function machine(kind: DomainKind) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1, { kind });
  granter.ports.grantTable.grant(FIRST as GrantRef, TEST_PAGES, mapper.id, 0 as FrameNumber, false);
  const at = (place: number) => (mapper.record.window + place) * XEN_PAGE_SIZE;
  const map = (index: number, flags = GNTMAP_HOST_MAP, place = index) =>
    callOne(mapper, GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, {
      host_addr: at(place),
      flags,
      ref: FIRST + index,
      dom: granter.id,
    });
  const unmap = (handle: number, hostAddress: number, busAddress: number) =>
    callOne(mapper, GNTTABOP_UNMAP_GRANT_REF, gnttabUnmapGrantRef, {
      handle,
      host_addr: hostAddress,
      dev_bus_addr: busAddress,
      status: UNSET,
    }).status;
  const bits = (index: number) => sharedEntry(granter, FIRST + index).flags & RW;
  const pins = (index: number) => xen.grants.pins(granter.record, FIRST + index) >>> 0;
  return { xen, granter, mapper, all: [granter, mapper], at, map, unmap, bits, pins };
}

test('H6: of a batch the owner is told after each 32, when translations have been flushed: bits are cleared late', () => {
  const { mapper, all, at, map, bits, pins } = machine('pvh');
  const count = 40;
  const handles = Array.from({ length: count }, (_, index) => map(index).handle);
  putArguments(
    mapper,
    gnttabUnmapGrantRef,
    handles.map((handle, index) => ({ handle, host_addr: at(index), status: UNSET })),
  );
  const held = () =>
    Array.from({ length: count }, (_, index) => bits(index)).filter((each) => each === RW).length;
  let atPause = -1;
  let late = 0;
  const memory = new (class extends GuestCopy {
    // Whenever Xen looks at an element: pages have gone from the address space, their owner sees them in use.
    override from(address: number, length: number) {
      const isGone = (_: number, index: number) =>
        p2mType(mapper.record.physmap.get(at(index) / XEN_PAGE_SIZE)) === P2M_NONE;
      late = Math.max(late, handles.filter(isGone).length - (count - held()));
      return super.from(address, length);
    }
  })(mapper.ports.addressSpace);
  const pause = () => {
    atPause = held();
    recount(all);
  };
  assert.equal(callWith(mapper, { memory, pause }, GNTTABOP_UNMAP_GRANT_REF, count), 0);
  assert.deepEqual([atPause, late, held()], [count - 32, 31, 0]);
  assert.ok(getArguments(mapper, gnttabUnmapGrantRef, count).every(({ status }) => status === GNTST_OKAY));
  assert.equal(pins(0), 0);
  recount(all);
});

test('H3: one handle twice in a batch is unmapped once, before its owner was told', () => {
  const { mapper, all, at, map } = machine('pvh');
  const { handle } = map(0);
  const element = { handle, host_addr: at(0), status: UNSET };
  const { elements } = call(mapper, GNTTABOP_UNMAP_GRANT_REF, gnttabUnmapGrantRef, [
    element,
    element,
    element,
  ]);
  assert.deepEqual(
    elements.map(({ status }) => status),
    [GNTST_OKAY, GNTST_BAD_HANDLE, GNTST_BAD_HANDLE],
  );
  recount(all);
});

for (const [kind, pins] of [
  ['writable', 0x1_0001],
  ['read-only', 0x100_0100],
] as const) {
  const flags = BOTH | (kind === 'read-only' ? GNTMAP_READONLY : 0);
  const inUse = kind === 'read-only' ? GTF_READING : RW;
  for (const order of ['host first', 'device first', 'at once']) {
    test(`3 H3 H4: a ${kind} mapping for host and device of a PV guest ends part by part, ${order} (XSA-224)`, () => {
      const made = machine('pv');
      const { mapper, all, at } = made;
      const before = grantState(all);
      const { status, handle, dev_bus_addr: bus } = made.map(0, flags);
      assert.deepEqual([status, made.pins(0), made.bits(0)], [GNTST_OKAY, pins, inUse]);
      recount(all);
      const steps = {
        'host first': [at(0), 0, 0, bus],
        'device first': [0, bus, at(0), 0],
        'at once': [at(0), bus],
      };
      const [firstHost, firstBus, ...second] = steps[order as keyof typeof steps];
      assert.equal(made.unmap(handle, firstHost, firstBus), GNTST_OKAY);
      recount(all);
      if (second.length > 0) {
        assert.equal(made.bits(0), inUse, 'the other part still uses the page');
        // The part that has gone cannot go again, nor can no part at all.
        const half = grantState(all);
        assert.equal(made.unmap(handle, firstHost, firstBus), GNTST_OKAY);
        assert.equal(made.unmap(handle, 0, 0), GNTST_OKAY);
        assert.deepEqual(grantState(all), half);
        assert.equal(made.unmap(handle, second[0], second[1]), GNTST_OKAY);
      }
      assert.equal(made.unmap(handle, at(0), bus), GNTST_BAD_HANDLE);
      assert.deepEqual(grantState(all), before);
      assert.equal(mapper.record.shutdownCode, -1);
      recount(all);
    });
  }
}

test('H4: an unmap that names no part changes nothing, however often (XSA-394)', () => {
  for (const kind of ['pv', 'hvm'] as const) {
    const made = machine(kind);
    const { handle } = made.map(0);
    const before = grantState(made.all);
    for (let times = 0; times < 300; times++) assert.equal(made.unmap(handle, 0, 0), GNTST_OKAY);
    // A part that the mapping does not have.
    for (let times = 0; times < 300; times++) assert.equal(made.unmap(handle, 0, 0x1000), GNTST_OKAY);
    assert.deepEqual(grantState(made.all), before);
    assert.equal(made.unmap(handle, made.at(0), 0), GNTST_OKAY);
    recount(made.all);
  }
});

test('XSA-234: a read-only mapping that goes takes no right of a writable one with it, for host and device', () => {
  const made = machine('pv');
  const writable = made.map(0, BOTH, 0);
  const readonly = made.map(0, BOTH | GNTMAP_READONLY, 1);
  assert.equal(made.pins(0), 0x101_0101);
  assert.equal(made.unmap(readonly.handle, made.at(1), readonly.dev_bus_addr), GNTST_OKAY);
  assert.deepEqual([made.pins(0), made.bits(0)], [0x1_0001, RW]);
  assert.equal(made.unmap(writable.handle, made.at(0), 0), GNTST_OKAY);
  assert.deepEqual([made.pins(0), made.bits(0)], [0x1_0000, RW]);
  recount(made.all);
});

test('a wrong bus address is refused with bad_dev_addr before either part is touched', () => {
  const made = machine('pv');
  const { handle, dev_bus_addr: bus } = made.map(0, BOTH);
  const before = grantState(made.all);
  for (const wrong of [bus + XEN_PAGE_SIZE, bus + 1, 2 ** 50])
    assert.equal(made.unmap(handle, made.at(0), wrong), GNTST_BAD_DEV_ADDR);
  assert.deepEqual(grantState(made.all), before);
});

test('a host address at which the page does not stand is refused before the device part is touched', () => {
  const made = machine('pv');
  const { handle, dev_bus_addr: bus } = made.map(0, BOTH);
  const before = grantState(made.all);
  assert.equal(made.unmap(handle, made.at(1), bus), GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(made.all), before);
});

test('128 device pins are the limit, apart from those of the host', () => {
  const made = machine('pv');
  for (let pin = 0; pin < 128; pin++) assert.equal(made.map(0, GNTMAP_DEVICE_MAP).status, GNTST_OKAY);
  const before = grantState(made.all);
  assert.equal(made.map(0, GNTMAP_DEVICE_MAP).status, GNTST_GENERAL_ERROR);
  assert.equal(made.map(0, BOTH).status, GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(made.all), before);
  assert.equal(made.map(0, GNTMAP_HOST_MAP).status, GNTST_OKAY);
  assert.equal(made.map(0, GNTMAP_DEVICE_MAP | GNTMAP_READONLY).status, GNTST_OKAY);
  recount(made.all);
});

test('page tables of a PV guest are not there to be written: a map that names an entry of one is refused', () => {
  const made = machine('pv');
  const before = grantState(made.all);
  assert.equal(made.map(0, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE).status, GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(made.all), before);
});

const replaceWith = (made: ReturnType<typeof machine>, handle: number, place: number, next: number) =>
  callOne(made.mapper, GNTTABOP_UNMAP_AND_REPLACE, gnttabUnmapAndReplace, {
    handle,
    host_addr: made.at(place),
    new_addr: next,
    status: UNSET,
  }).status;

test('unmap_and_replace puts a PV guest’s own page where the granted one stood, in one step', () => {
  const made = machine('pv');
  const { mapper, at } = made;
  const { physmap, ramFrame } = mapper.record;
  mapper.ports.memory.region.u8[7 * XEN_PAGE_SIZE] = 0x77;
  const { handle } = made.map(0);
  assert.equal(replaceWith(made, handle, 0, 7 * XEN_PAGE_SIZE), GNTST_OKAY);
  assert.equal(mapper.ports.addressSpace.read(at(0), 1)[0], 0x77);
  assert.deepEqual(
    [physmap.get(mapper.record.window), physmap.get(7)],
    [p2mEntry(ramFrame + 7, P2M_RAM), P2M_NONE],
  );
  assert.deepEqual([made.pins(0), made.bits(0)], [0, 0]);
  recount(made.all);
});

test('unmap_and_replace without an address is a plain unmap, for an HVM guest too', () => {
  for (const kind of ['pv', 'hvm'] as const) {
    const made = machine(kind);
    const { handle } = made.map(0);
    assert.equal(replaceWith(made, handle, 0, 0), GNTST_OKAY);
    assert.equal(made.pins(0), 0);
    recount(made.all);
  }
});

for (const [what, kind, next] of [
  ['a page of an HVM guest', 'hvm', 7 * XEN_PAGE_SIZE],
  ['a page of a PVH guest', 'pvh', 7 * XEN_PAGE_SIZE],
  ['nothing', 'pv', 0xd000_0000],
  ['what lies past its address space', 'pv', 2 ** 52],
] as const) {
  test(`unmap_and_replace with ${what} is refused with general_error, and nothing has changed`, () => {
    const made = machine(kind);
    const { handle } = made.map(0);
    const before = grantState(made.all);
    assert.equal(replaceWith(made, handle, 0, next), GNTST_GENERAL_ERROR);
    assert.equal(replaceWith(made, handle + 1, 0, next), GNTST_BAD_HANDLE);
    assert.deepEqual(grantState(made.all), before);
    recount(made.all);
  });
}

test('unmap_and_replace where the granted page does not stand is refused, and the own page stays where it was', () => {
  const made = machine('pv');
  const { handle } = made.map(0);
  const before = grantState(made.all);
  assert.equal(replaceWith(made, handle, 1, 7 * XEN_PAGE_SIZE), GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(made.all), before);
  assert.equal(p2mType(made.mapper.record.physmap.get(7)), P2M_RAM);
});

test('unmap_and_replace races with the unmap of what is to be put there: nobody reaches the page after it (10)', () => {
  const outcomes = new Set<string>();
  const runs = everyInterleaving(1, (stepIn) => {
    const made = machine('pv');
    const { mapper, granter, xen, at } = made;
    const heap = new Int32Array(xen.state.heap);
    const other = new Xen(xen.state);
    const locks = [mapper.record.maptrackList(0), granter.record.activeEntry(FIRST + 1)];
    const [kept, gone] = [made.map(0).handle, made.map(1).handle];
    let [replaced, unmapped]: [number, number | undefined] = [0, undefined];
    const point = () => {
      // The other processor would wait for these locks.
      if (locks.some((word) => heap[word] !== 0) || !stepIn()) return;
      unmapped = other.grants.unmap(mapper.record, mapper.record.window + 1, gone);
    };
    withPreemption(point, () => {
      replaced = replaceWith(made, kept, 0, at(1));
    });
    recount(made.all);
    outcomes.add(`${replaced} ${unmapped}`);
    if (unmapped === GNTST_OKAY) assert.equal(granter.ports.grantTable.revoke((FIRST + 1) as GrantRef, 1), 0);
  });
  assert.ok(runs > 5, `${runs} interleavings`);
  assert.deepEqual([...outcomes].toSorted(), ['-1 0', '0 -1', '0 undefined']);
});
