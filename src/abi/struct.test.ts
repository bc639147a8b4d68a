// The declarator of binary layouts: every kind of field, over every kind of memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ByteView, struct } from './struct.ts';

const everything = struct('everything', {
  byte: 'u8',
  short: 'u16',
  word: 'u32',
  signedShort: 'i16',
  signedWord: 'i32',
  size: 'u64',
  flags: 'bits64',
  address: 'addr64',
  raw: { bytes: 3 },
});

test('fields follow each other without gaps, in the declared order', () => {
  assert.deepEqual(
    everything.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['byte', 0, 1],
      ['short', 1, 2],
      ['word', 3, 4],
      ['signedShort', 7, 2],
      ['signedWord', 9, 4],
      ['size', 13, 8],
      ['flags', 21, 8],
      ['address', 29, 8],
      ['raw', 37, 3],
    ],
  );
  assert.equal(everything.size, 40);
  assert.equal(everything.name, 'everything');
  assert.equal(everything.offsetOf('address'), 29);
  assert.throws(() => everything.offsetOf('nothing' as 'raw'), /struct everything has no field nothing/);
});

test('every kind is little endian', () => {
  const record = everything.make({
    byte: 0x01,
    short: 0x0302,
    word: 0x07060504,
    signedShort: 0x0908,
    signedWord: 0x0d0c0b0a,
    size: 0x0014_1312_1110_0f0e,
    flags: 0x1d1c_1b1a_1918_1716n,
    addressLow: 0x21201f1e,
    addressHigh: 0x25242322,
  });
  record.raw.set([0x26, 0x27, 0x28]);
  const expected = Array.from({ length: 40 }, (_, i) => (i < 20 ? i + 1 : i === 20 ? 0 : i + 1));
  assert.deepEqual([...record.bytes], expected);
});

test('what is written to a field is read back, whatever else is there', () => {
  const values = fc.record({
    byte: fc.integer({ min: 0, max: 0xff }),
    short: fc.integer({ min: 0, max: 0xffff }),
    word: fc.integer({ min: 0, max: 0xffff_ffff }),
    signedShort: fc.integer({ min: -0x8000, max: 0x7fff }),
    signedWord: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
    size: fc.maxSafeNat(),
    flags: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    addressLow: fc.integer({ min: 0, max: 0xffff_ffff }),
    addressHigh: fc.integer({ min: 0, max: 0xffff_ffff }),
  });
  fc.assert(
    fc.property(values, fc.integer({ min: 0, max: 60 }), (written, offset) => {
      const bytes = new Uint8Array(128).fill(0xa5);
      const record = Object.assign(everything.over(bytes).at(offset), written);
      for (const [name, value] of Object.entries(written))
        assert.equal(record[name as keyof typeof written], value, name);
      record.raw.fill(0x5a);
      assert.deepEqual(bytes.slice(0, offset), new Uint8Array(offset).fill(0xa5));
      assert.deepEqual(bytes.slice(offset + 40), new Uint8Array(88 - offset).fill(0xa5));
    }),
    { seed: 1, numRuns: 200 },
  );
});

test('numbers wrap to the width of their field, as the hardware has it', () => {
  const record = everything.make({ byte: 0x1ff, short: -1, word: 2 ** 32 + 5 });
  assert.deepEqual([record.byte, record.short, record.word], [0xff, 0xffff, 5]);
});

test('a u64 above 2^53 is read rounded, larger than anything it can be compared with', () => {
  const bytes = new Uint8Array(40);
  const record = everything.over(bytes);
  const view = new DataView(bytes.buffer);
  for (const value of [2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 60n, 2n ** 64n - 1n]) {
    view.setBigUint64(13, value, true);
    assert.equal(record.size, Number(value));
    assert.equal(record.size > Number.MAX_SAFE_INTEGER, value > 2n ** 53n - 1n);
  }
});

test('a u64 that is no exact count is not written', () => {
  const record = everything.make({ size: 7 });
  for (const value of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => {
      record.size = value;
    }, /size: .* is not a u64 below 2\^53/);
  assert.equal(record.size, 7);
});

const memories: [string, (bytes: number) => ByteView][] = [
  ['a buffer', (bytes) => new Uint8Array(bytes)],
  ['shared memory', (bytes) => new Uint8Array(new SharedArrayBuffer(bytes))],
  ['the middle of a larger buffer', (bytes) => new Uint8Array(new ArrayBuffer(bytes + 64), 24, bytes)],
  ['a DataView', (bytes) => new DataView(new ArrayBuffer(bytes + 8), 8)],
];

for (const [what, make] of memories) {
  test(`one cursor moves over the records of an array in ${what}`, () => {
    const view = make(40 * 3);
    const cursor = everything.over(view);
    for (let i = 0; i < 3; i++) {
      cursor.at(40 * i).word = 100 + i;
      cursor.flags = BigInt(i);
      cursor.raw.fill(i + 1);
    }
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    assert.deepEqual(
      [0, 1, 2].map((i) => [bytes[40 * i + 3], bytes[40 * i + 21], ...bytes.slice(40 * i + 37, 40 * i + 40)]),
      [
        [100, 0, 1, 1, 1],
        [101, 1, 2, 2, 2],
        [102, 2, 3, 3, 3],
      ],
    );
  });
}

test('a number outside its view is not there, though the buffer goes on', () => {
  const cursor = everything.over(new Uint8Array(new ArrayBuffer(200), 0, 39));
  assert.equal(cursor.byte, 0);
  assert.throws(() => cursor.at(39).short, RangeError);
  assert.throws(() => {
    cursor.at(-1).byte = 1;
  }, RangeError);
});

test('bytes outside the view are not there either, for fields, dumps and random records', () => {
  const pair = struct('pair', { first: { bytes: 4 }, second: { bytes: 4 } });
  const view = new Uint8Array(new ArrayBuffer(64), 8, 12);
  const cursor = pair.over(view);
  assert.equal(cursor.at(4).second.byteOffset, 16);
  assert.throws(() => cursor.at(5).second, RangeError);
  assert.throws(() => cursor.at(-1).first, RangeError);
  assert.throws(() => pair.dump(view, 5), RangeError);
  assert.throws(() => pair.randomise(view, 5, () => 1), RangeError);
  assert.ok(new Uint8Array(view.buffer).every((byte) => byte === 0));
});

test('a dump has a line for each field: offset, bytes, name and value', () => {
  const record = everything.make({ word: 0x1234, addressHigh: 0x8000_0000 });
  assert.deepEqual(everything.dump(record.bytes).split('\n'), [
    'struct everything (40 bytes)',
    '  +0x000  00                       byte = 0x0',
    '  +0x001  00 00                    short = 0x0',
    '  +0x003  34 12 00 00              word = 0x1234',
    '  +0x007  00 00                    signedShort = 0x0',
    '  +0x009  00 00 00 00              signedWord = 0x0',
    '  +0x00d  00 00 00 00 00 00 00 00  size = 0x0',
    '  +0x015  00 00 00 00 00 00 00 00  flags = 0x0',
    '  +0x01d  00 00 00 00 00 00 00 80  address = 0x8000000000000000',
    '  +0x025  00 00 00                 raw',
  ]);
});

test('a dump starts where it is told to', () => {
  const pair = struct('pair', { first: 'u8', second: 'u8' });
  const bytes = Uint8Array.of(9, 9, 1, 2);
  assert.match(pair.dump(bytes, 2), /first = 0x1\n.*second = 0x2/);
  assert.match(pair.dump(bytes.subarray(1), 1), /first = 0x1\n/);
});

test('a random record takes exactly its own bytes, in order, from the source', () => {
  const bytes = new Uint8Array(60);
  let next = 0;
  everything.randomise(bytes, 10, () => ++next + 256);
  assert.equal(next, 40);
  assert.ok(bytes.every((byte, at) => byte === (at >= 10 && at < 50 ? at - 9 : 0)));
});
