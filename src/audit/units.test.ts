import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytesText, countText, timeText } from './units.ts';

test('numbers have three digits and the largest unit that leaves at least 1', () => {
  const cases: [string, string][] = [
    [bytesText(0), '0 B'],
    [bytesText(1), '1 B'],
    [bytesText(1023), '1023 B'],
    [bytesText(1024), '1.00 KiB'],
    [bytesText(10_188), '9.95 KiB'],
    [bytesText(10_240), '10.0 KiB'],
    [bytesText(102_400), '100 KiB'],
    [bytesText(1024 * 1024 - 1), '1.00 MiB'],
    [bytesText(1.5 * 1024 ** 3), '1.50 GiB'],
    [bytesText(2 ** 60), '1024 PiB'],
    [bytesText(1234.5), '1.21 KiB'],
    [countText(0), '0'],
    [countText(999), '999'],
    [countText(999.6), '1.00 k'],
    [countText(1000), '1.00 k'],
    [countText(0.25), '0.25'],
    [countText(1_234_567), '1.23 M'],
    [countText(9996), '10.0 k'],
    [countText(61_728), '61.7 k'],
    [countText(99_960), '100 k'],
    [timeText(0), '0 ns'],
    [timeText(999), '999 ns'],
    [timeText(12_345), '12.3 µs'],
    [timeText(3_200_000), '3.20 ms'],
    [timeText(90e9), '90.0 s'],
  ];
  for (const [got, expected] of cases) assert.equal(got, expected);
});

test('a time without a limit is said to have none', () => {
  assert.equal(timeText(Number.POSITIVE_INFINITY), 'no limit');
});
