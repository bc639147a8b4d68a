// Sets of ranges against plain sets of numbers, and against the oddities of Xen's own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EEXIST, ENOENT, ENOMEM } from '../errno.ts';
import { MAX_IO_RANGES, Ranges } from './ranges.ts';

function emptyRanges(): Ranges {
  return new Ranges(new Int32Array(2048), 1024, 0);
}

const END = 24;

test('any sequence of additions and removals is a set of numbers; a refused one changes nothing (10)', () => {
  const step = fc.tuple(fc.boolean(), fc.nat(END), fc.nat(END)).map(([adds, a, b]) => ({
    adds,
    first: Math.min(a, b),
    last: Math.max(a, b),
  }));
  const property = fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const ranges = emptyRanges();
    const model = new Set<number>();
    for (const { adds, first, last } of steps) {
      const numbers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
      const before = ranges.list();
      const result = adds
        ? ranges.add(BigInt(first), BigInt(last))
        : ranges.remove(BigInt(first), BigInt(last));
      const allowed = adds ? !numbers.some((n) => model.has(n)) : numbers.every((n) => model.has(n));
      assert.equal(result, allowed ? 0 : adds ? EEXIST : ENOENT);
      if (!allowed) assert.deepEqual(ranges.list(), before);
      else for (const n of numbers) adds ? model.add(n) : model.delete(n);
      const all = Array.from({ length: END + 2 }, (_, n) => n);
      assert.deepEqual(
        all.filter((n) => ranges.contains(n, n)),
        [...model].toSorted((a, b) => a - b),
      );
      // Ranges never touch each other: what lies in one piece is one range.
      ranges.list().forEach(([from, to], i, list) => {
        assert.ok(from <= to && (i === 0 || list[i - 1][1] + 1n < from));
      });
    }
  });
  fc.assert(property, { seed: 20261122, numRuns: 300 });
});

test('an access is contained only in one range, and the ends of 64 bits belong to what they end', () => {
  const ranges = emptyRanges();
  assert.equal(ranges.add(0x1000n, 0x1fffn), 0);
  assert.equal(ranges.add(0x2000n, 0x2fffn), 0);
  assert.equal(ranges.add(0x4000n, 2n ** 64n - 1n), 0);
  assert.deepEqual(ranges.list(), [
    [0x1000n, 0x2fffn],
    [0x4000n, 2n ** 64n - 1n],
  ]);
  assert.ok(ranges.contains(0x1ffc, 0x2003), 'two ranges that touch are one');
  assert.ok(!ranges.contains(0x2ffc, 0x3003));
  assert.ok(!ranges.contains(0xffc, 0x1003));
  assert.ok(ranges.contains(2 ** 48, 2 ** 48 + 7));
  assert.equal(ranges.add(2n ** 64n - 1n, 2n ** 64n - 1n), EEXIST);
  assert.equal(ranges.remove(0x5000n, 0x5fffn), 0);
  assert.equal(ranges.count, 3);
});

test('256 ranges and no more, as Xen counts: one that only touches the next needs room, a cut in the middle too', () => {
  const ranges = emptyRanges();
  for (let i = 0; i < MAX_IO_RANGES; i++) assert.equal(ranges.add(BigInt(i * 10), BigInt(i * 10 + 4)), 0);
  const full = ranges.list();
  assert.equal(ranges.add(5000n, 5000n), ENOMEM);
  assert.equal(ranges.add(9n, 9n), ENOMEM, 'it touches only the one after it');
  assert.equal(ranges.remove(12n, 12n), ENOMEM);
  assert.deepEqual(ranges.list(), full);
  assert.equal(ranges.add(5n, 5n), 0, 'it touches the one before it');
  assert.equal(ranges.remove(10n, 11n), 0);
  assert.equal(ranges.remove(20n, 24n), 0);
  assert.equal(ranges.remove(32n, 32n), 0, 'there is room again');
});
