// Whole addresses: refusals with their reasons, and the codec against its definition.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeGrant, encodeGrant } from './grant-range.ts';

const BIT_63 = 1n << 63n;
const END = BIT_63 | (1n << 44n);

function faultOf(answer: object | bigint): string {
  return typeof answer !== 'bigint' && 'fault' in answer ? String(answer.fault) : 'none';
}

test('7: an address is a grant exactly from 1 << 63 to 1 << 63 | 1 << 44, and is made of what it names', () => {
  const near = fc.bigInt({ min: -(1n << 14n), max: 1n << 14n });
  const around = fc.constantFrom(0n, BIT_63, END, 1n << 64n, 1n << 31n);
  const address = fc.oneof(
    fc.bigInt({ min: BIT_63, max: END - 1n }),
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    fc.tuple(around, near).map(([place, distance]) => place + distance),
  );
  fc.assert(
    fc.property(address, (each) => {
      const answer = decodeGrant(each);
      assert.equal('fault' in answer, each < BIT_63 || each >= END);
      if (!('fault' in answer)) assert.equal(encodeGrant(answer.reference, answer.offset), each);
    }),
    { seed: 44, numRuns: 5000 },
  );
});

test('G1 G2: a range has the pages that hold its bytes, and ends with the last reference at the latest', () => {
  const start = fc.bigInt({ min: 0n, max: (1n << 44n) - 1n });
  const length = fc.oneof(fc.integer({ min: 1, max: 1 << 20 }), fc.integer({ min: 1, max: 2 ** 45 }));
  fc.assert(
    fc.property(start, length, (first, bytes) => {
      const last = first + BigInt(bytes) - 1n;
      const answer = decodeGrant(BIT_63 | first, bytes);
      if (last >= 1n << 44n) assert.equal(faultOf(answer), 'past-last-reference');
      else
        assert.deepEqual(answer, {
          reference: Number(first >> 12n),
          offset: Number(first & 0xfffn),
          pages: Number((last >> 12n) - (first >> 12n)) + 1,
          lastReference: Number(last >> 12n),
        });
    }),
    { seed: 1, numRuns: 5000 },
  );
});

const refusals: [address: bigint, length: number | undefined, fault: string, reason: RegExp][] = [
  [0x44aa8n, undefined, 'bit-63-clear', /bit 63 is clear, so it is a plain address/],
  [0x8001000000044aa8n, undefined, 'bits-44-62-set', /48 is set; .* takes it for grant 0x44, offset 0xaa8/],
  [0xc000100000001000n, undefined, 'bits-44-62-set', /44 and 62 are set; .* grant 0x1, offset 0x0/],
  [0x8007000000001000n, undefined, 'bits-44-62-set', /48, 49 and 50 are set/],
  [0xffffffffffffffffn, undefined, 'bits-44-62-set', /failed mapping \(DMA_MAPPING_ERROR\)/],
  [0x80000ffffffffff0n, 0x11, 'past-last-reference', /0x11 bytes from reference 0xffffffff, offset 0xff0/],
  [0x8000000000008000n, 2 ** 64, 'past-last-reference', /past the last reference/],
  [0x8000000000044aa8n, 0, 'empty', /a length of 0 touches no page/],
  [0x18000000000044aa8n, undefined, 'not-64-bits', /more than 64 bits/],
  [-1n, undefined, 'not-64-bits', /64 bits/],
];

for (const [address, length, fault, reason] of refusals)
  test(`G4 G5 F6: ${address < 0n ? '-1' : `0x${address.toString(16)}`}, length ${length}, is refused: ${fault}`, () => {
    const answer = decodeGrant(address, length);
    assert.equal(faultOf(answer), fault);
    assert.match('reason' in answer ? answer.reason : '', reason);
  });

test('R2: an offset past the page is refused, and never carries into the reference', () => {
  assert.equal(encodeGrant(0x44, 0xfff), 0x8000000000044fffn);
  for (const offset of [0x1000, -1, 0.5, Number.NaN, 2 ** 32])
    assert.equal(faultOf(encodeGrant(0x44, offset)), 'offset-past-page');
  for (const reference of [2 ** 32, -1, 0.5, Number.NaN])
    assert.equal(faultOf(encodeGrant(reference, 0)), 'reference-past-32-bits');
});
