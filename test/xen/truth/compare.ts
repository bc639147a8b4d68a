// Plays the same sequences on two Xens and reports the first difference, with a sequence that was made as short as
// it gets. It knows of no Xen: a player may be the embedded one, a real one in another machine, or one with a mistake
// that was planted. After play.ts.

import type { Sequence, Step } from './script.ts';

/** A Xen on which sequences are played, each on a world of its own. One call may be expensive. */
export interface XenPlayer {
  readonly name: string;
  /** What play.ts sees of each sequence. */
  play(sequences: readonly Sequence[]): Promise<readonly (readonly string[])[]>;
}

/** Where two players part ways. */
export interface Difference {
  readonly sequence: Sequence;
  /** The first step that they do not see alike; as many as there are steps for what is seen at the end. */
  readonly at: number;
  readonly seen: readonly [first: string, second: string];
}

/** The differences of two players, the first in each sequence that has one. */
export async function differences(
  first: XenPlayer,
  second: XenPlayer,
  sequences: readonly Sequence[],
): Promise<(Difference | undefined)[]> {
  const [left, right] = [await first.play(sequences), await second.play(sequences)];
  return sequences.map((sequence, index) => {
    const at = left[index].findIndex((line, step) => line !== right[index][step]);
    if (at < 0) return undefined;
    return { sequence, at, seen: [left[index][at], right[index][at] ?? 'nothing'] as const };
  });
}

/**
 * Leaves out whatever is not needed for a difference of the same kind: steps first, then elements of batches. All
 * that is tried in a round is played in one go.
 */
export async function shrink(first: XenPlayer, second: XenPlayer, found: Difference): Promise<Difference> {
  let best = cut(found);
  for (;;) {
    const candidates = shorter(best.sequence);
    const outcomes = await differences(first, second, candidates);
    const better = outcomes.find((outcome) => outcome !== undefined && kindOf(outcome) === kindOf(found));
    if (better === undefined) return best;
    best = cut(better);
  }
}

/** The same difference without the steps after it. */
function cut(difference: Difference): Difference {
  return { ...difference, sequence: difference.sequence.slice(0, difference.at + 1) };
}

function kindOf({ sequence, at }: Difference): string {
  return sequence[at]?.do ?? 'end';
}

/** What is shorter than a sequence by some of its steps or by elements of a step, the shortest first. */
function shorter(sequence: Sequence): Sequence[] {
  const found: Sequence[] = [];
  for (let size = sequence.length >> 1; size >= 1; size >>= 1)
    for (let at = 0; at < sequence.length; at += size)
      found.push([...sequence.slice(0, at), ...sequence.slice(at + size)]);
  for (const [at, step] of sequence.entries())
    for (const less of fewerElements(step)) found.push(sequence.with(at, less));
  return found.filter((candidate) => candidate.length > 0);
}

function fewerElements(step: Step): Step[] {
  switch (step.do) {
    case 'map':
      return parts(step.elements).map((elements) => ({ ...step, elements }));
    case 'unmap':
      return parts(step.elements).map((elements) => ({ ...step, elements }));
    case 'copy':
      return parts(step.elements).map((elements) => ({ ...step, elements }));
    case 'swap':
      return parts(step.pairs).map((pairs) => ({ ...step, pairs }));
    default:
      return [];
  }
}

/** A batch without one half or the other, or without one of a few elements. */
function parts<T>(elements: readonly T[]): (readonly T[])[] {
  const half = elements.length >> 1;
  if (half === 0) return [];
  const halves = [elements.slice(half), elements.slice(0, half)];
  if (elements.length > 8) return halves;
  return [...halves, ...elements.map((_, index) => elements.toSpliced(index, 1))];
}

/** A difference in words, with the sequence that shows it, as JSON to be played again. */
export function describe(names: readonly [string, string], { sequence, at, seen }: Difference): string {
  const steps = sequence.map((step, index) => `${index === at ? '>' : ' '} ${JSON.stringify(step)}`);
  return [
    `the ${at === sequence.length ? 'end of the sequence' : `step marked ">"`} is not seen alike:`,
    ...names.map((name, index) => `  ${name}: ${seen[index]}`),
    ...steps,
  ].join('\n');
}

/** The part of a line that tells what an operation answered, for counts of what was covered. */
export function statusesIn(line: string): string[] {
  return [...line.split(' | ')[0].matchAll(/GNTST_\w+/g)].map(([name]) => name);
}
