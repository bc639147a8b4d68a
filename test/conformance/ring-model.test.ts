// Both sides of a split virtqueue against a model of lists, for any order of steps (13, 14): chains are taken
// once each, in the order they were offered; answers come back in the order they were given; and free plus
// in flight is the size.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { ADDED, QUEUE_FULL } from '../../src/virtqueue/driver-queue.ts';
import type { Chain } from '../../src/virtqueue/device-queue.ts';
import type { QueueFeatures } from '../../src/virtqueue/split-ring.ts';
import { ALL_FEATURES, nameOf, PlainRing } from '../support/plain-ring.test.helper.ts';

/** A step: a number of buffers to add, or which request in flight to answer. */
const steps = fc.oneof(
  fc.record({ action: fc.constant('add' as const), value: fc.integer({ min: 1, max: 8 }) }),
  fc.record({ action: fc.constant('pop' as const), value: fc.constant(0) }),
  fc.record({ action: fc.constant('complete' as const), value: fc.nat(100) }),
  fc.record({ action: fc.constant('poll' as const), value: fc.constant(0) }),
);

/** What the queue should be: who is where. */
class Model {
  readonly offered: number[] = [];
  readonly taken: { token: number; chain: Chain }[] = [];
  readonly answered: number[] = [];
  /** Descriptors of the ring that each request holds, and bytes it has room for. */
  readonly held = new Map<number, number>();

  free(size: number): number {
    return size - [...this.held.values()].reduce((sum, count) => sum + count, 0);
  }
}

/** `count` buffers, the first half of them readable, whose lengths tell the request apart. */
function buffersOf(token: number, count: number): BufferList {
  const list = new BufferList();
  for (let i = 0; i < count; i++) {
    if (i < count >> 1) list.addReadable(100 * i, (token % 50) + 1);
    else list.addWritable(100 * i, (token % 50) + 2);
  }
  return list;
}

function run(
  script: readonly { action: string; value: number }[],
  size: number,
  features: QueueFeatures,
): void {
  const ring = new PlainRing(size, features);
  const model = new Model();
  let token = 0;
  for (const { action, value } of script) {
    if (action === 'add') add(ring, model, token++, Math.min(value, ring.driver.maxBuffers));
    else if (action === 'pop') pop(ring, model);
    else if (action === 'complete') complete(ring, model, value);
    else poll(ring, model);
    assert.equal(ring.driver.inFlight, model.held.size);
    assert.equal(ring.device.inFlight, model.taken.length);
    assert.equal(ring.driver.hasRoom(1), model.free(size) > 0, 'free + in flight is the size');
  }
}

function add(ring: PlainRing, model: Model, token: number, count: number): void {
  const before = model.free(ring.driver.size);
  const room = ring.driver.hasRoom(count);
  assert.equal(ring.driver.add(buffersOf(token, count), token), room ? ADDED : QUEUE_FULL);
  if (!room) return;
  // With tables, a request may take one descriptor instead of all.
  const all = count <= before && model.free(ring.driver.size) >= count;
  const direct = all && (ring.table.flags(ring.available.head(ring.available.index - 1)) & 4) === 0;
  model.held.set(token, direct ? count : 1);
  model.offered.push(token);
}

function pop(ring: PlainRing, model: Model): void {
  const chain = ring.device.pop();
  const token = model.offered.shift();
  assert.equal(chain === undefined, token === undefined, 'as many chains as were offered, no more');
  if (chain === undefined || token === undefined) return;
  const { readable, writable } = chain;
  assert.equal(readable.byteLength % ((token % 50) + 1), 0);
  assert.equal(writable.byteLength % ((token % 50) + 2), 0);
  model.taken.push({ token, chain });
}

function complete(ring: PlainRing, model: Model, which: number): void {
  if (model.taken.length === 0) return;
  const [{ token, chain }] = model.taken.splice(which % model.taken.length, 1);
  ring.device.complete(chain, 0, chain.writable.byteLength);
  model.answered.push(token);
}

function poll(ring: PlainRing, model: Model): void {
  const token = model.answered.shift() ?? -1;
  assert.equal(ring.driver.poll(), token, 'answers come once, in the order they were given');
  if (token < 0) return;
  assert.equal(ring.driver.lastLength % ((token % 50) + 2), 0);
  assert.equal(ring.driver.lastStillShared, false);
  model.held.delete(token);
}

for (const features of ALL_FEATURES) {
  test(`§2.7 any order of steps gives what lists give (13, 14), ${nameOf(features)}`, () => {
    const script = fc.array(steps, { minLength: 5, maxLength: 120 });
    fc.assert(
      fc.property(script, fc.constantFrom(1, 2, 4, 8, 16), (each, size) => run(each, size, features)),
      { seed: 13, numRuns: 400 },
    );
  });
}
