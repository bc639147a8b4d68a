// What a request has in hand is reported when all of it is mapped, and is over after it has been let go of.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../abi/region.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { MAPPING_PENDING } from './device-memory.ts';
import { Iotlb } from './iotlb.ts';
import { IotlbMemory } from './iotlb-memory.ts';
import { RegionTable } from './region-table.ts';
import { type NeedTracer, TracedMemory } from './traced-memory.ts';

const PAGE = 4096;
const USER = 0x7000_0000;

/** A tracer that notes what it is told, and reports only pages that are not in `left`. */
function scene(left: readonly number[] = []) {
  const told: (readonly (string | number)[])[] = [];
  const needs: NeedTracer = {
    need: (page, offset, size, direction) => {
      told.push(['need', page, offset, size, direction]);
      return !left.includes(page);
    },
    needEnd: (page, offset, size) => void told.push(['end', page, offset, size]),
  };
  const memory = regionOver(new ArrayBuffer(8 * PAGE));
  const iotlb = new Iotlb(() => undefined);
  const table = new RegionTable([{ guest: 0, user: USER, size: 8 * PAGE, memory }]);
  return { told, iotlb, traced: new TracedMemory(new IotlbMemory(table, iotlb), needs) };
}

/** Maps page `page` of the guest's I/O addresses, for reading and writing. */
function allow(iotlb: Iotlb, page: number): void {
  iotlb.update({ iova: page * PAGE, user: USER, size: PAGE, right: 3 });
}

test('buffers are needed from when all are mapped until they are let go of', () => {
  const { told, iotlb, traced } = scene();
  allow(iotlb, 5);
  allow(iotlb, 6);
  const access = traced.newChainAccess();
  assert.equal(access.map(5 * PAGE + 16, 0, 16, false), 0);
  assert.equal(access.map(6 * PAGE, 0, 100, true), 0);
  assert.deepEqual(told, [], 'not before the last of them');
  assert.equal(access.ready(), 0);
  const needs = [
    ['need', 5, 16, 16, DMA_TO_DEVICE],
    ['need', 6, 0, 100, DMA_FROM_DEVICE],
  ];
  assert.deepEqual(told, needs);
  assert.deepEqual([access.readable.byteLength, access.writable.byteLength], [16, 100]);
  access.release(16, 100, 0);
  assert.deepEqual(told, [...needs, ['end', 5, 16, 16], ['end', 6, 0, 100]]);
  access.release(0, 0, 0);
  assert.equal(told.length, 4, 'once');
});

test('a chain that has to wait, or is refused, needs nothing', () => {
  const { told, iotlb, traced } = scene();
  allow(iotlb, 5);
  const access = traced.newChainAccess();
  access.map(5 * PAGE, 0, 16, false);
  assert.equal(access.map(7 * PAGE, 0, 16, false), MAPPING_PENDING);
  access.release(0, 0, 0);
  assert.deepEqual(told, []);
  // The device answers with the last buffer alone.
  access.map(5 * PAGE, 0, 1, true);
  access.ready();
  access.release(0, 1, 0);
  assert.deepEqual(told, [
    ['need', 5, 0, 1, DMA_FROM_DEVICE],
    ['end', 5, 0, 1],
  ]);
});

test('what was not reported does not end', () => {
  const { told, iotlb, traced } = scene([5]);
  for (const page of [5, 6]) allow(iotlb, page);
  const access = traced.newChainAccess();
  for (const page of [5, 6]) access.map(page * PAGE, 0, 8, false);
  access.ready();
  access.release(16, 0, 0);
  assert.deepEqual(
    told.filter(([what]) => what === 'end'),
    [['end', 6, 0, 8]],
  );
});

test('a ring is needed while it is mapped; addresses beyond 2^32 and of grants are pages as well', () => {
  const { told, iotlb, traced } = scene();
  const high = 2 ** 20 + 3;
  iotlb.update({ iova: high * PAGE, user: USER, size: 2 * PAGE, right: 3 });
  const ring = traced.mapRing((high * PAGE + 64) % 2 ** 32, 1, PAGE);
  ring.release();
  assert.deepEqual(told, [
    ['need', high, 64, PAGE, DMA_BIDIRECTIONAL],
    ['end', high, 64, PAGE],
  ]);
});

test('a grant is told of by its reference', () => {
  const told: number[] = [];
  const needs: NeedTracer = { need: (page) => told.push(page) > 0, needEnd: () => undefined };
  const access = {
    readable: undefined!,
    writable: undefined!,
    map: () => 0,
    ready: () => 0,
    release: () => 0,
  };
  const memory = { newChainAccess: () => access, mapRing: () => assert.fail() };
  const traced = new TracedMemory(memory, needs).newChainAccess();
  // 1 << 63 | 0xfedcba98 << 12 | 8
  traced.map(0xcba98_008, 0x8000_0fed, 8, false);
  traced.ready();
  assert.deepEqual(told, [0xfedcba98]);
});
