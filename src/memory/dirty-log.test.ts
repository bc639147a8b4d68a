// The dirty log: the bits of exactly the pages that were written, and what lies past its end is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import { DirtyLog } from './dirty-log.ts';
import { LoggedMemory } from './logged-memory.ts';
import { RegionTable } from './region-table.ts';

const PAGE = 4096;
const GUEST = 32 * PAGE;

function pagesOf(bits: Uint8Array): number[] {
  return Array.from({ length: bits.length * 8 }, (_, page) => page).filter(
    (page) => bits[page >> 3] & (1 << (page & 7)),
  );
}

test('any range marks the pages that it touches and no other', () => {
  fc.assert(
    fc.property(fc.nat(60 * PAGE), fc.nat(3 * PAGE), (address, length) => {
      const region = regionOver(new ArrayBuffer(8));
      new DirtyLog(region).mark(address, length);
      const touched = (page: number) => address < (page + 1) * PAGE && page * PAGE < address + length;
      const expected = Array.from({ length: 64 }, (_, page) => page).filter(touched);
      assert.deepEqual(pagesOf(region.u8), length === 0 ? [] : expected);
    }),
    { seed: 57, numRuns: 500 },
  );
});

test('a page past the log is refused, and no bit is set', () => {
  const region = regionOver(new ArrayBuffer(8));
  const log = new DirtyLog(region);
  log.mark(64 * PAGE - 1, 1);
  assert.throws(() => log.mark(64 * PAGE - 1, 2), ProtocolViolation);
  assert.throws(() => log.mark(2 ** 52, 1), ProtocolViolation);
  assert.deepEqual(pagesOf(region.u8), [63]);
});

test('what a chain has written is marked: from the start, and at the very end', () => {
  const region = regionOver(new ArrayBuffer(16));
  const memory = regionOver(new ArrayBuffer(8 * PAGE));
  const table = new RegionTable([{ guest: GUEST, user: 0x10_0000, size: 8 * PAGE, memory }]);
  const access = new LoggedMemory(table, table, new DirtyLog(region)).newChainAccess();
  access.map(GUEST, 0, PAGE, false);
  access.map(GUEST + PAGE, 0, 3 * PAGE, true);
  access.map(GUEST + 7 * PAGE, 0, 1, true);
  access.release(PAGE, PAGE + 1, 1);
  assert.deepEqual(pagesOf(region.u8), [33, 34, 39]);
  access.map(GUEST + 5 * PAGE, 0, 8, true);
  access.release(0, 0, 0);
  assert.deepEqual(pagesOf(region.u8), [33, 34, 39], 'nothing was written');
});
