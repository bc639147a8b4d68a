// The allocator and its figures against the plainest one there is: any order of allocating, giving back, quarantine and
// recovery, with run lengths that gather around powers of two and the sizes of frames.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { GrantRef } from '../xen/ids.ts';
import { References } from './references.ts';
import { BareTable, ReferenceModel } from './references.test.helper.ts';

interface Setup {
  readonly references: References;
  readonly table: BareTable;
  readonly model: ReferenceModel;
  /** Runs in use, each the first reference and the length. */
  readonly runs: [number, number][];
}

/** Takes one of the runs in use out of the list. */
function pick({ runs }: Setup, at: number): [number, number] | undefined {
  return runs.length === 0 ? undefined : runs.splice(at % runs.length, 1)[0];
}

function allocate(setup: Setup, count: number): void {
  const { references, table, model, runs } = setup;
  const entries = table.entries;
  const hadRun = model.hasRun(count);
  const first = references.allocate(count);
  if (hadRun) assert.equal(table.entries, entries, 'the table grew though a run was free');
  model.grow(table.entries);
  assert.equal(first >= 0, model.hasRun(count));
  if (first < 0) assert.equal(table.entries, table.maxEntries, 'refused though the table may grow');
  else {
    model.move(first, count, 'free', 'live');
    runs.push([first, count]);
  }
}

/** Gives a run back; with `part`, only its beginning, so that the rest is odd. */
function release(setup: Setup, at: number, part: boolean): void {
  const run = pick(setup, at);
  if (run === undefined) return;
  const [first, count] = run;
  const given = part ? Math.ceil(count / 2) : count;
  setup.references.release(first, given);
  setup.model.move(first, given, 'live', 'free');
  if (given < count) setup.runs.push([first + given, count - given]);
}

function quarantine(setup: Setup, at: number): void {
  const run = pick(setup, at);
  if (run === undefined) return;
  const [first, count] = run;
  for (let ref = first; ref < first + count; ref++) setup.references.quarantine(ref as GrantRef);
  setup.model.move(first, count, 'live', 'quarantined');
}

function recover(setup: Setup, at: number): void {
  const held = setup.model.those('quarantined');
  if (held.length === 0) return;
  const ref = held[at % held.length];
  setup.references.recover(ref as GrantRef);
  setup.model.move(ref, 1, 'quarantined', 'free');
}

const border = fc.constantFrom(
  1,
  2,
  7,
  15,
  16,
  17,
  31,
  32,
  33,
  63,
  64,
  65,
  96,
  127,
  128,
  129,
  256,
  511,
  512,
  513,
);
const length = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 2, arbitrary: border },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 1100 }) },
);
const operation = fc.oneof(
  { weight: 6, arbitrary: length.map((count) => (setup: Setup) => allocate(setup, count)) },
  {
    weight: 5,
    arbitrary: fc.tuple(fc.nat(), fc.boolean()).map(
      ([at, part]) =>
        (setup: Setup) =>
          release(setup, at, part),
    ),
  },
  { weight: 1, arbitrary: fc.nat().map((at) => (setup: Setup) => quarantine(setup, at)) },
  { weight: 1, arbitrary: fc.nat().map((at) => (setup: Setup) => recover(setup, at)) },
);

test('R5 8: runs are consecutive, apart from each other, and every figure is that of a recount, at every step', () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 20, maxLength: 120 }), (operations) => {
      const table = new BareTable(3);
      const setup: Setup = {
        table,
        references: new References(table),
        model: new ReferenceModel(),
        runs: [],
      };
      setup.model.grow(table.entries);
      for (const run of operations) {
        run(setup);
        setup.model.check(setup.references, table.maxEntries);
      }
    }),
    { seed: 8, numRuns: 400 },
  );
});
