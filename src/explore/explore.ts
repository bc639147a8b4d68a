// Runs a scenario in many orders: all of them, some at random, or one again. Explorers keep nothing of a run but its
// choices, and go back by running from the start, so a scenario needs neither snapshots nor undo.

import { following, parseSchedule, seeded } from '../machine/schedule.ts';
import { ABANDONED, type Failure, failureOf, type Run, run, type Scenario, steadily } from './scenario.ts';

/** Where a search ends early. Without bounds it ends when every order was run. */
export interface Bounds {
  /** Runs from the start. */
  readonly runs?: number;
  /** Choices in one run; longer ones are cut off there. */
  readonly steps?: number;
  /** Changes in one run from one that goes to another. */
  readonly switches?: number;
}

/** What a search has found. */
export interface Exploration {
  /** The first failure, at which the search ended. */
  readonly failure: Failure | undefined;
  /** Runs from the start, whole or cut off where the rest was known. */
  readonly runs: number;
  /** States in which there was more than one choice; 0 when the scenario does not tell states. */
  readonly states: number;
  /** Different orders that these runs stand for; a floating-point number, as it soon passes 2^53. */
  readonly orders: number;
  /** Whether no bound cut anything off. */
  readonly complete: boolean;
}

/**
 * Runs a scenario by a schedule. Where the schedule ends before the run does, whoever went last goes on.
 *
 * @returns the failure, or undefined when the run succeeded
 * @throws RangeError when the schedule is not one of this scenario
 */
export async function replay(scenario: Scenario, schedule: string): Promise<Failure | undefined> {
  const choices = parseSchedule(schedule);
  let refused: unknown;
  const follow = following(choices, steadily(choices.at(-1)));
  const done = await run(scenario, (ready, state) => {
    try {
      return follow(ready, state);
    } catch (error) {
      refused = error;
      throw error;
    }
  });
  if (refused !== undefined) throw refused;
  if (!done.failed && done.choices.length < choices.length)
    throw new RangeError(
      `schedule: the run ended after ${done.choices.length} of ${choices.length} choices; is it the schedule of this run?`,
    );
  return done.failed ? failureOf(done) : undefined;
}

/** Runs a scenario `runs` times with choices at random: the first time by `seed`, then by the seeds after it. */
export async function exploreRandom(
  scenario: Scenario,
  seed: number,
  runs: number,
): Promise<Failure | undefined> {
  for (let turn = 0; turn < runs; turn++) {
    const done = await run(scenario, seeded(seed + turn));
    if (done.failed) return failureOf(done, seed + turn);
  }
  return undefined;
}

/**
 * Runs a scenario in every order, depth first, until one fails. Where a scenario tells its states, what follows
 * a state is run once.
 *
 * @throws Error when the scenario does not do the same for the same choices
 */
export async function exploreAll(scenario: Scenario, bounds: Bounds = {}): Promise<Exploration> {
  const search = new Search(bounds);
  let done: Run;
  do {
    done = await run(scenario, search.start());
    if (search.confused !== undefined) throw search.confused;
    search.end(done);
  } while (!done.failed && search.runs < (bounds.runs ?? Infinity) && search.advance());
  const complete = !done.failed && !search.cut && search.exhausted;
  const { runs, states, orders } = search;
  return { failure: done.failed ? failureOf(done) : undefined, runs, states, orders, complete };
}

/** A point of the current run at which more than one could go. */
interface Fork {
  readonly ready: readonly number[];
  /** What is to be tried, and which of them is being tried. */
  readonly options: readonly number[];
  taken: number;
  /** The state, if it was told. */
  readonly state: string | undefined;
  /** Orders found so far from here to the end. */
  orders: number;
}

/** The tree of choices, of which only the branch of the current run is kept. */
class Search {
  runs = 0;
  orders = 0;
  cut = false;
  exhausted = false;
  confused: Error | undefined;
  readonly #bounds: Bounds;
  readonly #branch: Fork[] = [];
  /** States that were left behind, with the number of orders from there on. */
  readonly #known = new Map<string, number>();
  // Of the current run: forks and choices so far, who went last, how often that changed.
  #depth = 0;
  #steps = 0;
  #last = -1;
  #switches = 0;
  /** Orders behind the point where the current run was abandoned. */
  #behind = 1;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  get states(): number {
    return this.#known.size;
  }

  /** Choices for the next run: those of the branch, then the first option wherever a new fork comes. */
  start() {
    this.#depth = this.#steps = this.#switches = 0;
    this.#behind = 1;
    this.#last = -1;
    return (ready: readonly number[], state?: () => string) => {
      const options = this.#options(ready);
      if (options.length < ready.length) this.cut = true;
      if (options.length === 0 || this.#steps === this.#bounds.steps) {
        this.cut = true;
        throw this.#abandon(0);
      }
      const choice = ready.length === 1 ? ready[0] : this.#choice(ready, options, state);
      if (this.#last !== -1 && choice !== this.#last) this.#switches++;
      this.#last = choice;
      this.#steps++;
      return choice;
    };
  }

  /** Counts a run that has ended. */
  end({ failed }: Run): void {
    this.runs++;
    if (failed) return;
    const last = this.#branch.at(-1);
    if (last === undefined) this.orders += this.#behind;
    else last.orders += this.#behind;
  }

  /** Goes on to the next branch. Returns false when there is none. */
  advance(): boolean {
    for (let fork = this.#branch.at(-1); fork !== undefined; fork = this.#branch.at(-1)) {
      if (++fork.taken < fork.options.length) return true;
      this.#branch.pop();
      if (fork.state !== undefined) this.#known.set(fork.state, fork.orders);
      const before = this.#branch.at(-1);
      if (before === undefined) this.orders += fork.orders;
      else before.orders += fork.orders;
    }
    this.exhausted = true;
    return false;
  }

  #choice(ready: readonly number[], options: readonly number[], state?: () => string): number {
    if (this.#depth === this.#branch.length) this.#branch.push(this.#fork(ready, options, state));
    const fork = this.#branch[this.#depth++];
    if (!sameNumbers(fork.ready, ready)) throw this.#confuse(fork, ready);
    return fork.options[fork.taken];
  }

  #fork(ready: readonly number[], options: readonly number[], state?: () => string): Fork {
    const key = state === undefined ? undefined : this.#bounded() + state();
    const known = key === undefined ? undefined : this.#known.get(key);
    if (known !== undefined) throw this.#abandon(known);
    return { ready: [...ready], options, taken: 0, state: key, orders: 0 };
  }

  /** Whoever went last comes first: orders with few changes are run before those with many. */
  #options(ready: readonly number[]): readonly number[] {
    if (this.#last === -1) return ready;
    const isReady = ready.includes(this.#last);
    if (this.#switches === this.#bounds.switches) return isReady ? [this.#last] : [];
    return isReady ? [this.#last, ...ready.filter((each) => each !== this.#last)] : ready;
  }

  /** Under bounds, what may still follow a state depends on how the run came there. */
  #bounded(): string {
    const { switches, steps } = this.#bounds;
    return `${switches === undefined ? '' : `${this.#last},${this.#switches};`}${steps === undefined ? '' : `${this.#steps};`}`;
  }

  #abandon(behind: number): Error {
    this.#behind = behind;
    return ABANDONED;
  }

  #confuse(fork: Fork, ready: readonly number[]): Error {
    this.confused = new Error(
      `the scenario is not deterministic: at fork ${this.#depth} those that could go were ` +
        `${fork.ready.join(', ')}, and after the same choices they are ${ready.join(', ')}`,
    );
    return this.confused;
  }
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((each, index) => each === b[index]);
}
