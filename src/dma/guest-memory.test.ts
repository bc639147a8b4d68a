// Whole pages of the guest: zeroed when they are given out, held by several, free when the last lets go.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { GuestMemory, wipe } from './guest-memory.ts';

const memoryOf = (pages: number, reserved = 0) =>
  new GuestMemory(regionOver(new ArrayBuffer(pages * XEN_PAGE_SIZE)), reserved);

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

test('the platform’s pages at the beginning are never given out', () => {
  const memory = memoryOf(8, XEN_PAGE_SIZE + 1);
  assert.deepEqual([memory.firstFrame, memory.pagesFree], [2, 6]);
  const pages = Array.from({ length: 6 }, () => memory.allocatePages(1)! / XEN_PAGE_SIZE);
  assert.deepEqual(pages.toSorted(), [2, 3, 4, 5, 6, 7]);
  assert.equal(memory.allocatePages(1), undefined);
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
  const address = memory.allocatePages(1)!;
  memory.freePages(address, 1);
  assert.throws(() => memory.freePages(address, 1), { name: 'AssertionError' });
  assert.throws(() => memory.freePages(4 * XEN_PAGE_SIZE, 1), { name: 'AssertionError' });
  assert.throws(() => memory.allocatePages(0), { name: 'AssertionError' });
  assert.equal(memory.pagesFree, 4);
});

test('wipe clears exactly the bytes named, whatever their alignment', () => {
  const region = regionOver(new ArrayBuffer(4 * XEN_PAGE_SIZE));
  for (const [offset, length] of [
    [0, 1],
    [5, 4096],
    [4095, 2],
    [4096, 8192],
    [1, 4 * 4096 - 2],
    [7, 0],
  ]) {
    region.u8.fill(9);
    wipe(region, offset, length);
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
      const memory = memoryOf(20, 2 * XEN_PAGE_SIZE);
      const holders = new Array<number>(20).fill(0).fill(1, 0, 2);
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
