// A guest's memory as regions: buffers by guest address, across regions too; rings by the monitor's; nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import { RegionTable } from './region-table.ts';

const PAGE = 4096;

function region(guest: number, user: number, size = PAGE) {
  return { guest, user, size, memory: regionOver(new ArrayBuffer(size)) };
}

test('a buffer goes on from one region into the next', () => {
  const [a, b] = [region(PAGE, 0x10_0000), region(2 * PAGE, 0x50_0000)];
  const access = new RegionTable([b, a]).newChainAccess();
  assert.equal(access.map(2 * PAGE - 16, 0, 48, true), 0);
  assert.deepEqual(access.writable.regions.slice(0, 2), [a.memory, b.memory]);
  assert.deepEqual(access.writable.offsets.slice(0, 2), [PAGE - 16, 0]);
  assert.deepEqual(access.writable.lengths.slice(0, 2), [16, 32]);
});

for (const [low, high, length] of [
  [0, 0, 1],
  [PAGE - 1, 0, 2],
  [3 * PAGE - 1, 0, 2],
  [PAGE, 1, 8],
  [0xffff_ffff, 0xffff_ffff, 8],
  [PAGE, 0, 0xffff_ffff],
]) {
  test(`F6 ${length} bytes at ${high.toString(16)}:${low.toString(16)} are refused`, () => {
    const table = new RegionTable([region(PAGE, 0x10_0000), region(2 * PAGE, 0x50_0000)]);
    const access = table.newChainAccess();
    assert.throws(() => access.map(low, high, length, false), ProtocolViolation);
    assert.throws(() => table.mapRing(low, high, length), ProtocolViolation);
  });
}

test('a ring lies in one region, by the address of the monitor', () => {
  const [a, b] = [region(PAGE, 0x10_0000), region(2 * PAGE, 0x10_1000)];
  const table = new RegionTable([a, b]);
  const ring = table.userRing(0x10_1010, 0, 64);
  assert.deepEqual([ring.region, ring.offset], [b.memory, 16]);
  assert.throws(() => table.userRing(0x10_0ff0, 0, 64), ProtocolViolation, 'across two');
  assert.throws(() => table.userRing(PAGE, 0, 64), ProtocolViolation, 'an address of the guest');
});

test('T5: regions that overlap, are empty, wrap or are not all mapped are refused', () => {
  const short = { ...region(0, 0, PAGE), size: 2 * PAGE };
  for (const regions of [
    [region(0, 0, 2 * PAGE), region(PAGE, 0x10_0000)],
    [region(0, 0x10_0000, 2 * PAGE), region(0x10_0000, 0x10_1000)],
    [region(0, 0, 0)],
    [region(2 ** 53 - PAGE, 0)],
    [region(0, 2 ** 64)],
    [short],
  ])
    assert.throws(() => new RegionTable(regions), ProtocolViolation);
});
