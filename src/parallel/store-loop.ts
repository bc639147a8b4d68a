// Runs domain 0, which keeps the store, in the main thread's event loop: it sleeps on its event channels
// without blocking, and a guest that may write again only later costs a timer. After store-domain.ts.

import { setImmediate as turn } from 'node:timers/promises';
import type { Xen } from '../hosts/model/xen.ts';
import type { StoreDomain } from '../machine/store-domain.ts';

export class StoreLoop {
  readonly #domain: StoreDomain;
  readonly #wake: () => void;
  readonly #ended: Promise<void>;
  #stopped = false;

  /** Starts serving. */
  constructor(xen: Xen, domain: StoreDomain) {
    this.#domain = domain;
    this.#wake = () => xen.events.wake(xen.domain(domain.ports.id));
    domain.onDue = this.#wake;
    this.#ended = this.#run();
  }

  /** Ends it; resolves when nothing is served any more. */
  stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    return this.#ended;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      // The main thread has other work too: it gets a turn after each round of the rings.
      if (this.#domain.poll()) await turn();
      else await this.#domain.ports.events.nextEvent(this.#domain.delay);
    }
  }
}
