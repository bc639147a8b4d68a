// A domain's processor reaches its own memory and what it has mapped, byte for byte, and nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import { PageFault } from './address-space.ts';
import { addDomain, bootTestMachine, TEST_HANDLES, TEST_PAGES } from './domains.test.helper.ts';
import { sharedEntry } from './grants/recount.test.helper.ts';

const RAM = TEST_PAGES * XEN_PAGE_SIZE;
const REF = 8 as GrantRef;
const FRAME = 3 as FrameNumber;

/** A granter whose frame 3 is filled with 0xa5, and a mapper whose own memory is filled with 0x11. */
function machine() {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1);
  granter.ports.memory.region.u8.fill(0x5a).fill(0xa5, FRAME * XEN_PAGE_SIZE, (FRAME + 1) * XEN_PAGE_SIZE);
  mapper.ports.memory.region.u8.fill(0x11);
  return { granter, mapper, space: mapper.ports.addressSpace, own: mapper.ports.memory.region.u8 };
}

function mapped(readonly: boolean, grantedReadonly = readonly) {
  const { granter, mapper, space, own } = machine();
  granter.ports.grantTable.grant(REF, 1, mapper.id, FRAME, grantedReadonly);
  const handle = mapper.ports.grantMapper.map(granter.id, REF, readonly);
  assert.ok(handle >= 0);
  return { granter, mapper, space, own, handle, address: mapper.ports.grantMapper.address(handle) };
}

const faultAt = (address: number) => (error: unknown) =>
  error instanceof PageFault && error.address === address;

test('a domain reads and writes its own memory to the last byte, and faults on the next', () => {
  const { space, own } = machine();
  space.write(RAM - 3, Uint8Array.of(1, 2, 3));
  assert.deepEqual([...own.subarray(RAM - 4)], [0x11, 1, 2, 3]);
  assert.deepEqual([...space.read(0, 2)], [0x11, 0x11]);
  assert.throws(() => space.read(RAM - 3, 4 + XEN_PAGE_SIZE), faultAt(RAM));
});

test('every page outside memory, grant table and live mappings faults for reading and for writing', () => {
  const { space, mapper } = mapped(false);
  const { map, window } = mapper.record;
  const isThere = (gfn: number) =>
    (gfn >= 0 && gfn < TEST_PAGES) || [map.grantTable, map.console, map.xenstore, window].includes(gfn);
  const edges = [0, TEST_PAGES, map.grantTable, map.console, map.xenstore, window, window + TEST_HANDLES];
  const gfns = edges.flatMap((edge) => Array.from({ length: 70 }, (_, index) => edge - 3 + index));
  for (const gfn of gfns) {
    const address = gfn * XEN_PAGE_SIZE;
    if (isThere(gfn)) space.read(address, XEN_PAGE_SIZE);
    else {
      assert.throws(() => space.read(address, 1), faultAt(address));
      assert.throws(() => space.write(address, Uint8Array.of(0)), faultAt(address));
    }
  }
  for (const address of [-1, -4097, 2 ** 33, 2 ** 44, 2 ** 52])
    assert.throws(() => space.read(address, 1), faultAt(address));
});

test('a domain sees its grant table where the entries are that Xen reads', () => {
  const { granter, mapper } = machine();
  granter.ports.grantTable.grant(REF, 1, mapper.id, FRAME, true);
  const { flags, domid, frame } = sharedEntry(granter, REF);
  const entry = granter.ports.addressSpace.read(granter.record.map.grantTable * XEN_PAGE_SIZE + REF * 8, 8);
  assert.deepEqual([...entry], [5, 0, 1, 0, 3, 0, 0, 0]);
  assert.deepEqual([flags, domid, frame], [5, 1, 3]);
});

test('a mapped page reads as the granter’s page, and its neighbours are not there', () => {
  const { space, granter, address } = mapped(true);
  assert.deepEqual(space.read(address, XEN_PAGE_SIZE), new Uint8Array(XEN_PAGE_SIZE).fill(0xa5));
  granter.ports.memory.region.u8[FRAME * XEN_PAGE_SIZE + 7] = 0x77;
  assert.deepEqual([...space.read(address + 6, 3)], [0xa5, 0x77, 0xa5]);
  assert.throws(() => space.read(address + XEN_PAGE_SIZE - 1, 2), faultAt(address + XEN_PAGE_SIZE));
});

test('H16: a page mapped read-only cannot be written, though the entry permits writing', () => {
  for (const grantedReadonly of [true, false]) {
    const { space, granter, address } = mapped(true, grantedReadonly);
    assert.throws(() => space.write(address + 5, Uint8Array.of(1)), faultAt(address + 5));
    assert.equal(granter.ports.memory.region.u8[FRAME * XEN_PAGE_SIZE + 5], 0xa5);
  }
});

test('what a domain writes into a writable mapping lands in the granter’s page and nowhere else', () => {
  const { space, granter, address } = mapped(false);
  space.write(address, new Uint8Array(XEN_PAGE_SIZE).fill(0x33));
  const memory = granter.ports.memory.region.u8;
  for (let gfn = 0; gfn < TEST_PAGES; gfn++)
    assert.equal(memory[gfn * XEN_PAGE_SIZE + 9], gfn === FRAME ? 0x33 : 0x5a);
});

test('a write that runs into an unmapped page faults there; the bytes before it are written', () => {
  const { space, own } = machine();
  const start = RAM - 2;
  assert.throws(() => space.write(start, new Uint8Array(3).fill(0)), faultAt(RAM));
  assert.deepEqual([...own.subarray(RAM - 3)], [0x11, 0, 0]);
});

test('use after unmap is a page fault, never silent', () => {
  const { space, mapper, address, handle } = mapped(false);
  assert.equal(mapper.ports.grantMapper.unmap(handle), 0);
  assert.throws(() => space.read(address, 1), faultAt(address));
  assert.throws(() => space.write(address, Uint8Array.of(1)), faultAt(address));
});

test('one place stands for what is mapped there now: a new mapping shows the new page', () => {
  const { space, mapper, granter, address, handle } = mapped(false);
  mapper.ports.grantMapper.unmap(handle);
  granter.ports.grantTable.revoke(REF, 1);
  granter.ports.grantTable.grant(9 as GrantRef, 1, mapper.id, 4 as FrameNumber, true);
  assert.equal(mapper.ports.grantMapper.map(granter.id, 9, true), handle);
  assert.deepEqual([...space.read(address, 2)], [0x5a, 0x5a]);
});
