// Failing schedules get as short as they can be, and always the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSchedule } from '../machine/schedule.ts';
import { exploreRandom } from './explore.ts';
import type { Scenario } from './scenario.ts';
import { shrink } from './shrink.ts';

/**
 * Two that do `steps` steps each. It fails once 1 has done its fourth step after the fifth step of 0 and before the
 * sixth; with `rounds` above 1, once that has happened to both of them in turn.
 */
const window =
  (steps: number, rounds = 1): Scenario =>
  (choose) => {
    const done = [0, 0];
    let met = 0;
    for (;;) {
      const ready = [0, 1].filter((who) => done[who] < steps);
      if (ready.length === 0) return;
      const who = choose(ready);
      const [first, second] = met % 2 === 0 ? [0, 1] : [1, 0];
      if (who === second && done[second] % 10 === 3 && done[first] % 10 === 5) met++;
      done[who]++;
      assert.ok(met < rounds, 'they met');
    }
  };

test('a failing schedule shrinks to a shortest one, from wherever it starts', async () => {
  const seen = new Set<string>();
  for (const seed of [1, 100, 1000]) {
    const failure = await exploreRandom(window(20), seed, 1000);
    assert.ok(failure);
    const shrunk = await shrink(window(20), failure.schedule);
    assert.equal(shrunk.shortest, true);
    assert.ok(shrunk.runs <= 20_000);
    seen.add(shrunk.failure.schedule);
  }
  // 1 need not stop before its fourth step; one change is enough.
  assert.deepEqual([...seen], ['0*5 1*4']);
});

test('the same schedule shrinks to the same one', async () => {
  const failure = await exploreRandom(window(30, 3), 1, 10_000);
  assert.ok(failure);
  const [first, second] = [
    await shrink(window(30, 3), failure.schedule),
    await shrink(window(30, 3), failure.schedule),
  ];
  assert.deepEqual(first, second);
  assert.ok(parseSchedule(first.failure.schedule).length < parseSchedule(failure.schedule).length);
});

test('without runs to spare the schedule is still a failing one, and not called shortest', async () => {
  const failure = await exploreRandom(window(20), 1, 1000);
  assert.ok(failure);
  const shrunk = await shrink(window(20), failure.schedule, 3);
  assert.equal(shrunk.shortest, false);
  assert.equal(shrunk.runs, 3);
});

test('a schedule that does not fail is refused', async () => {
  await assert.rejects(shrink(window(20), '0*20 1*20'), /"0\*20 1\*20" does not fail/);
});
