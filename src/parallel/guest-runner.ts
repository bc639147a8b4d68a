// Runs a guest inside a thread's event loop, so that sockets are served between two looks at the rings:
// polls while requests are under way, and sleeps on the guest's event channels when that takes long.

import { setImmediate as turn } from 'node:timers/promises';
import type { GuestDomain } from '../machine/guest-domain.ts';

/** Turns of the event loop without a completion before the guest sleeps until an interrupt. */
const SPINS = 50;
/** Longest sleep between two looks, in milliseconds. */
const NAP = 1000;
/** A device that completes nothing for so long is given up (case B9), in milliseconds. */
export const PATIENCE = 60_000;

export class GuestRunner {
  readonly #guest: GuestDomain;
  #running = false;
  #paused = false;

  constructor(guest: GuestDomain) {
    this.#guest = guest;
    guest.onWaiting = () => this.#start();
  }

  /** Leaves polling to someone else until `job` is over. */
  async pausedWhile<T>(job: Promise<T>): Promise<T> {
    this.#paused = true;
    try {
      return await job;
    } finally {
      this.#paused = false;
      this.#start();
    }
  }

  #start(): void {
    if (this.#running || this.#paused) return;
    this.#running = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    let idle = 0;
    let naps = 0;
    while (this.#guest.busy && !this.#paused) {
      if (this.#guest.poll()) idle = naps = 0;
      else if (++idle > SPINS && !this.#guest.arm()) {
        await this.#guest.ports.events.nextEvent(NAP);
        if (++naps * NAP > PATIENCE)
          this.#guest.giveUp(`the device has completed nothing for ${PATIENCE / 1000} s`);
      }
      await turn();
    }
    this.#running = false;
    // A request that came in the very last turn found `running` still set.
    if (this.#guest.busy) this.#start();
  }
}
