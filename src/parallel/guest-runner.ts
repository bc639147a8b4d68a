// Runs a guest inside a thread's event loop, so that sockets are served between two looks at the rings:
// polls while requests are under way, and sleeps on the guest's event channels when that takes long.

import { setImmediate as turn } from 'node:timers/promises';
import { milliseconds } from './clock.ts';
import type { RunnableGuest } from './runnable-guest.ts';

/** Turns of the event loop without a completion before the guest sleeps until an event. */
const SPINS = 50;
/** Longest sleep between two looks, in milliseconds. */
const NAP = 1000;
/** A device that completes nothing for so long is reset, and in the end given up (case B9), in milliseconds. */
export const PATIENCE = 60_000;
/** Why. */
export const STALLED = `the device has completed nothing for ${PATIENCE / 1000} s`;

/** The guest's processor. */
export class GuestRunner {
  readonly #guest: RunnableGuest;
  #paused = false;
  /** Turns since anything happened, and when that was. */
  #idle = 0;
  #busySince = milliseconds();
  /** Ends the sleep for a reason that is no event. */
  #rouse: () => void = () => undefined;
  /** The sleep that is under way; it may outlast the guest's, which then sleeps on in it. */
  #nap: Promise<void> | undefined;

  constructor(guest: RunnableGuest) {
    this.#guest = guest;
    guest.onWaiting = () => this.#resume();
  }

  /** Runs the guest for as long as its thread lives. */
  async run(): Promise<never> {
    for (;;) {
      const due = this.#guest.tick(milliseconds());
      if (this.#paused) await this.#roused();
      else if (this.#guest.poll()) this.#progress();
      else if (++this.#idle > SPINS && !this.#guest.arm()) await this.#sleep(due);
      await turn();
    }
  }

  /** Leaves polling to someone else until `job` is over. */
  async pausedWhile<T>(job: Promise<T>): Promise<T> {
    this.#paused = true;
    try {
      return await job;
    } finally {
      this.#paused = false;
      this.#resume();
    }
  }

  #progress(): void {
    this.#idle = 0;
    this.#busySince = milliseconds();
  }

  #resume(): void {
    this.#idle = 0;
    this.#rouse();
  }

  #roused(): Promise<void> {
    return new Promise((resolve) => {
      this.#rouse = resolve;
    });
  }

  /** Until an event comes, a request is made whose completion may come before an interrupt does, or `due`. */
  async #sleep(due: number): Promise<void> {
    this.#nap ??= this.#guest.ports.events.nextEvent(NAP).then(() => {
      this.#nap = undefined;
    });
    const pause = Math.max(0, due - milliseconds());
    const alarm = Number.isFinite(due) ? setTimeout(() => this.#rouse(), pause) : undefined;
    await Promise.race([this.#nap, this.#roused()]);
    clearTimeout(alarm);
    const isLate = milliseconds() - this.#busySince > PATIENCE;
    if (isLate && this.#guest.busy) this.#guest.revive(STALLED);
    if (isLate || !this.#guest.busy) this.#busySince = milliseconds();
  }
}
