// The statuses of GNTTABOP_map_grant_ref and GNTTABOP_unmap_grant_ref, in the order in which Xen looks for
// what is wrong: where two things are, the earlier one is answered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_BAD_PAGE,
  GNTST_GENERAL_ERROR,
  GNTST_NO_SPACE,
  GNTST_OKAY,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { SHUTDOWN_CRASH } from '../domains.ts';
import { addDomain, bootTestMachine, TEST_HANDLES, TEST_PAGES } from '../domains.test.helper.ts';
import { grantState, recount, sharedEntry } from './recount.test.helper.ts';

const READWRITE = GNTMAP_HOST_MAP;
const READONLY = GNTMAP_HOST_MAP | GNTMAP_READONLY;
const GRANTED = 8;
const GRANTED_READONLY = 9;
const TO_OTHER = 10;
const OUTSIDE = 11;
const HELD_BY_OTHER = 12;
const NEVER = 13;

/** A granter (2) with one entry of each kind for backend 1, and a second backend (3). */
function machine() {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1);
  const other = addDomain(xen, 3);
  const grant = (ref: number, peer: typeof mapper, frame: number, readonly = false) =>
    granter.ports.grantTable.grant(ref as GrantRef, 1, peer.id, frame as FrameNumber, readonly);
  grant(GRANTED, mapper, 3);
  grant(GRANTED_READONLY, mapper, 4, true);
  grant(TO_OTHER, other, 5);
  grant(OUTSIDE, mapper, TEST_PAGES + 20);
  grant(HELD_BY_OTHER, other, 6);
  assert.ok(xen.grants.map(other.record, other.record.window, READONLY, HELD_BY_OTHER, 2) >= 0);
  // The granter gives the entry to the mapper while the other one still holds it.
  sharedEntry(granter, HELD_BY_OTHER).domid = mapper.id;
  const map = (flags: number, ref: number, owner = 2, gfn = mapper.record.window) =>
    xen.grants.map(mapper.record, gfn, flags, ref, owner);
  const fillMaptrack = () => {
    // An entry takes 128 pins of a kind.
    for (let handle = 0; handle < TEST_HANDLES; handle++)
      assert.equal(
        map(handle % 2 === 0 ? READONLY : READWRITE, GRANTED, 2, mapper.record.window + handle),
        handle,
      );
  };
  return { xen, granter, mapper, other, map, fillMaptrack, all: [granter, mapper, other] };
}

const refusals: [what: string, status: number, flags: number, ref: number, owner: number][] = [
  ['neither host nor device map', GNTST_BAD_GNTREF, GNTMAP_READONLY, GRANTED, 99],
  ['a device map of a translated domain', GNTST_GENERAL_ERROR, GNTMAP_DEVICE_MAP, GRANTED, 99],
  ['host and device map', GNTST_GENERAL_ERROR, READWRITE | GNTMAP_DEVICE_MAP, GRANTED, 99],
  ['an application map', GNTST_GENERAL_ERROR, READWRITE | 8, GRANTED, 99],
  ['a map through a page table entry', GNTST_GENERAL_ERROR, READWRITE | 16, GRANTED, 99],
  ['an unknown domain', GNTST_BAD_DOMAIN, READWRITE, 0xffff_ffff, 99],
  ['a reserved domain id', GNTST_BAD_DOMAIN, READWRITE, 0xffff_ffff, 0x7ff0],
  ['H1: a reference past the table', GNTST_BAD_GNTREF, READWRITE, 512, 2],
  ['H1: reference 2^31', GNTST_BAD_GNTREF, READWRITE, 0x8000_0000, 2],
  ['H1: reference 2^32 - 1', GNTST_BAD_GNTREF, READWRITE, 0xffff_ffff, 2],
  ['H1: reference -1, as a signed int has 2^32 - 1', GNTST_BAD_GNTREF, READWRITE, -1, 2],
  ['H1: a reserved reference that nothing uses', GNTST_GENERAL_ERROR, READWRITE, 0, 2],
  ['an entry that was never granted', GNTST_GENERAL_ERROR, READONLY, NEVER, 2],
  ['H17: an entry granted to somebody else', GNTST_GENERAL_ERROR, READONLY, TO_OTHER, 2],
  ['H16: writing through a read-only entry', GNTST_GENERAL_ERROR, READWRITE, GRANTED_READONLY, 2],
  ['a frame that the granter does not have', GNTST_BAD_PAGE, READWRITE, OUTSIDE, 2],
  ['an entry pinned for another domain', GNTST_GENERAL_ERROR, READONLY, HELD_BY_OTHER, 2],
];

for (const [what, status, flags, ref, owner] of refusals) {
  test(`map refuses ${what} with ${status}, and nothing has changed`, () => {
    const { map, all } = machine();
    const before = grantState(all);
    assert.equal(map(flags, ref, owner), status);
    assert.deepEqual(grantState(all), before);
  });
}

test('H21: with no handle left map answers no_space before it looks at the entry, after flags and domain', () => {
  const { map, fillMaptrack, all } = machine();
  fillMaptrack();
  const before = grantState(all);
  assert.equal(map(READWRITE, GRANTED), GNTST_NO_SPACE);
  assert.equal(map(READWRITE, 0xffff_ffff), GNTST_NO_SPACE);
  assert.equal(map(READWRITE, GRANTED, 99), GNTST_BAD_DOMAIN);
  assert.equal(map(GNTMAP_DEVICE_MAP, GRANTED), GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(all), before);
  recount(all);
});

test('H17: whoever is not the grantee cannot tell what is granted to others, or whether it is mapped', () => {
  const { xen, granter } = machine();
  const stranger = addDomain(xen, 4);
  const seen = new Set<number>();
  for (let ref = 0; ref < 512; ref++)
    seen.add(xen.grants.map(stranger.record, stranger.record.window, READONLY, ref, granter.id));
  assert.deepEqual([...seen], [GNTST_GENERAL_ERROR]);
});

test('H2: a table that its kernel has not set up has one frame of entries that grant nothing', () => {
  const { xen, mapper, map } = machine();
  xen.createDomain(5, { memory: 4096, maxMaptrackFrames: 0 });
  for (const ref of [0, 8, 511]) assert.equal(map(READWRITE, ref, 5), GNTST_GENERAL_ERROR);
  assert.equal(map(READWRITE, 512, 5), GNTST_BAD_GNTREF);
  assert.equal(mapper.ports.grantMapper.live, 0);
});

for (const [what, place] of [
  ['a place past the end of the address space', 1 << 21],
  ['a place before its beginning', -1],
] as const) {
  test(`map into ${what} is refused with general_error, and the entry is as it was`, () => {
    const { map, all } = machine();
    const before = grantState(all);
    assert.equal(map(READWRITE, GRANTED, 2, place), GNTST_GENERAL_ERROR);
    assert.deepEqual(grantState(all), before);
    assert.ok(map(READWRITE, GRANTED) >= 0);
    recount(all);
  });
}

test('map at a place where something is mapped already is refused, and that stays mapped', () => {
  const { mapper, map, all } = machine();
  assert.equal(map(READWRITE, GRANTED), 0);
  const before = grantState(all);
  assert.equal(map(READONLY, GRANTED_READONLY), GNTST_GENERAL_ERROR);
  assert.equal(map(READONLY, GRANTED), GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(all), before);
  // Xen ends a domain that maps over its own mappings.
  assert.equal(mapper.record.shutdownCode, SHUTDOWN_CRASH);
});

test('map over the mapper’s own memory takes that memory out of its address space', () => {
  const { mapper, map, all } = machine();
  mapper.ports.memory.region.u8[3 * XEN_PAGE_SIZE] = 0x77;
  assert.equal(map(READONLY, GRANTED, 2, 3), 0);
  assert.equal(mapper.ports.addressSpace.read(3 * XEN_PAGE_SIZE, 1)[0], 0);
  recount(all);
});

test('unmap where the page does not stand, or not with that right, is refused with general_error', () => {
  const { xen, mapper, map, all } = machine();
  const { window } = mapper.record;
  assert.equal(map(READWRITE, GRANTED), 0);
  assert.equal(map(READONLY, GRANTED, 2, window + 1), 1);
  const before = grantState(all);
  for (const gfn of [window + 1, window + 2, 0, -2, 1 << 21])
    assert.equal(xen.grants.unmap(mapper.record, gfn, 0), GNTST_GENERAL_ERROR);
  assert.deepEqual(grantState(all), before);
  assert.equal(xen.grants.unmap(mapper.record, window, 0), GNTST_OKAY);
  recount(all);
});

test('H3 H4: a handle that is unused, out of range, or unmapped already is refused with bad_handle', () => {
  const { xen, mapper, map, all } = machine();
  const { window } = mapper.record;
  assert.equal(map(READWRITE, GRANTED), 0);
  assert.equal(xen.grants.unmap(mapper.record, window, 0), GNTST_OKAY);
  const before = grantState(all);
  for (const handle of [0, 1, TEST_HANDLES - 1, TEST_HANDLES, 0xffff_ffff, -1])
    assert.equal(xen.grants.unmap(mapper.record, window, handle), GNTST_BAD_HANDLE);
  assert.deepEqual(grantState(all), before);
  recount(all);
});

test('H3: a handle belongs to the domain that mapped; another domain cannot end the mapping with it', () => {
  const { xen, mapper, other, map, all } = machine();
  assert.equal(map(READWRITE, GRANTED), 0);
  const before = grantState(all);
  // Handle 0 of the other domain is a mapping of its own, at a frame of its own.
  assert.equal(xen.grants.unmap(mapper.record, other.record.window, 1), GNTST_BAD_HANDLE);
  assert.equal(xen.grants.unmap(other.record, other.record.window + 1, 0), GNTST_GENERAL_ERROR);
  assert.equal(xen.grants.unmap(other.record, mapper.record.window, 1), GNTST_BAD_HANDLE);
  assert.deepEqual(grantState(all), before);
});
