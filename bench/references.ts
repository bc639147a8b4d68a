// What taking and giving back grant references costs in a table that has long been in use: nine tenths of it
// used, and what is free lies in runs of all lengths.

import { GRANT_ENTRIES_PER_FRAME_V1 } from '../src/abi/grant.ts';
import { References } from '../src/dma/references.ts';
import { randomFrom } from '../src/machine/random.ts';
import { type Candidate, type Figure, measure } from './figures.ts';

const FRAMES = 64;
const ENTRIES = FRAMES * GRANT_ENTRIES_PER_FRAME_V1;
const USED = 0.9 * ENTRIES;
const LONGEST = 32;
/** Runs held at once by the one who is measured, as by a busy queue; a power of two. */
const IN_FLIGHT = 32;
const TIMES = 200_000;
const ROUNDS = 9;
const SEED = 1;

/** A table that is as long as it may become, and grants nothing. */
function fullGrown() {
  return new References({
    entries: ENTRIES,
    maxEntries: ENTRIES,
    grantsParts: false,
    grow: () => false,
    grant: () => undefined,
    grantPart: () => undefined,
    revoke: () => 0,
    isFree: () => true,
  });
}

/** A table 90 % used by runs of 1 to 32, after as many have come and gone at random as it has entries. */
function agedTable(random: () => number): References {
  const references = fullGrown();
  const runs: { first: number; count: number }[] = [];
  const fill = () => {
    while (references.live < USED) {
      const count = 1 + Math.floor(random() * LONGEST);
      const first = references.allocate(count);
      if (first < 0) return;
      runs.push({ first, count });
    }
  };
  fill();
  for (let turn = 0; turn < ENTRIES; turn++) {
    const at = Math.floor(random() * runs.length);
    const [{ first, count }] = runs.splice(at, 1);
    references.release(first, count);
    fill();
  }
  return references;
}

function perTurn(turn: (index: number) => void): number {
  const start = process.hrtime.bigint();
  for (let index = 0; index < TIMES; index++) turn(index);
  return Number(process.hrtime.bigint() - start) / TIMES;
}

/** Takes a run of `count` and gives back one that has been held for a while, in turn. */
function turns(count: number, name: string, aim?: string): Candidate {
  const random = randomFrom(SEED);
  const references = agedTable(random);
  const held = Int32Array.from({ length: IN_FLIGHT }, () => references.allocate(count));
  if (held.includes(-1)) throw new Error(`the table has no ${IN_FLIGHT} runs of ${count} to begin with`);
  // Requests are not completed in the order in which they were made.
  const places = Uint8Array.from({ length: 4096 }, () => Math.floor(random() * IN_FLIGHT));
  const turn = (index: number) => {
    const place = places[index % places.length];
    const first = references.allocate(count);
    references.release(held[place], count);
    held[place] = first;
  };
  return { name, round: () => perTurn(turn), ...(aim !== undefined && { aim }) };
}

/** Asks for a run of 16 where there is none. */
function refusal(): Candidate {
  const references = agedTable(randomFrom(SEED));
  while (references.allocate(16) >= 0);
  return { name: 'no 16 in a row, 90 % used', round: () => perTurn(() => references.allocate(16)) };
}

/** References of a table of 64 frames. */
export function benchReferences(): Promise<Figure[]> {
  return measure(
    `grant references, a table of ${FRAMES} frames, one thread`,
    'ns',
    [
      turns(1, '1 taken + 1 given back, 90 % used'),
      turns(16, '16 in a row, both, 90 % used', 'under 200 ns'),
      refusal(),
    ],
    ROUNDS,
  );
}
