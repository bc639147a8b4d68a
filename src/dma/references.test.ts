import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GrantRef } from '../xen/ids.ts';
import { References } from './references.ts';
import { BareTable, ReferenceModel } from './references.test.helper.ts';

/** References of a table of one frame that cannot grow, all in use but those that `isFree` names. */
function tableWith(isFree: (ref: number) => boolean, maxFrames = 1) {
  const references = new References(new BareTable(maxFrames));
  assert.equal(references.allocate(504), 8);
  for (let ref = 8; ref < 512; ref++) if (isFree(ref)) references.release(ref, 1);
  return references;
}

test('references 0-7 belong to the toolstack and are never given out', () => {
  const references = new References(new BareTable(1));
  assert.equal(references.free, 504);
  const given = Array.from({ length: 504 }, () => references.allocate(1));
  assert.equal(Math.min(...given), 8);
  assert.equal(new Set(given).size, 504);
  assert.equal(references.allocate(1), -1);
  assert.equal(references.free, 0);
  assert.equal(references.live, 504);
});

test('the table doubles until max_grant_frames, and no further', () => {
  const table = new BareTable(5);
  const references = new References(table);
  const model = new ReferenceModel();
  const sizes = new Set<number>();
  for (;;) {
    const first = references.allocate(8);
    if (first < 0) break;
    model.grow(table.entries);
    model.move(first, 8, 'free', 'live');
    model.check(references, table.maxEntries);
    sizes.add(table.entries);
  }
  assert.deepEqual([...sizes], [512, 1024, 2048, 2560]);
  assert.equal(references.live, 2560 - 8);
});

test('a run longer than the table may become is refused, one that just fits is given', () => {
  assert.equal(new References(new BareTable(3)).allocate(3 * 512 - 8), 8);
  const table = new BareTable(3);
  const references = new References(table);
  assert.equal(references.allocate(3 * 512 - 7), -1);
  const model = new ReferenceModel();
  model.grow(table.entries);
  model.check(references, table.maxEntries);
});

for (const count of [504, 505, 511, 512, 513, 1023, 1024, 1025]) {
  test(`L8: ${count} references of a fragmented table whose last entry is used end inside the grown one`, () => {
    const table = new BareTable(64);
    const references = new References(table);
    references.allocate(504);
    for (let ref = 8; ref < 511; ref += 2) references.release(ref, 1);
    const first = references.allocate(count);
    assert.ok(first >= 512, `the run starts at ${first}`);
    assert.ok(first + count <= table.entries, `the run ends at ${first + count} of ${table.entries}`);
    assert.equal(references.entries, table.entries);
    assert.equal(references.live, 252 + count);
  });
}

// Lengths around those where runs are kept in the next list, and places all over.
for (const count of [
  1, 2, 3, 15, 16, 17, 30, 31, 32, 33, 34, 62, 63, 64, 65, 66, 95, 96, 97, 127, 128, 129,
]) {
  test(`R5: the only run of ${count} is found wherever it starts, though ${count - 1} are free elsewhere`, () => {
    for (let start = 160; start <= 160 + 33; start++) {
      // On both sides a run that is one too short, next to the right one but for one reference.
      const right = (ref: number) => ref >= start && ref < start + count;
      const short = (ref: number) =>
        (ref >= start - count && ref < start - 1) || (ref > start + count && ref < start + 2 * count);
      const references = tableWith((ref) => right(ref) || short(ref));
      const free = references.free;
      assert.equal(references.allocate(count), start);
      assert.equal(references.allocate(count), -1);
      assert.equal(references.free, free - count);
    }
  });
}

test('L8: the only free run may be the last one of the table, and reaches its very end', () => {
  for (const count of [1, 31, 32, 33, 63, 64, 65, 100]) {
    const references = tableWith((ref) => ref >= 512 - count);
    assert.equal(references.allocate(count + 1), -1);
    assert.equal(references.allocate(count), 512 - count);
  }
});

test('the free end of the old table is the beginning of a run that needs the new one', () => {
  const table = new BareTable(2);
  const references = new References(table);
  references.allocate(500);
  assert.equal(references.allocate(516), 508);
  assert.equal(table.entries, 1024);
  assert.equal(references.free, 0);
});

test('a reserved reference is not given back either', () => {
  const references = new References(new BareTable(1));
  for (let ref = 0; ref < 8; ref++)
    assert.throws(() => references.release(ref, 1), { name: 'AssertionError' });
  assert.equal(references.allocate(1), 8);
});

test('a quarantined reference is not given out until it has come back', () => {
  const references = tableWith((ref) => ref === 100);
  const ref = references.allocate(1);
  references.quarantine(ref as GrantRef);
  assert.deepEqual([references.free, references.live, references.quarantined], [0, 503, 1]);
  assert.equal(references.allocate(1), -1);
  references.recover(ref as GrantRef);
  assert.deepEqual([references.free, references.live, references.quarantined], [1, 503, 0]);
  assert.equal(references.allocate(1), 100);
});

test('L7: no run has no references, and a reference is given back once', () => {
  const references = new References(new BareTable(1));
  assert.throws(() => references.allocate(0), { name: 'AssertionError' });
  const first = references.allocate(3);
  references.release(first, 3);
  assert.throws(() => references.release(first, 1), { name: 'AssertionError' });
  assert.throws(() => references.release(first, 0), { name: 'AssertionError' });
  assert.equal(references.free, 504);
  assert.equal(references.allocate(504), 8);
});

test('only what is live goes into quarantine, and only what is in quarantine comes out of it', () => {
  const references = tableWith((ref) => ref === 100);
  const quarantined = 200 as GrantRef;
  references.quarantine(quarantined);
  const before = references.usage();
  const refused = [
    ...[0, 7, 100, quarantined, 512].map((ref) => () => references.quarantine(ref as GrantRef)),
    ...[0, 7, 100, 300, 512].map((ref) => () => references.recover(ref as GrantRef)),
    () => references.release(quarantined, 1),
  ];
  for (const call of refused) assert.throws(call, { name: 'AssertionError' });
  assert.deepEqual(references.usage(), before);
});

test('the figures say how scattered the free references are, and how many were ever in use', () => {
  const references = tableWith((ref) => ref % 2 === 0 || (ref >= 300 && ref < 310), 2);
  const { free, freeRuns, longestFreeRun, headroom, mostInUse } = references.usage();
  // 300 to 309, and the even one at the end of them; 252 even ones, and 5 odd ones between some.
  assert.deepEqual({ free, freeRuns, longestFreeRun }, { free: 257, freeRuns: 247, longestFreeRun: 11 });
  assert.deepEqual({ headroom, mostInUse }, { headroom: 257 + 512, mostInUse: 504 });
  assert.equal(references.usage().fragmentation, 1 - 11 / 257);
  assert.equal(new References(new BareTable(1)).usage().fragmentation, 0);
});

/** A full table but for free runs of these lengths, each after a reference in use; and where they start. */
function tableWithRuns(lengths: readonly number[]) {
  const starts = lengths.map((_, at) => lengths.slice(0, at).reduce((end, length) => end + length + 1, 20));
  const isFree = (ref: number) => starts.some((start, at) => ref >= start && ref < start + lengths[at]);
  return { references: tableWith(isFree), starts };
}

test('G8: a run is taken from a short free one rather than from one that longer requests will need', () => {
  const { references, starts } = tableWithRuns([16, 5, 4, 3, 100, 2, 40]);
  const taken = [2, 3, 4, 5, 16, 33, 90].map((count) => references.allocate(count));
  assert.deepEqual(
    taken,
    [5, 3, 2, 1, 0, 6, 4].map((at) => starts[at]),
  );
});

test('G8: of free runs in one list the one that is long enough is found, in whatever order they came', () => {
  const { references, starts } = tableWithRuns([50, 33, 64, 40]);
  const taken = [64, 50, 40, 33].map((count) => references.allocate(count));
  assert.deepEqual(
    taken,
    [2, 0, 3, 1].map((at) => starts[at]),
  );
  assert.equal(references.free, 0);
});
