// The explorer on scenarios small enough to count by hand: two or three that add to a number in two steps, and
// lose an addition when they overlap.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Choose } from '../machine/schedule.ts';
import { exploreAll, exploreRandom, replay } from './explore.ts';
import { explain, type Scenario } from './scenario.ts';

/** `count` that each read a number and, in a second step, write one more. */
function adders(count: number, options: { tellState?: boolean; idle?: number } = {}): Scenario {
  const { tellState = false, idle = 0 } = options;
  return (choose: Choose) => {
    let total = 0;
    const steps = Array.from({ length: count }, () => 0);
    const seen = Array.from({ length: count }, () => 0);
    const state = tellState ? () => `${total} ${steps} ${seen}` : undefined;
    const last = 2 + idle;
    const ready = () => [...steps.keys()].filter((who) => steps[who] < last);
    for (let able = ready(); able.length > 0; able = ready()) {
      const who = choose(able, state);
      if (steps[who] === idle) seen[who] = total;
      if (steps[who] === idle + 1) total = seen[who] + 1;
      steps[who]++;
    }
    assert.equal(total, count, 'an addition is lost');
  };
}

/** The same without the mistake: both steps are one. */
const careful =
  (count: number): Scenario =>
  (choose) => {
    let total = 0;
    const left = new Set(Array.from({ length: count }, (_, who) => who));
    while (left.size > 0) {
      left.delete(choose([...left]));
      total++;
    }
    assert.equal(total, count);
  };

/** Two that do `steps` steps each, and nothing that matters. */
const idlers =
  (steps: number, tellState: boolean): Scenario =>
  (choose) => {
    const left = [steps, steps];
    const state = tellState ? () => `${left}` : undefined;
    while (left[0] + left[1] > 0)
      left[
        choose(
          left.flatMap((some, who) => (some > 0 ? [who] : [])),
          state,
        )
      ]--;
  };

test('every order is run once: as many as there are', async () => {
  const all = await exploreAll(careful(4));
  assert.deepEqual(all, { failure: undefined, runs: 24, orders: 24, states: 0, complete: true });
  assert.equal((await exploreAll(idlers(3, false))).runs, 20);
});

test('a state that was seen before is not followed again, and its orders are counted all the same', async () => {
  const plain = await exploreAll(idlers(5, false));
  const told = await exploreAll(idlers(5, true));
  assert.equal(told.orders, plain.orders);
  assert.equal(plain.orders, 252);
  // States with a choice: both have steps left, 5 x 5.
  assert.equal(told.states, 25);
  assert.ok(told.runs < 30, `${told.runs} runs`);
});

test('the only failing order is found, and its schedule repeats it', async () => {
  for (const tellState of [false, true]) {
    const { failure, complete } = await exploreAll(adders(2, { tellState }));
    assert.ok(failure);
    assert.equal(complete, false);
    assert.equal(failure.schedule, '0 1*2 0');
    assert.match(explain(failure), /an addition is lost[\s\S]*replay\(scenario, '0 1\*2 0'\)/);
    assert.equal((await replay(adders(2), failure.schedule))?.schedule, failure.schedule);
    assert.equal(await replay(adders(2), '0*2 1*2'), undefined);
  }
});

test('a schedule that ends early goes on with whoever went last', async () => {
  assert.equal((await replay(adders(2), '0 1'))?.schedule, '0 1*2 0');
  assert.equal(await replay(adders(2), ''), undefined);
});

for (const [schedule, message] of [
  ['0*3', /choice 3 is 0, which cannot go there; expected one of 1/],
  ['2', /choice 1 is 2, which cannot go there; expected one of 0, 1/],
  ['0*2 1*2 0', /the run ended after 4 of 5 choices/],
  ['0 one', /word 2 is "one"; expected a number/],
  ['0*0', /word 1 is "0\*0"; expected 1 to/],
  ['0*99999999999', /expected 1 to/],
  ['-1', /word 1 is "-1"/],
] as const) {
  test(`schedule "${schedule}" is refused`, async () => {
    await assert.rejects(replay(adders(2), schedule), (error) => {
      assert.ok(error instanceof RangeError);
      assert.match(error.message, message);
      return true;
    });
  });
}

test('bounds cut the search off, and it says so', async () => {
  const few = await exploreAll(idlers(4, false), { switches: 1 });
  // 0*4 1*4 and 1*4 0*4.
  assert.deepEqual([few.orders, few.complete], [2, false]);
  assert.equal((await exploreAll(idlers(4, false), { switches: 2 })).orders, 2 + 3 + 3);
  assert.equal((await exploreAll(idlers(4, true), { switches: 2 })).orders, 2 + 3 + 3);
  const short = await exploreAll(idlers(4, false), { runs: 5 });
  assert.deepEqual([short.runs, short.complete], [5, false]);
  assert.deepEqual([(await exploreAll(idlers(4, false), { steps: 7 })).orders], [0]);
  assert.equal((await exploreAll(idlers(2, false), { steps: 4 })).complete, true);
});

test('seeds find the failure, and the same seed finds it again', async () => {
  const failure = await exploreRandom(adders(2, { idle: 5 }), 1, 1000);
  assert.ok(failure?.seed !== undefined);
  assert.deepEqual(await exploreRandom(adders(2, { idle: 5 }), failure.seed, 1), failure);
  assert.match(explain(failure), /with seed \d+/);
  assert.equal(await exploreRandom(careful(3), 1, 100), undefined);
});

test('a scenario that decides something by itself is refused', async () => {
  let runs = 0;
  const moody: Scenario = (choose) => {
    choose([0, 1]);
    choose(runs++ === 0 ? [0, 1] : [0, 1, 2]);
  };
  await assert.rejects(exploreAll(moody), /not deterministic: at fork 2 .* 0, 1, and .* 0, 1, 2/);
});

test('an asynchronous scenario is explored like any other', async () => {
  const scenario: Scenario = async (choose) => {
    await Promise.resolve();
    adders(2)(choose);
  };
  assert.equal((await exploreAll(scenario)).failure?.schedule, '0 1*2 0');
});
