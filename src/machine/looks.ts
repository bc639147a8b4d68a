// Looks at the store, one after the other, in answer to watch events that may come faster than they can be answered
// (cases X7 and X17). Used by both ends of a device: guest-devices.ts and guest-device.ts, backend-service.ts and
// backend-device.ts.

import { type Unwatch, type Xenstore, XenstoreError } from '../xen/xenstore.ts';

/** A function that finds out what has changed; run once for all the events that come while it has not begun. */
export class Looks {
  readonly #look: () => Promise<void>;
  #running: Promise<void> = Promise.resolve();
  #due = false;
  #ended = false;
  #unwatch: Unwatch | undefined;
  /** Why the last look could not be finished; nothing is done before the next event then. */
  trouble: XenstoreError | undefined;

  /** @param look may reject with XenstoreError, for a peer can make any use of the store fail */
  constructor(look: () => Promise<void>) {
    this.#look = look;
  }

  /** Whether something has changed since the look that is under way began. */
  get due(): boolean {
    return this.#due;
  }

  /** To be called when something has changed. */
  soon(): void {
    if (this.#due || this.#ended) return;
    this.#due = true;
    this.#running = this.#running.then(() => this.#run());
  }

  /** Looks whenever something at or below `path` changes; the store says so once at once. */
  async watch(store: Xenstore, path: string): Promise<void> {
    this.#unwatch = await store.watch(path, () => this.soon());
  }

  /** Resolves when no look is under way, nor to come without another change. */
  async settled(): Promise<void> {
    for (let running: unknown; running !== this.#running; ) {
      running = this.#running;
      await running;
    }
  }

  /** Stops watching. Resolves when no look is under way, and begins no other. */
  async end(): Promise<void> {
    await this.#unwatch?.();
    this.#ended = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    this.#due = false;
    if (this.#ended) return;
    try {
      await this.#look();
      this.trouble = undefined;
    } catch (error) {
      if (!(error instanceof XenstoreError)) throw error;
      this.trouble = error;
      // Others were faster, again and again: they have to stop some time.
      if (error.code === 'EAGAIN') this.soon();
    }
  }
}
