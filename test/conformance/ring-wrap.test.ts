// The free-running u16 indices of a split virtqueue at every value they have, small queues exhaustively:
// virtio 1.3 §2.7.6, §2.7.8, §2.7.13.3. What stands in the place of a proof.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Chain } from '../../src/virtqueue/device-queue.ts';
import type { QueueFeatures } from '../../src/virtqueue/split-ring.ts';
import { ALL_FEATURES, nameOf, PlainRing } from '../support/plain-ring.test.helper.ts';

/** A lap of the indices, and some more. */
const ROUNDS = 65536 + 64;

/** Keeps `depth` requests in flight for a lap; the device answers the oldest, or the newest, of them. */
function lap(size: number, features: QueueFeatures, depth: number, newestFirst: boolean): void {
  const ring = new PlainRing(size, features);
  const { driver, device } = ring;
  const taken: { chain: Chain; token: number }[] = [];
  let offered = 0;
  for (let round = 0; round < ROUNDS; round++) {
    while (driver.inFlight < depth) {
      ring.add(offered & 0x7fff);
      taken.push({ chain: ring.pop(), token: offered++ & 0x7fff });
    }
    if (device.pop() !== undefined) assert.fail('nothing is taken that was not offered');
    if (driver.hasRoom(1) !== driver.inFlight < size) assert.fail('free + in flight is not the size');
    const { chain, token } = newestFirst ? taken.pop()! : taken.shift()!;
    device.complete(chain, 0, round & 7);
    if (driver.poll() !== token) assert.fail(`round ${round}: not the token that was answered`);
    if (driver.lastLength !== (round & 7)) assert.fail(`round ${round}: not the length of the answer`);
    if (driver.poll() !== -1) assert.fail(`round ${round}: one answer is taken twice`);
  }
  assert.equal(ring.available.index, offered & 0xffff);
  assert.equal(ring.used.index, ROUNDS & 0xffff);
  assert.equal(device.inFlight, depth - 1);
}

for (const features of ALL_FEATURES) {
  for (const size of [1, 2, 4]) {
    test(`§2.7.13.3 every request is served once at every index, size ${size}, ${nameOf(features)}`, () => {
      for (let depth = 1; depth <= size; depth++) {
        lap(size, features, depth, false);
        if (depth === size && depth > 1) lap(size, features, depth, true);
      }
    });
  }
}

for (const size of [1, 2, 4]) {
  test(`§2.7.7.2 §2.7.10 with event indices, the first buffer after a look notifies, at every index, size ${size}`, () => {
    const ring = new PlainRing(size, { indirect: false, eventIndex: true });
    const { driver, device } = ring;
    for (let round = 0; round < ROUNDS; round++) {
      if (device.enableNotifications() || driver.enableInterrupts()) assert.fail('nothing is waiting');
      const burst = 1 + (round % size);
      for (let i = 0; i < burst; i++) {
        ring.add(i);
        if (driver.takeNotification() !== (i === 0))
          assert.fail(`round ${round}: notification for buffer ${i}`);
      }
      for (let i = 0; i < burst; i++) {
        device.complete(ring.pop(), 0, 0);
        if (device.takeInterrupt() !== (i === 0)) assert.fail(`round ${round}: interrupt for answer ${i}`);
      }
      for (let i = 0; i < burst; i++) driver.poll();
    }
  });
}

test('§2.7.7.2 notifications that are taken for several buffers at once count as the last of them', () => {
  const ring = new PlainRing(4, { indirect: false, eventIndex: true });
  const { driver, device } = ring;
  for (let round = 0; round < ROUNDS; round++) {
    device.enableNotifications();
    driver.enableInterrupts();
    for (let i = 0; i < 3; i++) ring.add(i);
    if (!driver.takeNotification() || driver.takeNotification()) assert.fail(`round ${round}: one for three`);
    for (let i = 0; i < 3; i++) device.complete(ring.pop(), 0, 0);
    if (!device.takeInterrupt() || device.takeInterrupt()) assert.fail(`round ${round}: one for three`);
    for (let i = 0; i < 3; i++) driver.poll();
  }
});
