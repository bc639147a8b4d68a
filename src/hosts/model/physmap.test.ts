// A domain's address space: what stands at a frame number, and the compare-and-swap that alone changes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  P2M_FOREIGN,
  P2M_GRANT_READONLY,
  P2M_GRANT_WRITABLE,
  P2M_NONE,
  P2M_RAM,
  p2mEntry,
  p2mFrame,
  p2mType,
  Physmap,
  PHYSMAP_FRAMES,
} from './physmap.ts';
import { createXenState, Machine } from './state.ts';

const PAGE = 4096;

function machine(heapPages = 32) {
  const state = new Machine(createXenState(16 * PAGE, heapPages * PAGE, false));
  const before = state.pagesFree;
  return { state, before, physmap: new Physmap(state, Physmap.create(state)) };
}

test('an entry keeps the largest frame number and each type', () => {
  const largest = 2 ** 29 - 1;
  for (const type of [P2M_RAM, P2M_GRANT_WRITABLE, P2M_GRANT_READONLY, P2M_FOREIGN]) {
    const entry = p2mEntry(largest, type);
    assert.deepEqual([p2mFrame(entry), p2mType(entry)], [largest, type]);
  }
});

test('an empty address space has nothing anywhere, nor has any outside', () => {
  const { physmap } = machine();
  for (const gfn of [0, 1, 1023, 1024, PHYSMAP_FRAMES - 1, PHYSMAP_FRAMES, -1, 2 ** 52, Number.NaN])
    assert.equal(physmap.get(gfn), P2M_NONE);
  assert.deepEqual([...physmap.entries()], []);
});

test('what is put at the first, the last and a middle frame number stands there and nowhere else', () => {
  const { physmap } = machine();
  const gfns = [0, 1023, 1024, PHYSMAP_FRAMES - 1];
  for (const [index, gfn] of gfns.entries()) assert.ok(physmap.add(gfn, index + 1, P2M_RAM));
  assert.deepEqual(
    [...physmap.entries()],
    gfns.map((gfn, index) => ({ gfn, frame: index + 1, type: P2M_RAM })),
  );
  physmap.remove(1024);
  assert.equal(physmap.get(1024), P2M_NONE);
  assert.equal(p2mFrame(physmap.get(1023)), 2);
});

test('a place changes only for whoever knows what stands there', () => {
  const { physmap } = machine();
  assert.ok(physmap.add(7, 3, P2M_RAM));
  assert.ok(!physmap.add(7, 4, P2M_RAM), 'the place is taken');
  const wrong = [P2M_NONE, p2mEntry(3, P2M_GRANT_READONLY), p2mEntry(4, P2M_RAM)];
  for (const before of wrong) assert.ok(!physmap.replace(7, before, p2mEntry(9, P2M_RAM)));
  assert.equal(physmap.get(7), p2mEntry(3, P2M_RAM));
  assert.ok(physmap.replace(7, p2mEntry(3, P2M_RAM), p2mEntry(9, P2M_GRANT_WRITABLE)));
  assert.equal(physmap.get(7), p2mEntry(9, P2M_GRANT_WRITABLE));
});

for (const gfn of [-1, PHYSMAP_FRAMES, 2 ** 40, Number.NaN, Number.POSITIVE_INFINITY]) {
  test(`nothing can be put at frame number ${gfn}, and no table is made for it`, () => {
    const { state, physmap } = machine();
    const before = state.pagesFree;
    assert.ok(!physmap.add(gfn, 1, P2M_RAM));
    assert.equal(state.pagesFree, before);
  });
}

test('with Xen’s heap used up a frame number whose table is missing is refused, one with a table is not', () => {
  const { state, physmap } = machine();
  assert.ok(physmap.add(0, 1, P2M_RAM));
  while (state.takePages(1) !== 0);
  assert.ok(!physmap.add(5000, 1, P2M_RAM));
  assert.ok(!physmap.fill(1000, 1, 100));
  assert.ok(physmap.add(1023, 2, P2M_RAM) === false, 'filled already');
  assert.ok(physmap.replace(1023, physmap.get(1023), p2mEntry(2, P2M_RAM)));
});

test('all tables are given back, one a turn', () => {
  const { state, before, physmap } = machine();
  for (const gfn of [0, 5000, 10_000, PHYSMAP_FRAMES - 1]) physmap.add(gfn, 1, P2M_RAM);
  let turns = 0;
  for (const _ of physmap.release()) turns++;
  assert.equal(turns, 4);
  assert.equal(state.pagesFree, before);
});

test('an address space cannot be made when Xen’s heap is used up', () => {
  const { state } = machine();
  while (state.takePages(1) !== 0);
  assert.equal(Physmap.create(state), 0);
});
