// Units of memory: each has one holder at most, runs are found wherever they are, and what comes back can be had again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PagePool, poolWords } from './page-pool.ts';

/** Words before and after a pool, which it must not touch. */
const MARGIN = 2;
const CANARY = 0x5a5a_5a5a;

const unitsFrom = (first: number, count: number) => Array.from({ length: count }, (_, at) => first + at);

function poolOf(count: number) {
  const heap = new Int32Array(poolWords(count) + 2 * MARGIN).fill(CANARY, 0, MARGIN);
  heap.fill(CANARY, MARGIN + poolWords(count));
  return { heap, pool: PagePool.initialise(heap, MARGIN, count) };
}

for (const count of [1, 31, 32, 33, 64, 65, 1000]) {
  test(`a pool of ${count} units gives each of them once, and then none`, () => {
    const { heap, pool } = poolOf(count);
    const taken = Array.from({ length: count }, () => pool.take(1));
    assert.deepEqual(
      taken.toSorted((a, b) => a - b),
      Array.from({ length: count }, (_, unit) => unit),
    );
    assert.equal(pool.take(1), -1);
    assert.equal(pool.free, 0);
    for (const unit of taken) pool.give(unit, 1);
    assert.equal(pool.take(count), 0);
    assert.deepEqual(
      [...heap.subarray(0, MARGIN), ...heap.subarray(-MARGIN)],
      Array(2 * MARGIN).fill(CANARY),
    );
  });
}

test('a run longer than what is left, or than any hole, is refused and nothing is taken', () => {
  const { pool } = poolOf(40);
  assert.equal(pool.take(41), -1);
  assert.equal(pool.take(40), 0);
  // Two holes of two: 4 units are free, 3 in a row are not.
  pool.give(10, 2);
  pool.give(31, 2);
  assert.equal(pool.take(3), -1);
  assert.equal(pool.free, 4);
  assert.deepEqual([pool.take(2), pool.take(2)].toSorted(), [10, 31]);
});

test('a run before the place of the last search is found', () => {
  const { pool } = poolOf(100);
  assert.equal(pool.take(90), 0);
  pool.give(0, 20);
  assert.equal(pool.take(20), 0);
  assert.equal(pool.take(10), 90);
});

test('what nobody has taken cannot be given back', () => {
  const { pool } = poolOf(10);
  const unit = pool.take(1);
  pool.give(unit, 1);
  assert.throws(() => pool.give(unit, 1), /what is given back has been taken/);
});

test('runs of any length, taken and given back in any order, never overlap, and the count of free units is right', () => {
  const steps = fc.array(fc.oneof(fc.record({ take: fc.integer({ min: 1, max: 40 }) }), fc.nat(30)), {
    maxLength: 120,
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), steps, (count, operations) => {
      const { pool } = poolOf(count);
      const holder: number[] = Array(count).fill(0);
      const runs: [first: number, length: number][] = [];
      for (const [id, step] of operations.entries()) {
        if (typeof step === 'number') {
          if (runs.length === 0) continue;
          const [[first, length]] = runs.splice(step % runs.length, 1);
          pool.give(first, length);
          holder.fill(0, first, first + length);
        } else {
          const first = pool.take(step.take);
          const isFree = (unit: number) => holder[unit] === 0;
          const isThere = holder.some((_, unit) => unitsFrom(unit, step.take).every(isFree));
          assert.equal(first >= 0, isThere);
          if (first < 0) continue;
          assert.ok(unitsFrom(first, step.take).every(isFree));
          holder.fill(id + 1, first, first + step.take);
          runs.push([first, step.take]);
        }
        assert.equal(pool.free, holder.filter((each) => each === 0).length);
      }
    }),
    { seed: 31, numRuns: 150 },
  );
});
