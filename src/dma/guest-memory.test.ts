// Whole pages of the guest: zeroed when they are given out, held by several, free when the last lets go.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { GuestMemory } from './guest-memory.ts';

const memoryOf = (pages: number) => new GuestMemory(regionOver(new ArrayBuffer(pages * XEN_PAGE_SIZE)));

test('pages come zeroed, whatever lay in them', () => {
  const memory = memoryOf(8);
  memory.region.u8.fill(0xee);
  const address = memory.allocatePages(3)!;
  const bytes = memory.region.u8.subarray(address, address + 3 * XEN_PAGE_SIZE);
  assert.ok(bytes.every((byte) => byte === 0));
  bytes.fill(0xdd);
  memory.freePages(address, 3);
  const all = memory.allocatePages(8)!;
  assert.equal(all, 0);
  assert.ok(memory.region.u8.every((byte) => byte === 0));
});

test('a page is free when the last of its holders has let go', () => {
  const memory = memoryOf(2);
  const address = memory.allocatePages(1)!;
  memory.hold(address / XEN_PAGE_SIZE, 1);
  memory.freePages(address, 1);
  assert.equal(memory.pagesFree, 1);
  assert.equal(memory.allocatePages(2), undefined);
  memory.release(address / XEN_PAGE_SIZE, 1);
  assert.equal(memory.allocatePages(2), 0);
});

test('what is not held is not released, and no pages are not an allocation: errors of ours', () => {
  const memory = memoryOf(4);
  assert.throws(() => new GuestMemory(memory.region, 100), { name: 'AssertionError' });
  const address = memory.allocatePages(1)!;
  memory.freePages(address, 1);
  assert.throws(() => memory.freePages(address, 1), { name: 'AssertionError' });
  assert.throws(() => memory.freePages(4 * XEN_PAGE_SIZE, 1), { name: 'AssertionError' });
  assert.throws(() => memory.allocatePages(0), { name: 'AssertionError' });
  assert.equal(memory.pagesFree, 4);
});

test('wipe clears exactly the bytes named, whatever their alignment', () => {
  const memory = memoryOf(4);
  const { region } = memory;
  for (const [offset, length] of [
    [0, 1],
    [5, 4096],
    [4095, 2],
    [4096, 8192],
    [1, 4 * 4096 - 2],
    [7, 0],
  ]) {
    region.u8.fill(9);
    memory.wipe(offset, length);
    assert.equal(region.u8.indexOf(0), length === 0 ? -1 : offset);
    assert.equal(
      region.u8.reduce((count, byte) => count + (byte === 0 ? 1 : 0), 0),
      length,
    );
  }
});

test('any order of allocating, holding and releasing: runs are free and in a row, and the count is right', () => {
  const step = fc.record({ act: fc.nat(4), at: fc.nat(), count: fc.integer({ min: 1, max: 6 }) });
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), (steps) => {
      const memory = memoryOf(18);
      const holders = new Array<number>(18).fill(0);
      const runs: { frame: number; count: number }[] = [];
      for (const { act, at, count } of steps) {
        if (act <= 2) {
          const address = memory.allocatePages(count);
          const possible = holders.some((_, frame) =>
            holders.slice(frame, frame + count).every((held, _, run) => held === 0 && run.length === count),
          );
          assert.equal(address !== undefined, possible);
          if (address === undefined) continue;
          const frame = address / XEN_PAGE_SIZE;
          for (let page = frame; page < frame + count; page++) assert.equal(holders[page]++, 0);
          runs.push({ frame, count });
        } else if (runs.length > 0) {
          const run = runs[at % runs.length];
          if (act === 3) {
            memory.hold(run.frame, run.count);
            runs.push(run);
            for (let page = run.frame; page < run.frame + run.count; page++) holders[page]++;
          } else {
            runs.splice(at % runs.length, 1);
            memory.release(run.frame, run.count);
            for (let page = run.frame; page < run.frame + run.count; page++) holders[page]--;
          }
        }
        assert.equal(memory.pagesFree, holders.filter((held) => held === 0).length);
      }
    }),
    { seed: 13, numRuns: 200 },
  );
});
