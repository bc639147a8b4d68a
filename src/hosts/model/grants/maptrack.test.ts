// Handles: a domain's budget of mappings, and the free list behind it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GNTST_BAD_HANDLE, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, TEST_HANDLES } from '../domains.test.helper.ts';
import { Machine } from '../state.ts';
import { giveHandle, takeHandle } from './maptrack.ts';
import { freeHandles, grantState, recount } from './recount.test.helper.ts';

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

/** A domain with several processors, and its handles without anything mapped. */
function processors(vcpus: number, maxMaptrackFrames: number) {
  const xen = bootTestMachine();
  const domain = addDomain(xen, 1, { vcpus, maxMaptrackFrames });
  const state = new Machine(xen.state);
  const { heap } = state;
  return {
    domain,
    take: (vcpu: number) => takeHandle(state, domain.record, vcpu),
    give: (handle: number) => giveHandle(heap, domain.record, handle),
  };
}

test('H21: a processor that has no handles takes those of another, one of which ends its own list', () => {
  const { domain, take, give } = processors(2, 1);
  const first = Array.from({ length: 100 }, () => take(0));
  const stolen = Array.from({ length: 256 - 100 - 2 }, () => take(1));
  assert.ok(Math.min(...first, ...stolen) >= 0);
  assert.equal(new Set([...first, ...stolen]).size, first.length + stolen.length);
  assert.deepEqual([take(0), take(1)], [-1, -1]);
  // Handles go back to the processor that took them last: the other one has to steal them again.
  for (const handle of stolen) give(handle);
  const again = Array.from({ length: stolen.length }, () => take(0));
  assert.equal(
    new Set([...first, ...again].filter((handle) => handle >= 0)).size,
    first.length + again.length,
  );
  for (const handle of [...first, ...again]) give(handle);
  assert.deepEqual(
    freeHandles(domain).map(({ length }) => length),
    [255, 1],
  );
});

test('H21: a processor takes frames of its own before it steals, and steals only when there are no more', () => {
  const { domain, take } = processors(2, 2);
  assert.deepEqual([take(0), take(1)], [0, 256]);
  assert.deepEqual(
    freeHandles(domain).map(({ length }) => length),
    [255, 255],
  );
  for (let count = 1; count < 255; count++) assert.ok(take(1) >= 256);
  assert.equal(take(1), 1);
});

test('H21: with one handle left for two processors each keeps the end of its list, and neither gets it', () => {
  const { domain, take } = processors(3, 1);
  for (let count = 0; count < 254; count++) assert.ok(take(0) >= 0);
  // The second processor takes the last but one to end its list with; nothing is left for it to use.
  assert.deepEqual([take(1), take(2), take(0), take(1)], [-1, -1, -1, -1]);
  assert.deepEqual(
    freeHandles(domain).map(({ length }) => length),
    [1, 1, 0],
  );
});

const step = fc.record({
  vcpu: fc.nat(2),
  take: fc.boolean(),
  many: fc.integer({ min: 1, max: 90 }),
  which: fc.nat(),
});

for (const vcpus of [2, 3]) {
  test(`H21: ${vcpus} processors that take and give in any order never get one handle twice, nor lose one`, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { domain, take, give } = processors(vcpus, 2);
        const held = new Set<number>();
        for (const { vcpu, take: takes, many, which } of steps) {
          for (let count = 0; count < many; count++) {
            if (takes) {
              const handle = take(vcpu % vcpus);
              assert.ok(!held.has(handle), `handle ${handle} is given twice`);
              if (handle >= 0) held.add(handle);
              // Each processor keeps one handle at most that it cannot use.
              else assert.ok(held.size >= 2 * 256 - vcpus);
            } else if (held.size > 0) {
              const handle = [...held][which % held.size];
              held.delete(handle);
              give(handle);
            }
          }
          const all = [...held, ...freeHandles(domain).flat()].sort((a, b) => a - b);
          assert.deepEqual(
            all,
            Array.from({ length: domain.record.maptrackLimit }, (_, handle) => handle),
          );
        }
      }),
      { seed: 228, numRuns: 60 },
    );
  });
}
