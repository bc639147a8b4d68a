// No lost wake-up (18): when both sides of a queue sleep, no work is pending. Every interleaving of a small
// script up to a number of switches, one side stepping in between any two accesses of the other to the rings.
// virtio 1.3 §2.7.7, §2.7.10, §2.7.13.4.1.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { QueueFeatures } from '../../src/virtqueue/split-ring.ts';
import { ALL_FEATURES, nameOf, PlainRing } from '../support/plain-ring.test.helper.ts';
import { everyInterleaving, withPreemption } from '../support/preemption.test.helper.ts';

const REQUESTS = 3;
/** More steps than any interleaving of so few requests takes. */
const MAX_STEPS = 200;

/** A side that runs step by step and sleeps when it has nothing to do. */
interface Side {
  awake: boolean;
  step(): void;
}

/** Both sides, and the two wires between them. */
class Pair {
  readonly ring: PlainRing;
  answered = 0;
  #sent = 0;
  readonly driver: Side = { awake: true, step: () => this.#driverStep() };
  readonly device: Side = { awake: true, step: () => this.#deviceStep() };

  constructor(size: number, features: QueueFeatures) {
    this.ring = new PlainRing(size, features, 64 * 1024);
  }

  /** Sends what there is room for, takes answers, and sleeps only if enabling interrupts shows nothing new. */
  #driverStep(): void {
    const { driver } = this.ring;
    if (this.#sent < REQUESTS && driver.hasRoom(1)) {
      this.ring.add(this.#sent++);
      if (driver.takeNotification()) this.device.awake = true;
    } else if (driver.poll() >= 0) {
      driver.disableInterrupts();
      this.answered++;
    } else {
      // Asleep first: an interrupt that comes from now on wakes it again.
      this.driver.awake = false;
      if (driver.enableInterrupts()) this.driver.awake = true;
    }
  }

  /** As device-state.ts serves a turn, one chain a step. */
  #deviceStep(): void {
    const { device } = this.ring;
    device.disableNotifications();
    const chain = device.pop();
    if (chain !== undefined) {
      device.complete(chain, 0, 0);
      if (device.takeInterrupt()) this.driver.awake = true;
      return;
    }
    this.device.awake = false;
    if (device.enableNotifications()) this.device.awake = true;
  }

  /** Runs `first` whenever it is awake and the other one otherwise, until both sleep. */
  run(first: Side, second: Side, switchNow: () => boolean): void {
    for (let steps = 0; first.awake || second.awake; steps++) {
      assert.ok(steps < MAX_STEPS, 'both sides come to rest');
      const [running, other] = first.awake ? [first, second] : [second, first];
      withPreemption(
        () => {
          if (other.awake && switchNow()) other.step();
        },
        () => running.step(),
      );
    }
  }
}

for (const features of ALL_FEATURES.filter(({ indirect }) => !indirect)) {
  for (const size of [1, 2]) {
    test(`§2.7.13.4.1 nothing is pending when both sides sleep (18), size ${size}, ${nameOf(features)}`, () => {
      let runs = 0;
      for (const driverFirst of [true, false]) {
        runs += everyInterleaving(3, (switchNow) => {
          const pair = new Pair(size, features);
          const [first, second] = driverFirst ? [pair.driver, pair.device] : [pair.device, pair.driver];
          pair.run(first, second, switchNow);
          assert.equal(pair.answered, REQUESTS, 'every request is answered before both sides sleep');
        });
      }
      assert.ok(runs > 1000, `${runs} interleavings`);
    });
  }
}
