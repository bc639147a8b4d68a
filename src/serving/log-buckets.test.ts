// Buckets: every number is in exactly one, they are in order, and none is wider than an eighth of what is in it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BUCKETS, bucketOf, bucketStart } from './log-buckets.ts';

const whole = fc.oneof(fc.nat(20), fc.nat(4096), fc.integer({ min: 0, max: 2 ** 32 - 1 }));

test('a number is at or behind the start of its bucket, and before that of the next', () => {
  fc.assert(
    fc.property(whole, (value) => {
      const bucket = bucketOf(value);
      assert.ok(bucket >= 0 && bucket < BUCKETS);
      assert.ok(bucketStart(bucket) <= value && value < bucketStart(bucket + 1));
    }),
    { seed: 5, numRuns: 2000 },
  );
});

test('the start of each bucket is in it, and the number before in the one before', () => {
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    assert.equal(bucketOf(bucketStart(bucket)), bucket);
    if (bucket > 0) assert.equal(bucketOf(bucketStart(bucket) - 1), bucket - 1);
  }
  assert.equal(bucketStart(BUCKETS), 2 ** 32);
});

test('a bucket is at most an eighth of its start wide', () => {
  for (let bucket = 8; bucket < BUCKETS; bucket++) {
    const start = bucketStart(bucket);
    assert.ok(bucketStart(bucket + 1) - start <= start / 8);
  }
});

test('fractions are cut off, and what is too large is in the last bucket', () => {
  assert.equal(bucketOf(7.99), 7);
  for (const value of [2 ** 32, 2 ** 40, 1e300, Number.POSITIVE_INFINITY])
    assert.equal(bucketOf(value), BUCKETS - 1);
});
