// Segments behave as the array of bytes that their pieces make up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { Segments } from './segments.ts';

const BYTES = 256;

/** Pieces of two regions, and a stretch of what they make up. */
const cases = fc
  .array(
    fc.record({
      second: fc.boolean(),
      offset: fc.integer({ min: 0, max: BYTES - 32 }),
      length: fc.integer({ min: 1, max: 32 }),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .chain((pieces) => {
    const total = pieces.reduce((sum, { length }) => sum + length, 0);
    return fc.record({
      pieces: fc.constant(pieces),
      from: fc.integer({ min: 0, max: total }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    });
  });

function build(pieces: readonly { second: boolean; offset: number; length: number }[]) {
  const regions = [0, 1].map((salt) => {
    const region = regionOver(new ArrayBuffer(BYTES));
    for (let i = 0; i < BYTES; i++) region.u8[i] = i * 3 + salt;
    return region;
  });
  const segments = new Segments();
  const bytes: { region: number; at: number }[] = [];
  for (const { second, offset, length } of pieces) {
    segments.push(regions[second ? 1 : 0], offset, length);
    for (let i = 0; i < length; i++) bytes.push({ region: second ? 1 : 0, at: offset + i });
  }
  return { regions, segments, bytes };
}

test('copyTo, copyFrom, setByte and slice see the pieces as one array', () => {
  fc.assert(
    fc.property(cases, ({ pieces, from, share }) => {
      const { regions, segments, bytes } = build(pieces);
      assert.equal(segments.byteLength, bytes.length);
      const length = Math.floor(share * (bytes.length - from));
      const read = () => Uint8Array.from(bytes, ({ region, at }) => regions[region].u8[at]);
      const copied = new Uint8Array(length);
      segments.copyTo(copied, from, length);
      assert.deepEqual(copied, read().slice(from, from + length));
      const sliced = new Uint8Array(length);
      new Segments().slice(segments, from, length).copyTo(sliced, 0, length);
      assert.deepEqual(sliced, copied);
      const untouched = regions.map(({ u8 }) => u8.slice());
      segments.copyFrom(new Uint8Array(length).fill(0xee), from);
      if (length > 0) segments.setByte(from + length - 1, 0xdd);
      for (const { region, at } of bytes.slice(from, from + length)) untouched[region][at] = 0xee;
      const last = bytes[from + length - 1];
      if (length > 0) untouched[last.region][last.at] = 0xdd;
      assert.deepEqual(
        regions.map(({ u8 }) => u8),
        untouched,
      );
    }),
    { seed: 5, numRuns: 500 },
  );
});

test('pieces that follow each other become one, and a cleared list is empty', () => {
  const region = regionOver(new ArrayBuffer(64));
  const segments = new Segments();
  segments.push(region, 0, 8);
  segments.push(region, 8, 8);
  segments.push(region, 20, 4);
  assert.deepEqual([segments.count, segments.byteLength], [2, 20]);
  segments.push(regionOver(new ArrayBuffer(64)), 24, 4);
  assert.equal(segments.count, 3, 'not across regions');
  segments.clear();
  assert.deepEqual([segments.count, segments.byteLength], [0, 0]);
});

test('what lies outside is our own bug: an assertion, also where an earlier list was longer', () => {
  const region = regionOver(new ArrayBuffer(64));
  const segments = new Segments();
  segments.push(region, 0, 32);
  segments.clear();
  segments.push(region, 0, 8);
  const bytes = new Uint8Array(9);
  for (const wrong of [
    () => segments.copyTo(bytes, 0, 9),
    () => segments.copyTo(bytes, 8, 1),
    () => segments.copyFrom(bytes, 0),
    () => segments.setByte(8, 1),
    () => segments.setByte(-1, 1),
    () => new Segments().slice(segments, 1, 8),
  ])
    assert.throws(wrong, { name: 'AssertionError' });
  assert.ok(region.u8.every((byte) => byte === 0));
});
