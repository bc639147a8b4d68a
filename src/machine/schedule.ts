// Schedules: who ran, choice by choice, as text that can be pasted, and as a decision about the next run.
// Used by machine.ts, which records one, and by explore/, which looks for those that fail.

import { randomFrom } from './random.ts';

/**
 * Decides who goes next. Called with the numbers of those that can, never with none; returns one of them.
 *
 * @param state tells the state in which the choice is made, where two runs in the same state have the same
 *   future; for whoever explores
 */
export type Choose = (ready: readonly number[], state?: () => string) => number;

/** Writes a schedule as words like "0*3": who, and how often in a row. */
export function formatSchedule(choices: readonly number[]): string {
  const words: string[] = [];
  for (let start = 0, end = 0; start < choices.length; start = end) {
    while (end < choices.length && choices[end] === choices[start]) end++;
    words.push(end - start === 1 ? `${choices[start]}` : `${choices[start]}*${end - start}`);
  }
  return words.join(' ');
}

/** Longest schedule that is read, in choices: a slip of the pen must not fill the memory. */
const MOST_CHOICES = 10_000_000;

/** Reads what `formatSchedule` wrote. Throws RangeError, with the word and its place, for anything else. */
export function parseSchedule(text: string): number[] {
  const choices: number[] = [];
  for (const [index, word] of text.split(/\s+/).filter(Boolean).entries()) {
    const [, who, times = '1'] = /^(\d+)(?:\*(\d+))?$/.exec(word) ?? [];
    const wanted = `expected a number, or a number and how often in a row, such as 0*3`;
    if (who === undefined) throw new RangeError(`schedule: word ${index + 1} is "${word}"; ${wanted}`);
    const count = Number(times);
    if (count < 1 || choices.length + count > MOST_CHOICES)
      throw new RangeError(
        `schedule: word ${index + 1} is "${word}"; expected 1 to ${MOST_CHOICES} choices in all`,
      );
    for (let turn = 0; turn < count; turn++) choices.push(Number(who));
  }
  return choices;
}

/** Chooses at random; the seed decides everything. */
export function seeded(seed: number): Choose {
  const random = randomFrom(seed);
  return (ready) => ready[Math.floor(random() * ready.length)];
}

/**
 * Follows `choices` to their end, and then lets `next` choose. Throws RangeError at a choice that is not
 * possible: the schedule is one of another run.
 */
export function following(choices: readonly number[], next: Choose): Choose {
  let made = 0;
  return (ready, state) => {
    if (made === choices.length) return next(ready, state);
    const choice = choices[made++];
    if (!ready.includes(choice))
      throw new RangeError(
        `schedule: choice ${made} is ${choice}, which cannot go there; expected one of ${ready.join(', ')}. ` +
          'Is it the schedule of this run, from its start?',
      );
    return choice;
  };
}
