// A domain that ends with much in its hands: mappings of others, and pages that others map (XSA-236, XSA-380).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTMAP_HOST_MAP, GNTMAP_READONLY } from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../../src/hosts/model/domains.test.helper.ts';
import { Xen } from '../../src/hosts/model/xen.ts';
import type { FrameNumber, GrantRef } from '../../src/xen/ids.ts';

const MIB = 2 ** 20;
const REF = 8 as GrantRef;
/** Mappings that may end between two moments at which others get their turn: a frame of handles. */
const SLICE = 256;

test('H22: a domain that holds 1000 mappings is taken apart a slice at a time, and all of them end', () => {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1, { maxMaptrackFrames: 4 });
  granter.ports.grantTable.grant(REF, 8, mapper.id, 3 as FrameNumber, false);
  const { record } = mapper;
  for (let count = 0; count < 1000; count++) {
    const flags = GNTMAP_HOST_MAP | (count % 2 === 0 ? GNTMAP_READONLY : 0);
    assert.ok(xen.grants.map(record, record.window + count, flags, REF + (count >> 7), granter.id) >= 0);
  }
  const held = () => {
    let mappings = 0;
    for (let ref = REF; ref < REF + 8; ref++) {
      const pins = xen.grants.pins(granter.record, ref);
      mappings += (pins & 0xff) + ((pins >>> 8) & 0xff);
    }
    return mappings;
  };
  let before = held();
  assert.equal(before, 1000);
  for (const _ of xen.destroyDomain(mapper.id)) {
    assert.ok(before - held() <= SLICE, `${before - held()} mappings ended without a break`);
    before = held();
  }
  assert.equal(held(), 0);
  assert.equal(granter.ports.grantTable.revoke(REF, 8), 0);
});

test('H22: a large grant table of a domain that ends is looked through a slice at a time', () => {
  const xen = bootTestMachine();
  const before = xen.free;
  const granter = addDomain(xen, 2, { memory: XEN_PAGE_SIZE, maxGrantFrames: 8 });
  assert.ok(granter.ports.grantTable.grow(8 * 512));
  let steps = 0;
  for (const _ of xen.destroyDomain(granter.id)) steps++;
  assert.ok(steps >= 12, `4 looks of 1024 entries and 8 frames given back, in ${steps} steps`);
  assert.deepEqual(xen.free, before);
});

test('H7: a page that is still mapped outlives its domain, and nobody else gets it', () => {
  const xen = Xen.boot(MIB, 16 * MIB, false);
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1);
  granter.ports.grantTable.grant(REF, 1, mapper.id, 3 as FrameNumber, false);
  granter.ports.memory.region.u8[3 * XEN_PAGE_SIZE] = 0x5a;
  const place = mapper.ports.grantMapper.map(granter.id, REF, false);
  const look = () => mapper.ports.addressSpace.read(mapper.ports.grantMapper.address(place), 1)[0];
  for (const _ of xen.destroyDomain(granter.id)) assert.equal(look(), 0x5a);
  assert.throws(() => addDomain(xen, granter.id), /exists already/, 'nor is its id given to another');
  const others = takeAllMemory(xen);
  for (const { ports } of others) ports.memory.region.u8.fill(0xee);
  assert.equal(look(), 0x5a);
  for (const { id } of others) for (const _ of xen.destroyDomain(id)) assert.equal(look(), 0x5a);
  const { frames } = xen.free;
  assert.equal(mapper.ports.grantMapper.unmap(place), 0);
  assert.equal(xen.free.frames, frames + 2, 'the page, and the grant table that it was counted in');
  addDomain(xen, granter.id);
});

/** Domains of a page each, until there is no memory left for another. */
function takeAllMemory(xen: Xen): TestDomain[] {
  const others: TestDomain[] = [];
  // One page of memory, four for what Xen shares with the guest and one of grant table.
  for (let id = 3; xen.free.frames > 8; id++) others.push(addDomain(xen, id, { memory: XEN_PAGE_SIZE }));
  return others;
}
