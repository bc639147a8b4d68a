// Any byte string as ring memory (20): the device's side ends within bounds, well or broken, and never with
// anything but a ProtocolViolation. Tens of thousands of rings, random and nearly right.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../../src/abi/region.ts';
import { splitRingSizes } from '../../src/abi/split-ring.ts';
import { ProtocolViolation } from '../../src/errors.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { PlainMemory } from '../../src/memory/plain-memory.ts';
import { DeviceQueue } from '../../src/virtqueue/device-queue.ts';
import { ALL_FEATURES, nameOf } from '../support/plain-ring.test.helper.ts';

const BYTES = 4096;
/** Ring areas lie in the upper half; the lower one is what most addresses point at. */
const RING = 2048;
const RUNS = { noise: 2_000, 'nearly right': 8_000 };

type Random = (below: number) => number;

/** Fills everything with noise: what a driver gone mad leaves behind. */
function noise(u8: Uint8Array, below: Random): void {
  for (let i = 0; i < u8.length; i++) u8[i] = below(256);
}

/** A ring whose every field is likely, and now and then impossible. */
function nearlyRight(view: DataView, size: number, driver: number, below: Random): void {
  const rarely = (odd: number, usual: number) => (below(12) === 0 ? odd : usual);
  const record = (at: number, entries: number) => {
    view.setUint32(at, rarely(below(2 ** 32), below(RING)), true);
    view.setUint32(at + 4, rarely(below(2 ** 32), 0), true);
    view.setUint32(at + 8, rarely(below(2 ** 32), [0, 1, 16, 32, 48, 512][below(6)]), true);
    view.setUint16(at + 12, rarely(below(65536), [0, 1, 1, 1, 2, 3, 3, 4][below(8)]), true);
    view.setUint16(at + 14, rarely(below(65536), below(entries)), true);
  };
  for (let at = 0; at < RING; at += 16) record(at, 4);
  for (let i = 0; i < size; i++) {
    record(RING + i * 16, size);
    view.setUint16(driver + 4 + i * 2, rarely(below(65536), below(size)), true);
  }
  view.setUint16(driver + 2, rarely(below(65536), below(size + 1)), true);
}

for (const features of ALL_FEATURES) {
  for (const shape of ['noise', 'nearly right'] as const) {
    test(`F1-F16 any bytes as a ring end well or broken (20): ${shape}, ${nameOf(features)}`, () => {
      const random = randomFrom(20);
      const below: Random = (limit) => Math.floor(random() * limit);
      const outcomes = new Map<string, number>();
      for (let run = 0; run < RUNS[shape]; run++) {
        const size = 2 ** below(5);
        const sizes = splitRingSizes(size);
        const region = regionOver(new ArrayBuffer(BYTES));
        const driver = RING + sizes.descriptor;
        const device = (driver + sizes.driver + 3) & ~3;
        if (shape === 'noise') noise(region.u8, below);
        else nearlyRight(new DataView(region.buffer), size, driver, below);
        const memory = new PlainMemory(region);
        const queue = new DeviceQueue(
          size,
          {
            descriptor: memory.mapRing(RING, 0, sizes.descriptor),
            driver: memory.mapRing(driver, 0, sizes.driver),
            device: memory.mapRing(device, 0, sizes.device),
          },
          memory,
          features,
        );
        const outcome = serveAll(queue, size);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
      if (shape === 'nearly right') {
        // The search is worth something only if it gets everywhere.
        assert.ok((outcomes.get('well') ?? 0) > RUNS[shape] / 20, 'many rings are served');
        for (const clause of ['§2.7.5', '§2.7.5.2', '§2.7.5.3.1', '§2.7.6', '§2.7.6.1', '§2.7.4.2'])
          assert.ok(
            outcomes.has(clause),
            `${clause} is broken by some ring: ${[...outcomes.keys()].join(' ')}`,
          );
      }
    });
  }
}

/** Serves until nothing is left or the queue breaks; returns "well" or the clause. */
function serveAll(queue: DeviceQueue, size: number): string {
  try {
    queue.disableNotifications();
    for (let steps = 0; ; steps++) {
      assert.ok(steps <= size, 'no more chains than the ring has entries');
      const chain = queue.pop();
      if (chain === undefined) break;
      assert.ok(chain.readable.byteLength + chain.writable.byteLength <= 2 ** 32);
      // Half of them are answered at once, so that heads are in flight as well.
      if (steps % 2 === 0) queue.complete(chain, 0, 0);
      queue.takeInterrupt();
    }
    queue.enableNotifications();
    return 'well';
  } catch (error) {
    if (!(error instanceof ProtocolViolation)) throw error;
    return error.clause;
  } finally {
    queue.close();
  }
}
