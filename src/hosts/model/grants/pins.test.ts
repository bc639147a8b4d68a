// Pin counters, the frame as it was at the first map, and the status bits that tell the granter.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { grantState, recount, sharedEntry } from './recount.test.helper.ts';

const REF = 8 as GrantRef;
const FRAME = 3 as FrameNumber;
const LIMIT = 128;
const R = GTF_READING;
const RW = GTF_READING | GTF_WRITING;

/** Reference 8 of domain 2 granted to domain 1, which has handles for more than all pins. */
function machine(grantedReadonly = false) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1, { maxMaptrackFrames: 2 });
  const all = [granter, mapper];
  granter.ports.grantTable.grant(REF, 1, mapper.id, FRAME, grantedReadonly);
  let place = mapper.record.window;
  const places: number[] = [];
  const map = (readonly: boolean) => {
    const flags = GNTMAP_HOST_MAP | (readonly ? GNTMAP_READONLY : 0);
    const handle = xen.grants.map(mapper.record, place, flags, REF, granter.id);
    if (handle >= 0) places[handle] = place++;
    return handle;
  };
  const unmap = (handle: number) => xen.grants.unmap(mapper.record, places[handle], handle);
  const bits = () => sharedEntry(granter, REF).flags & RW;
  const pins = () => xen.grants.pins(granter.record, REF) >>> 0;
  return { xen, granter, mapper, all, map, unmap, bits, pins };
}

// What is mapped and unmapped (a capital is an unmap of the mapping of that kind), and the bits after it.
const scripts: [steps: string, bits: number[]][] = [
  ['r R', [R, 0]],
  ['w W', [RW, 0]],
  ['r r R R', [R, R, R, 0]],
  ['r w W R', [R, RW, R, 0]],
  ['r w R W', [R, RW, RW, 0]],
  ['w r W R', [RW, RW, R, 0]],
  ['w r R W', [RW, RW, RW, 0]],
  ['w w r W R W', [RW, RW, RW, RW, RW, 0]],
];

for (const [steps, expected] of scripts) {
  test(`3 H6: status bits come and go with the pins, reading and writing apart: ${steps}`, () => {
    const { all, map, unmap, bits } = machine();
    const held: Record<string, number[]> = { r: [], w: [] };
    const seen = steps.split(' ').map((step) => {
      const kind = step.toLowerCase();
      if (step === kind) held[kind].push(map(kind === 'r'));
      else assert.equal(unmap(held[kind].pop()!), GNTST_OKAY);
      recount(all);
      return bits();
    });
    assert.deepEqual(seen, expected);
  });
}

for (const readonly of [true, false]) {
  test(`128 ${readonly ? 'read-only' : 'writable'} pins are the limit; the other kind is counted apart`, () => {
    const { all, map, unmap, pins } = machine();
    const handles = Array.from({ length: LIMIT }, () => map(readonly));
    assert.equal(Math.min(...handles), 0);
    assert.equal(pins(), readonly ? 0x8000 : 0x80);
    const before = grantState(all);
    assert.equal(map(readonly), GNTST_GENERAL_ERROR);
    assert.deepEqual(grantState(all), before);
    assert.equal(unmap(handles[5]), GNTST_OKAY);
    assert.ok(map(!readonly) >= 0);
    assert.ok(map(readonly) >= 0);
    recount(all);
  });
}

test('127 pins of each kind are held at once and counted apart', () => {
  const { all, map, unmap, pins, bits } = machine();
  const handles = Array.from({ length: 2 * (LIMIT - 1) }, (_, i) => map(i % 2 === 0));
  assert.equal(pins(), 0x7f7f);
  for (const handle of handles) assert.equal(unmap(handle), GNTST_OKAY);
  assert.deepEqual([pins(), bits()], [0, 0]);
  recount(all);
});

test('5: map and unmap return tables, free lists and counters to their earlier value', () => {
  const { all, map, unmap } = machine();
  const before = grantState(all);
  for (const readonly of [true, false, true]) {
    const handle = map(readonly);
    assert.notDeepEqual(grantState(all), before);
    unmap(handle);
    assert.deepEqual(grantState(all), before);
  }
});

test('the frame is the one of the first map, whatever the granter writes into the entry later', () => {
  const { granter, mapper, all, map, unmap } = machine();
  const memory = granter.ports.memory.region.u8;
  memory[FRAME * XEN_PAGE_SIZE] = 0xaa;
  memory[4 * XEN_PAGE_SIZE] = 0xbb;
  const first = map(true);
  sharedEntry(granter, REF).frame = 4;
  const second = map(true);
  const read = (place: number) =>
    mapper.ports.addressSpace.read((mapper.record.window + place) * XEN_PAGE_SIZE, 1)[0];
  assert.deepEqual([read(0), read(1)], [0xaa, 0xaa]);
  recount(all);
  unmap(first);
  unmap(second);
  map(true);
  assert.equal(read(2), 0xbb);
});

test('H16: a writable map of an entry that is pinned for reading looks at the entry again', () => {
  const { granter, all, map } = machine();
  map(true);
  sharedEntry(granter, REF).flags |= GTF_READONLY;
  const before = grantState(all);
  assert.equal(map(false), GNTST_GENERAL_ERROR);
  assert.ok(map(true) >= 0);
  sharedEntry(granter, REF).flags &= ~GTF_READONLY;
  assert.ok(map(false) >= 0);
  assert.equal(before[0].entries[0].flags, GTF_PERMIT_ACCESS | GTF_READONLY | GTF_READING);
  recount(all);
});

test('a pinned entry that the granter has cleared can still be mapped by whom it is pinned for, until it is unmapped', () => {
  const { granter, map, unmap, pins } = machine();
  const handle = map(true);
  sharedEntry(granter, REF).flags = 0;
  const second = map(false);
  assert.ok(second >= 0);
  unmap(handle);
  unmap(second);
  assert.equal(pins(), 0);
  assert.equal(map(true), GNTST_GENERAL_ERROR);
  assert.equal(sharedEntry(granter, REF).flags, 0);
});

test('a domain may map its own grant', () => {
  const xen = bootTestMachine();
  const domain = addDomain(xen, 1);
  domain.ports.grantTable.grant(REF, 1, domain.id, FRAME, false);
  const place = domain.ports.grantMapper.map(domain.id, REF, false);
  domain.ports.addressSpace.write(domain.ports.grantMapper.address(place), Uint8Array.of(0x42));
  assert.equal(domain.ports.memory.region.u8[FRAME * XEN_PAGE_SIZE], 0x42);
  recount([domain]);
  assert.equal(domain.ports.grantTable.revoke(REF, 1), 1);
  domain.ports.grantMapper.unmap(place);
  assert.equal(domain.ports.grantTable.revoke(REF, 1), 0);
});

test('what is mapped cannot be granted on: the frame is not the granter’s own', () => {
  const { xen, mapper, map } = machine();
  const third = addDomain(xen, 3);
  map(false);
  mapper.ports.grantTable.grant(REF, 1, third.id, mapper.record.window as FrameNumber, false);
  assert.equal(third.ports.grantMapper.map(mapper.id, REF, true), -9);
  assert.equal(sharedEntry(mapper, REF).flags, GTF_PERMIT_ACCESS);
});
