// The watch events that wait for one client. It may never read them, so they are bounded without losing
// news: an event that says what a waiting one says already is merged into it, and beyond the limit, or when the
// client has read nothing for long, only "something at or below your path changed" is kept for each watch.

import { XENSTORE_PAYLOAD_MAX } from '../abi/xenstore.ts';
import type { Domain } from './domains.ts';

/** How long a client may read nothing before its events are reduced to one for each watch. */
export const STALLED_MS = 20_000;
/** Events that wait for a client without a quota. */
const EVENTS_WITHOUT_QUOTA = 4096;

/** One watch. */
export interface Watch {
  readonly subscriber: Subscriber;
  /** Absolute. */
  readonly path: string;
  readonly token: string;
  /** Levels below `path` that count; undefined is all. */
  readonly depth: number | undefined;
  /** Characters that a reported path loses at its start: a relative watch hears relative paths. */
  readonly prefix: number;
}

/** An event on its way, as the client will see it. */
interface WatchEvent {
  readonly watch: Watch;
  /** As in the client's own WATCH: relative if that was. */
  readonly path: string;
}

/** One client's watches and what they have to report. */
export class Subscriber {
  readonly domain: Domain;
  readonly watches = new Set<Watch>();
  readonly #waiting = new Map<string, WatchEvent>();
  readonly #now: () => number;
  readonly #wake: () => void;
  #lastTaken = 0;
  /** Whether the client has been found to read nothing, and has still not. */
  #reduced = false;

  /** `wake` is called when an event waits and none did; `now` counts milliseconds. */
  constructor(domain: Domain, now: () => number, wake: () => void) {
    this.domain = domain;
    this.#now = now;
    this.#wake = wake;
  }

  /** Events that wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Notes that `path` (absolute) changed, for `watch`. */
  event(watch: Watch, path: string): void {
    if (this.#waiting.size === 0) this.#lastTaken = this.#now();
    else if (!this.#reduced && this.#now() - this.#lastTaken > STALLED_MS) this.#reduce();
    this.#add(watch, this.#reduced || this.#waiting.size >= this.#limit() ? watch.path : path);
  }

  /** The event that has waited longest. */
  take(): WatchEvent | undefined {
    for (const [key, event] of this.#waiting) {
      this.#waiting.delete(key);
      this.#lastTaken = this.#now();
      this.#reduced = false;
      return event;
    }
    return undefined;
  }

  /** Forgets every event that waits. */
  clear(): void {
    this.#waiting.clear();
    this.#reduced = false;
  }

  #limit(): number {
    const { domain } = this;
    return domain.privileged || domain.limits.events === 0 ? EVENTS_WITHOUT_QUOTA : domain.limits.events;
  }

  #add(watch: Watch, absolute: string): void {
    const path = absolute.slice(watch.prefix);
    // The client could not take a longer message (XSA-324).
    if (path.length + watch.token.length + 2 > XENSTORE_PAYLOAD_MAX) return;
    const key = `${path}\0${watch.token}`;
    if (this.#waiting.has(key)) return;
    const first = this.#waiting.size === 0;
    this.#waiting.set(key, { watch, path });
    if (first) this.#wake();
  }

  #reduce(): void {
    const watches = new Set(Array.from(this.#waiting.values(), ({ watch }) => watch));
    this.#waiting.clear();
    for (const watch of watches) this.#add(watch, watch.path);
    this.#reduced = true;
  }
}
