import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena, type Scratch } from './arena.ts';
import { libcOfTest, native } from './native.test.helper.ts';

function end({ address, length }: Scratch): number {
  return address + length;
}

test('pieces are zeroed, aligned, and no byte is in two of them', native, () => {
  const piece = fc.record({
    length: fc.integer({ min: 1, max: 600 }),
    alignment: fc.constantFrom(1, 16, 512),
  });
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 30 }),
      fc.array(fc.nat(29), { maxLength: 10 }),
      (asked, back) => {
        const arena = new Arena(libcOfTest(), 2 ** 16);
        const held: Scratch[] = [];
        for (const [index, { length, alignment }] of asked.entries()) {
          const scratch = arena.take(length, alignment);
          assert.equal(scratch.address % alignment, 0);
          assert.equal(scratch.length, length);
          assert.ok(scratch.u8.every((byte) => byte === 0));
          scratch.u8.fill(index + 1);
          held.push(scratch);
          if (back.includes(index)) arena.giveBack(held.splice(index % held.length, 1)[0]);
        }
        held.sort((one, other) => one.address - other.address);
        for (let i = 1; i < held.length; i++) assert.ok(end(held[i - 1]) <= held[i].address);
      },
    ),
    { seed: 11, numRuns: 50 },
  );
});

test('what is given back is taken again, so that connections without end fit', native, () => {
  const arena = new Arena(libcOfTest(), 4096);
  for (let each = 0; each < 100; each++) arena.giveBack(arena.take(1000));
  const [one, other] = [arena.take(1000), arena.take(1000)];
  assert.notEqual(one.address, other.address);
});

test('an arena that is used up says how much was asked for and how much is left', native, () => {
  const arena = new Arena(libcOfTest(), 4096);
  arena.take(4000);
  assert.throws(() => arena.take(100), {
    name: 'RangeError',
    message: 'scratch memory: 100 bytes asked for, 96 of 4096 left',
  });
  assert.equal(arena.take(96).length, 96);
});
