// What can be explored: anything that runs from the start whenever it is asked to, and asks who goes next. Nothing
// else may decide what happens, so the choices are the run. After machine/schedule.ts, before explore.ts.

import { type Choose, formatSchedule } from '../machine/schedule.ts';

/**
 * Runs once, from a state that it makes afresh, and throws what is wrong. `choose` is called at each point where
 * more than one order is possible (or only one: that choice is written down too).
 */
export type Scenario = (choose: Choose) => void | Promise<void>;

/** A run that went wrong. */
export interface Failure {
  /** The choices of the run up to where it failed; `replay` repeats it. */
  readonly schedule: string;
  /** The seed that led there, if one did. */
  readonly seed?: number;
  readonly error: unknown;
}

/** What became of one run. */
export interface Run {
  readonly choices: readonly number[];
  readonly failed: boolean;
  /** Whether the explorer had seen enough of it before its end. */
  readonly abandoned: boolean;
  readonly error?: unknown;
}

/** Thrown by a `Choose` of the explorer, through the scenario, to end a run that has nothing new to show. */
export const ABANDONED = new Error('the explorer has seen enough of this run: let this error pass');

/** Runs a scenario once. Never rejects: what the scenario throws is the outcome. */
export async function run(scenario: Scenario, choose: Choose): Promise<Run> {
  const choices: number[] = [];
  try {
    const running = scenario((ready, state) => {
      const choice = choose(ready, state);
      choices.push(choice);
      return choice;
    });
    // Most scenarios are synchronous, and explorers run millions of them.
    if (running !== undefined) await running;
    return { choices, failed: false, abandoned: false };
  } catch (error) {
    const abandoned = error === ABANDONED;
    return { choices, failed: !abandoned, abandoned, error };
  }
}

/** The failure that a failed run is. */
export function failureOf({ choices, error }: Run, seed?: number): Failure {
  return { schedule: formatSchedule(choices), error, ...(seed === undefined ? {} : { seed }) };
}

/** Says for people how a run failed and how to see it again. */
export function explain({ schedule, seed, error }: Failure): string {
  const from = seed === undefined ? '' : ` with seed ${seed}`;
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `failed${from}: ${what}\n  to see it again: replay(scenario, '${schedule}')`;
}

/** How often a schedule passes from one to another. */
export function switches(choices: readonly number[]): number {
  let count = 0;
  for (let index = 1; index < choices.length; index++) if (choices[index] !== choices[index - 1]) count++;
  return count;
}

/** Goes on with whoever went last, at first with `last`; when that one cannot, with the first that can. */
export function steadily(last = -1): Choose {
  let current = last;
  return (ready) => {
    if (!ready.includes(current)) current = ready[0];
    return current;
  };
}
