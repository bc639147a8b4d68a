// Makes a failing schedule as short as it gets: first by leaving things out, which works at any length, then by
// running every schedule that would be shorter still, as far as the number of runs allows.

import { type Choose, parseSchedule } from '../machine/schedule.ts';
import { exploreAll, replay } from './explore.ts';
import { type Failure, failureOf, type Run, run, type Scenario, steadily, switches } from './scenario.ts';

/** A failure that was made short. */
export interface Shrunk {
  readonly failure: Failure;
  /** Whether every shorter schedule was run: this is a shortest one. */
  readonly shortest: boolean;
  readonly runs: number;
}

const DEFAULT_RUNS = 20_000;

/**
 * Finds a short schedule that fails: with the fewest changes from one to another, and of those one with the fewest
 * choices. The same schedule always shrinks to the same one.
 *
 * @param schedule one that fails
 * @param most runs that this may take
 * @throws RangeError when `schedule` does not fail
 */
export async function shrink(scenario: Scenario, schedule: string, most = DEFAULT_RUNS): Promise<Shrunk> {
  const failure = await replay(scenario, schedule);
  if (failure === undefined) throw new RangeError(`schedule "${schedule}" does not fail: nothing to shrink`);
  const budget = { left: most };
  const reduced = await reduce(scenario, failure, budget);
  const { failure: best, shortest } = await searchBelow(scenario, reduced, budget);
  return { failure: best, shortest, runs: most - budget.left };
}

interface Budget {
  left: number;
}

/** Leaves out parts of a failing schedule, and puts parts of it in another order, until nothing helps any more. */
async function reduce(scenario: Scenario, failure: Failure, budget: Budget): Promise<Failure> {
  let best = failure;
  for (let improved = true; improved; ) {
    improved = false;
    const choices = parseSchedule(best.schedule);
    for (const candidate of candidates(choices)) {
      if (budget.left === 0) return best;
      budget.left--;
      const done: Run = await run(scenario, loosely(candidate));
      if (!done.failed || !isShorter(done.choices, choices)) continue;
      best = failureOf(done);
      improved = true;
      break;
    }
  }
  return best;
}

/** Runs every schedule with fewer changes, then those with as many and fewer choices. */
async function searchBelow(scenario: Scenario, failure: Failure, budget: Budget) {
  let best = failure;
  for (let allowed = 0; allowed <= switches(parseSchedule(best.schedule)); allowed++) {
    for (;;) {
      const found = parseSchedule(best.schedule);
      const steps = switches(found) > allowed ? {} : { steps: found.length - 1 };
      if (budget.left <= 0) return { failure: best, shortest: false };
      const search = await exploreAll(scenario, { switches: allowed, runs: budget.left, ...steps });
      budget.left -= search.runs;
      if (search.failure === undefined) break;
      best = search.failure;
    }
  }
  return { failure: best, shortest: budget.left > 0 };
}

function isShorter(a: readonly number[], b: readonly number[]): boolean {
  const fewer = switches(a) - switches(b);
  return fewer < 0 || (fewer === 0 && a.length < b.length);
}

/** Shorter relatives of a schedule, the most promising first. */
function* candidates(choices: readonly number[]): Generator<readonly number[]> {
  const turns = turnsOf(choices);
  // Two turns change places: the neighbours of each are one turn then.
  for (let index = 1; index < turns.length; index++)
    yield [...turns.slice(0, index - 1), turns[index], turns[index - 1], ...turns.slice(index + 1)].flat();
  for (let size = turns.length >> 1; size >= 1; size >>= 1)
    for (let at = 0; at < turns.length; at += size)
      yield [...turns.slice(0, at), ...turns.slice(at + size)].flat();
  for (let size = choices.length >> 1; size >= 1; size >>= 1)
    for (let at = 0; at < choices.length; at += size)
      yield [...choices.slice(0, at), ...choices.slice(at + size)];
}

/** A schedule cut where it passes from one to another. */
function turnsOf(choices: readonly number[]): number[][] {
  const turns: number[][] = [];
  for (const [index, choice] of choices.entries()) {
    if (choice === choices[index - 1]) turns.at(-1)!.push(choice);
    else turns.push([choice]);
  }
  return turns;
}

/** Follows a schedule where that is possible, and leaves out what is not: parts of it are missing. */
function loosely(choices: readonly number[]): Choose {
  let next = 0;
  const on = steadily();
  return (ready) => {
    while (next < choices.length && !ready.includes(choices[next])) next++;
    return on(next < choices.length ? [choices[next++]] : ready);
  };
}
