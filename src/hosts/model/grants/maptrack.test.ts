// Handles: a domain's budget of mappings, and the free list behind it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GNTST_BAD_HANDLE, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, TEST_HANDLES } from '../domains.test.helper.ts';
import { Machine } from '../state.ts';
import { giveHandle, takeHandle } from './maptrack.ts';
import { grantState, recount } from './recount.test.helper.ts';

const REF = 8 as GrantRef;

function machine(maxMaptrackFrames = 1) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1, { maxMaptrackFrames });
  granter.ports.grantTable.grant(REF, 2, mapper.id, 3 as FrameNumber, false);
  return { xen, granter, mapper, all: [granter, mapper] };
}

test('H21: all handles can be had, one more is refused, and one given back can be had again', () => {
  const { granter, mapper, all } = machine();
  const { grantMapper } = mapper.ports;
  // An entry takes 128 pins of a kind.
  const places = Array.from({ length: TEST_HANDLES }, (_, i) =>
    grantMapper.map(granter.id, REF + (i % 2), true),
  );
  assert.equal(new Set(places).size, TEST_HANDLES);
  assert.equal(grantMapper.map(granter.id, REF, true), GNTST_NO_SPACE);
  assert.equal(grantMapper.live, TEST_HANDLES);
  recount(all);
  assert.equal(grantMapper.unmap(places[7]), GNTST_OKAY);
  assert.equal(grantMapper.map(granter.id, REF + 1, true), places[7]);
  assert.equal(grantMapper.map(granter.id, REF, true), GNTST_NO_SPACE);
  for (const place of places) assert.equal(grantMapper.unmap(place), GNTST_OKAY);
  assert.equal(grantMapper.live, 0);
  recount(all);
});

test('H21: maps that fail give their handle back, however many fail', () => {
  const { granter, mapper, all } = machine();
  for (let i = 0; i < 10 * TEST_HANDLES; i++)
    assert.equal(mapper.ports.grantMapper.map(granter.id, 10 + (i % 100), true), -1);
  recount(all);
  assert.equal(mapper.ports.grantMapper.map(granter.id, REF, true), 0);
});

test('a domain without handles maps nothing', () => {
  const { granter, mapper, all } = machine(0);
  const before = grantState(all);
  assert.equal(mapper.ports.grantMapper.map(granter.id, REF, true), GNTST_NO_SPACE);
  assert.deepEqual(grantState(all), before);
});

test('H3: the mapper’s own places are as strict: never mapped, unmapped twice, out of range', () => {
  const { granter, mapper, all } = machine();
  const { grantMapper } = mapper.ports;
  const place = grantMapper.map(granter.id, REF, false);
  assert.equal(grantMapper.unmap(place), GNTST_OKAY);
  const before = grantState(all);
  for (const wrong of [place, place + 1, -1, TEST_HANDLES, 2 ** 31])
    assert.equal(grantMapper.unmap(wrong), GNTST_BAD_HANDLE);
  assert.deepEqual(grantState(all), before);
  assert.equal(grantMapper.live, 0);
});

test('H4: a handle stolen by a bare hypercall is gone for its holder, and everything still adds up', () => {
  const { xen, granter, mapper, all } = machine();
  const place = mapper.ports.grantMapper.map(granter.id, REF, false);
  const [{ handle }] = grantState([mapper])[0].mappings;
  assert.equal(xen.grants.unmap(mapper.record, mapper.record.window + place, handle), GNTST_OKAY);
  recount(all);
  assert.equal(mapper.ports.grantMapper.unmap(place), GNTST_BAD_HANDLE);
  assert.equal(xen.grants.pins(granter.record, REF), 0);
  recount(all);
});

test('the free list gives every handle once, whatever the order in which they come back', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat()), { maxLength: 200 }), (steps) => {
      const { xen, mapper } = machine();
      const state = new Machine(xen.state);
      const { heap } = state;
      const held: number[] = [];
      for (const giveBack of steps) {
        if (giveBack !== null && held.length > 0)
          giveHandle(heap, mapper.record, held.splice(giveBack % held.length, 1)[0]);
        const handle = takeHandle(state, mapper.record, 0);
        assert.equal(handle < 0, held.length === TEST_HANDLES);
        if (handle < 0) continue;
        assert.ok(handle < TEST_HANDLES && !held.includes(handle));
        held.push(handle);
      }
    }),
    { seed: 21, numRuns: 100 },
  );
});
