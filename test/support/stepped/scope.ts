// A small scope, searched whole: a few actors, each a list of operations as stepped code, over one piece of shared
// memory. Every access of theirs to it is a choice of who goes next.
//
// Two reductions keep the number of runs small without leaving out any outcome.
//
// States. Actors know nothing but what they have read, so their future follows from what each of them has read so far
// and from what is in memory. explore/ runs what follows such a state once.
//
// Conflicts. A step that nobody else can notice (conflicts.ts) has the same effect now as later, so whoever is about to
// make one goes at once, alone: a step on a word that no other actor, nor the observer `always`, touches in a way that
// does not commute, or one under a lock that guards the word. What can be noticed is not known at first: it is learnt
// from all runs, and as soon as something new shows, the search starts again. When it ends without that, it was right:
// suppose that some order, not run, has a step that proves what was learnt wrong, and look at the first. Everything
// before it commutes with the steps that were made at once (a lock that is held keeps others away from what it guards,
// until its holder has moved), so an order that was run has the same steps in it, and would have shown it. Runs are
// finite, so the argument is by induction on what is left of them. Steps that can be noticed are never passed over: all
// their orders are run, and the observer sees every combination of what it reads.
//
// Code that is not stepped (a constructor) may read what nobody else writes; anything more ends the search with an error.

import { type Bounds, type Exploration, exploreAll } from '../../../src/explore/explore.ts';
import type { Scenario } from '../../../src/explore/scenario.ts';
import { type Choose, following, parseSchedule } from '../../../src/machine/schedule.ts';
import { describe, type Steps, watched } from './access.ts';
import { Conflicts } from './conflicts.ts';
import { type Grounds, Histories, NewConflict, ScopeRun, type Telling } from './scope-run.ts';
import { SharedWords } from './shared-words.ts';

/** What takes part in one run. */
export interface Cast {
  /** Each runs as steps; what they share is in the scope's buffers, and nowhere else. */
  readonly actors: readonly Steps[];
  /** Called after every step that others can notice: throws unless all is well. Writes nothing. */
  always?(): void;
  /** Called when all actors have ended, with what they returned. */
  end?(results: readonly unknown[]): void;
}

/** Shared memory in its first state, and who acts on it. */
export interface Scope {
  readonly buffers: readonly ArrayBufferLike[];
  /** Makes the cast of a new run, over memory in its first state. */
  start(): Cast;
}

/** Steps after which a run has failed: it would not end. */
const MOST_STEPS = 50_000;

/** A scope that can be explored. */
export class Explorable {
  readonly #grounds: Grounds;

  constructor(scope: Scope) {
    const words = new SharedWords(scope.buffers);
    this.#grounds = { scope, words, conflicts: new Conflicts(words.count), histories: new Histories() };
  }

  /** Words by which actors can notice each other's steps, as far as the runs have shown. */
  get conflicts(): number {
    return this.#grounds.conflicts.open;
  }

  /** Every step a choice between all that can make one; for replay and shrink. */
  readonly scenario: Scenario = (choose) => this.#perform(choose, false);

  /** Runs every order that can make a difference. */
  async explore(bounds: Bounds = {}): Promise<Exploration> {
    for (;;) {
      const found = await exploreAll((choose) => this.#perform(choose, true), bounds);
      if (!(found.failure?.error instanceof NewConflict)) return found;
    }
  }

  /** The accesses of a run, one a line, as far as the schedule goes. */
  trace(schedule: string): string[] {
    const lines: string[] = [];
    const end = new Error('the end of the schedule');
    const choose = following(parseSchedule(schedule), () => {
      throw end;
    });
    try {
      this.#perform(choose, false, (actor, access, result) => {
        lines.push(`${actor}  ${describe(access, result)}`);
      });
    } catch (error) {
      if (error !== end) lines.push(String(error));
    }
    return lines;
  }

  #perform(choose: Choose, reduced: boolean, tell?: Telling): void {
    const run = new ScopeRun(this.#grounds, reduced, tell);
    const { words } = this.#grounds;
    let ended = false;
    try {
      watched(
        (access) => run.overhear(access),
        () => toItsEnd(run, choose),
      );
      ended = true;
      run.end();
    } finally {
      // What looks at the end may write as it does, and not all of it is stepped.
      if (ended) words.restoreAll();
      else words.restore();
    }
  }
}

function toItsEnd(run: ScopeRun, choose: Choose): void {
  run.begin();
  let steps = 0;
  for (let ready = run.ready(); ready.length > 0; ready = run.ready()) {
    if (steps++ === MOST_STEPS) throw new Error(`the run does not end: ${run.situation()}`);
    run.step(choose(ready, () => run.state()));
  }
}
