import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PollTime } from './poll-time.ts';

test('polling is never longer than the longest, and is nothing or at least a half of what it starts with again', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.001, max: 10, noNaN: true }),
      fc.array(fc.double({ min: 0, max: 100, noNaN: true }), { maxLength: 50 }),
      (longest, sleeps) => {
        const time = new PollTime(longest);
        assert.equal(time.current, longest);
        for (const sleep of sleeps) {
          const before = time.current;
          time.slept(sleep);
          assert.ok(time.current <= longest);
          assert.ok(time.current === 0 || time.current > longest / 32);
          if (sleep <= longest) assert.ok(time.current >= before && time.current >= longest / 8);
          else assert.ok(time.current < before || before === 0);
        }
      },
    ),
    { seed: 71, numRuns: 1000 },
  );
});

test('after some long sleeps there is no polling, and after some short ones all of it again', () => {
  const time = new PollTime(0.05);
  for (let i = 0; i < 4; i++) time.slept(1000);
  assert.equal(time.current, 0);
  for (let i = 0; i < 4; i++) time.slept(0.01);
  assert.equal(time.current, 0.05);
});

test('a worker that may not poll never does', () => {
  const time = new PollTime(0);
  for (const sleep of [0, 0.001, 5]) {
    time.slept(sleep);
    assert.equal(time.current, 0);
  }
});
