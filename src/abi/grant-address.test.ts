// The address codec and the page arithmetic against the tables of Linux's grant-dma-ops.c, and as laws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DMA_MAPPING_ERROR_HALF,
  formatAddress,
  grantAddressFault,
  grantAddressHigh,
  grantAddressLow,
  grantAddressOffset,
  grantAddressRef,
  isGrantAddress,
  pagesTouched,
} from './grant-address.ts';

const U32 = 0xffff_ffff;
const reference = fc.integer({ min: 0, max: U32 });
const offsetInPage = fc.integer({ min: 0, max: 0xfff });

/** The address as one number, by the definition: 1 << 63 | reference << 12 | offset. */
const defined = (ref: number, offset: number) => (1n << 63n) | (BigInt(ref) << 12n) | BigInt(offset);
const encoded = (ref: number, offset: number) =>
  (BigInt(grantAddressHigh(ref)) << 32n) | BigInt(grantAddressLow(ref, offset));

const vectors: [ref: number, offset: number, address: bigint][] = [
  [0, 0, 0x8000000000000000n],
  [1, 0, 0x8000000000001000n],
  [8, 0, 0x8000000000008000n],
  [0x44, 0xaa8, 0x8000000000044aa8n],
  [0xfffff, 0xfff, 0x80000000ffffffffn],
  [0x100000, 0, 0x8000000100000000n],
  [U32, 0xfff, 0x80000fffffffffffn],
];

for (const [ref, offset, address] of vectors) {
  test(`reference 0x${ref.toString(16)}, offset 0x${offset.toString(16)} is 0x${address.toString(16)}`, () => {
    assert.equal(encoded(ref, offset), address);
    const low = Number(address & 0xffff_ffffn);
    const high = Number(address >> 32n);
    assert.ok(isGrantAddress(high));
    assert.equal(grantAddressRef(low, high), ref);
    assert.equal(grantAddressOffset(low), offset);
  });
}

test('7: decode(encode(ref, offset)) is (ref, offset) for every reference and offset, and the bit is 63', () => {
  fc.assert(
    fc.property(reference, offsetInPage, (ref, offset) => {
      const low = grantAddressLow(ref, offset);
      const high = grantAddressHigh(ref);
      assert.equal(encoded(ref, offset), defined(ref, offset));
      assert.equal(grantAddressFault(high), undefined);
      assert.equal(grantAddressRef(low, high), ref);
      assert.equal(grantAddressOffset(low), offset);
    }),
    { seed: 7, numRuns: 5000 },
  );
});

test('7: no two places have one address', () => {
  fc.assert(
    fc.property(reference, offsetInPage, reference, offsetInPage, (ref, offset, otherRef, otherOffset) => {
      const same = ref === otherRef && offset === otherOffset;
      assert.equal(encoded(ref, offset) === encoded(otherRef, otherOffset), same);
    }),
    { seed: 70, numRuns: 5000 },
  );
});

test('R3: ~0, the value of a failed mapping, is no address of a grant and is not decoded as one', () => {
  fc.assert(
    fc.property(reference, (ref) => assert.notEqual(grantAddressHigh(ref), DMA_MAPPING_ERROR_HALF)),
    { seed: 3, numRuns: 2000 },
  );
  assert.ok(!isGrantAddress(DMA_MAPPING_ERROR_HALF));
});

for (let bit = 44; bit <= 62; bit++) {
  test(`G4: bit ${bit} set is refused, never cut off`, () => {
    const high = (grantAddressHigh(8) | (1 << (bit - 32))) >>> 0;
    assert.ok(!isGrantAddress(high));
    assert.match(grantAddressFault(high)!, /bits 44-62/);
  });
}

test('G5: with bit 63 clear an address is plain, whatever the other bits are', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0x7fff_ffff }), (high) => {
      assert.ok(!isGrantAddress(high));
      assert.match(grantAddressFault(high)!, /bit 63 is clear/);
    }),
    { seed: 5, numRuns: 2000 },
  );
});

test('7: an upper half is a grant exactly if bit 63 is the only one set above bit 43', () => {
  fc.assert(
    fc.property(reference, (high) => {
      const expected = high >>> 12 === 0x80000;
      assert.equal(isGrantAddress(high), expected);
      assert.equal(grantAddressFault(high) === undefined, expected);
    }),
    { seed: 44, numRuns: 5000, examples: [[0x8000_0000], [0x8000_0fff], [0x8000_1000], [0x7fff_ffff]] },
  );
});

const arithmetic: [offset: number, size: number, pages: number][] = [
  [0xff0, 0x20, 2],
  [0xfff, 1, 1],
  [0xfff, 2, 2],
  [1, 0x1000, 2],
  [0, 0x1000, 1],
  [0, 0x1001, 2],
  [0x3aa8, 0x3a0, 1],
  [0x9123, 0x2000, 3],
  [0xfff, U32, 0x100001],
];

for (const [offset, size, pages] of arithmetic) {
  test(`G1 G2: 0x${size.toString(16)} bytes at offset 0x${offset.toString(16)} touch ${pages} pages`, () => {
    assert.equal(pagesTouched(offset, size), pages);
  });
}

test('8: the pages touched are those that hold the first byte to the last, however the buffer is split', () => {
  const size = fc.integer({ min: 1, max: 0x40000 });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffff_f000 }), size, fc.nat(), (offset, length, cut) => {
      const first = Math.floor(offset / 4096);
      assert.equal(pagesTouched(offset, length), Math.floor((offset + length - 1) / 4096) - first + 1);
      const split = cut % length;
      const pages = new Set<number>();
      for (const [start, bytes] of [[offset, split] as const, [offset + split, length - split] as const])
        for (let page = 0; bytes > 0 && page < pagesTouched(start, bytes); page++)
          pages.add(Math.floor(start / 4096) + page);
      assert.equal(pages.size, pagesTouched(offset, length));
    }),
    { seed: 8, numRuns: 2000 },
  );
});

test('an address prints with both halves', () => {
  assert.equal(formatAddress(grantAddressLow(0x44, 0xaa8), grantAddressHigh(0x44)), '0x80000000_00044aa8');
});
