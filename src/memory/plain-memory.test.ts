// A device that may reach all of a guest's memory reaches nothing outside it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import { PlainMemory } from './plain-memory.ts';

const BYTES = 65536;

for (const [low, high, length] of [
  [BYTES, 0, 1],
  [BYTES - 1, 0, 2],
  [0, 0, BYTES + 1],
  [0, 1, 1],
  [0xffff_ffff, 0, 1],
  [0xffff_ffff, 0xffff_ffff, 1],
  [0xffff_f000, 0xffff_ffff, 0xffff_ffff],
  [0, 0x8000_0000, 16],
]) {
  test(`F6 ${length} bytes at ${high.toString(16)}:${low.toString(16)} are refused`, () => {
    const memory = new PlainMemory(regionOver(new ArrayBuffer(BYTES)));
    const access = memory.newChainAccess();
    assert.throws(() => access.map(low, high, length, true), ProtocolViolation);
    assert.equal(access.writable.byteLength, 0, 'nothing is mapped');
    assert.throws(() => memory.mapRing(low, high, length), ProtocolViolation);
  });
}

for (const base of [0x4000_0000, 0x8000_0000, 0x1_0000_0000 - BYTES / 2, 0x2_0000_0000]) {
  test(`F6 memory from 0x${base.toString(16)}: what lies below and behind it is refused`, () => {
    const memory = new PlainMemory(regionOver(new ArrayBuffer(BYTES)), base);
    const offsetOf = (address: number, length: number) =>
      memory.offsetOf(address % 2 ** 32, Math.floor(address / 2 ** 32), length);
    for (const at of [0, 1, BYTES / 2, BYTES - 1]) assert.equal(offsetOf(base + at, 1), at);
    assert.equal(offsetOf(base, BYTES), 0);
    for (const [at, length] of [
      [-1, 1],
      [-1, BYTES],
      [BYTES - 1, 2],
      [BYTES, 1],
      [-base, 1],
      [2 ** 32, 1],
    ])
      assert.throws(() => offsetOf(base + at, length), ProtocolViolation);
  });
}

test('the first and the last byte are there', () => {
  const memory = new PlainMemory(regionOver(new ArrayBuffer(BYTES)));
  const access = memory.newChainAccess();
  assert.equal(access.map(0, 0, 1, false), 0);
  assert.equal(access.map(BYTES - 1, 0, 1, true), 0);
  assert.deepEqual([access.readable.offsets[0], access.writable.offsets[0]], [0, BYTES - 1]);
  access.release(0, 0, 0);
  assert.deepEqual([access.readable.byteLength, access.writable.byteLength], [0, 0]);
});
