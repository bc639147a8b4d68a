// The allocator against the plainest one there is: any order of allocating, giving back, quarantine and
// recovery, with run lengths that gather around the borders of the bitmap's words.

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
  const hadRun = model.hasRun(count, entries);
  const first = references.allocate(count);
  if (hadRun) assert.equal(table.entries, entries, 'the table grew though a run was free');
  assert.equal(first >= 0, model.hasRun(count, table.entries));
  if (first < 0) assert.equal(table.entries, table.maxEntries, 'refused though the table may grow');
  else {
    model.take(first, count, table.entries);
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
  for (let ref = first; ref < first + given; ref++) setup.model.live.delete(ref);
  if (given < count) setup.runs.push([first + given, count - given]);
}

function quarantine(setup: Setup, at: number): void {
  const run = pick(setup, at);
  if (run === undefined) return;
  for (let ref = run[0]; ref < run[0] + run[1]; ref++) {
    setup.references.quarantine(ref as GrantRef);
    setup.model.live.delete(ref);
    setup.model.quarantined.add(ref);
  }
}

function recover(setup: Setup, at: number): void {
  const held = [...setup.model.quarantined];
  if (held.length === 0) return;
  const ref = held[at % held.length];
  setup.references.recover(ref as GrantRef);
  setup.model.quarantined.delete(ref);
}

const border = fc.constantFrom(1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 256, 511, 512);
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

test('8: runs are consecutive, apart from each other, and all references are accounted for at every step', () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 20, maxLength: 120 }), (operations) => {
      const table = new BareTable(3);
      const setup: Setup = {
        table,
        references: new References(table),
        model: new ReferenceModel(),
        runs: [],
      };
      for (const run of operations) {
        run(setup);
        setup.model.check(setup.references);
      }
    }),
    { seed: 8, numRuns: 400 },
  );
});
