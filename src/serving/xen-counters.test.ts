// What is counted of a device in a driver domain beside its queues: its driver comes and goes with them, and what is
// mapped of its guest's memory is what it reaches.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newDeviceCounters } from './counter-blocks.ts';
import { type DeviceFigures, deviceFigures } from './serving-figures.ts';
import { XenCounters } from './xen-counters.ts';

function bench(): { readonly meter: XenCounters; readonly figures: () => DeviceFigures } {
  const counters = newDeviceCounters(1);
  const device = { name: '3/blk', kind: 'blk', guest: 3, counters, violations: new Map() };
  return { meter: new XenCounters(counters, 'blk'), figures: () => deviceFigures(device, 1) };
}

test('a driver is there as long as one of its queues is, and each counts once', () => {
  const { meter, figures } = bench();
  const seen = (): unknown => {
    const { connected, sessions, enabledQueues } = figures();
    return [connected, sessions, enabledQueues];
  };
  assert.deepEqual(seen(), [false, 0, 0]);
  const [first, second] = [meter.queue(0, 8), meter.queue(1, 8)];
  assert.deepEqual(seen(), [true, 1, 2]);
  first.closed();
  assert.deepEqual(seen(), [true, 1, 1]);
  second.closed();
  assert.deepEqual(seen(), [false, 1, 0]);
  meter.queue(0, 8);
  assert.deepEqual(seen(), [true, 2, 1]);
  assert.ok(figures().connectedSince > 1_700_000_000);
});

test('what is mapped is what it reaches, until it is mapped no more', () => {
  const { meter, figures } = bench();
  meter.mapped(3);
  meter.mapped(-1);
  const { mappings, mappedBytes, exposedBytes } = figures();
  assert.deepEqual([mappings, mappedBytes, exposedBytes], [2, 8192, 8192]);
  meter.mapped(-2);
  assert.equal(figures().exposedBytes, 0);
});
