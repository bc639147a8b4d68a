// Small objects of the guest's kernel, which share pages with whatever else is as large.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { GuestHeap } from './guest-heap.ts';
import { GuestMemory } from './guest-memory.ts';

function heapOf(pages: number) {
  const memory = new GuestMemory(regionOver(new ArrayBuffer(pages * XEN_PAGE_SIZE)));
  return { memory, heap: new GuestHeap(memory) };
}

for (const [size, perPage] of [
  [1, 128],
  [32, 128],
  [33, 64],
  [512, 8],
  [2048, 2],
  [2049, 1],
  [4096, 1],
]) {
  test(`of objects of ${size} bytes ${perPage} share a page, which is where XSA-403 comes from`, () => {
    const { memory, heap } = heapOf(2);
    const objects = Array.from({ length: perPage }, () => heap.allocate(size)!);
    assert.equal(new Set(objects).size, perPage);
    assert.equal(new Set(objects.map((at) => Math.floor(at / XEN_PAGE_SIZE))).size, 1);
    assert.equal(memory.pagesFree, 1);
    assert.notEqual(heap.allocate(size), undefined);
    assert.equal(memory.pagesFree, 0);
  });
}

test('an exhausted heap answers undefined, and goes on when something was freed', () => {
  const { heap } = heapOf(1);
  const objects = [heap.allocate(2048)!, heap.allocate(2048)!];
  assert.equal(heap.allocate(2048), undefined);
  assert.equal(heap.allocate(32), undefined);
  heap.free(objects[0], 2048);
  assert.equal(heap.allocate(1025), objects[0]);
});

test('G14: an object is not zeroed: what its last owner left is in it', () => {
  const { memory, heap } = heapOf(1);
  const object = heap.allocate(64)!;
  memory.region.u8.fill(0x5e, object, object + 64);
  heap.free(object, 64);
  assert.equal(heap.allocate(64), object);
  assert.equal(memory.region.u8[object + 63], 0x5e);
});

test('no object has no bytes, and none is longer than a page: errors of ours', () => {
  const { heap } = heapOf(1);
  for (const size of [0, -1, XEN_PAGE_SIZE + 1])
    assert.throws(() => heap.allocate(size), { name: 'AssertionError' });
});

test('objects never overlap, whatever is allocated and freed in between', () => {
  const step = fc.record({ size: fc.integer({ min: 1, max: 4096 }), free: fc.option(fc.nat(), { freq: 2 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { heap } = heapOf(16);
      const live: { at: number; size: number }[] = [];
      for (const { size, free } of steps) {
        if (free !== null && live.length > 0) {
          const [object] = live.splice(free % live.length, 1);
          heap.free(object.at, object.size);
        }
        const at = heap.allocate(size);
        if (at === undefined) continue;
        assert.ok(live.every((other) => at + size <= other.at || other.at + other.size <= at));
        live.push({ at, size });
      }
    }),
    { seed: 5, numRuns: 200 },
  );
});
