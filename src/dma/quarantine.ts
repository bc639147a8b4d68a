// Pages that a backend still maps when access to them should have ended (XSA-396). Until that has worked, page
// and reference belong to the quarantine, whatever their last owner does with them: the page has one holder
// more (guest-memory.ts), the reference is not free (references.ts). After grants.ts.
//
// Access is tried again after pauses that double from one try to the next. There are no timers here: whoever
// runs the guest calls `tick`.

import type { FrameNumber, GrantRef } from '../xen/ids.ts';
import type { GrantingDomain } from './granting-domain.ts';

/** Milliseconds from the first failed try to the next. */
const FIRST_PAUSE = 1;
/** How often the pause doubles: the longest is about four seconds. */
const DOUBLINGS = 12;
/** Most tries in one tick: a backend that holds thousands of pages must not stop the guest. */
const TRIES = 64;

/** What has passed through a quarantine. */
export interface QuarantineCounts {
  readonly entered: number;
  readonly recovered: number;
  /** References, each with its page, that are in it now. */
  readonly now: number;
  /** Milliseconds for which the oldest of them had been in it at the last tick; 0 when there is none. */
  readonly oldest: number;
}

/** The counts of what never needs a quarantine. */
export const NO_QUARANTINE: QuarantineCounts = { entered: 0, recovered: 0, now: 0, oldest: 0 };

interface Entry {
  readonly ref: GrantRef;
  readonly frame: FrameNumber;
  readonly since: number;
  /** Failed ticks so far, as far as they make the pause longer. */
  level: number;
  due: number;
}

/** The quarantine of what one device shared. */
export class Quarantine {
  readonly #domain: GrantingDomain;
  /** In the order in which they came. */
  readonly #entries = new Map<GrantRef, Entry>();
  /** The same by length of their pause. All of one set wait equally long, so its first is due first. */
  readonly #levels: Set<Entry>[] = Array.from({ length: DOUBLINGS + 2 }, () => new Set());
  #entered = 0;
  #recovered = 0;
  /** The time of the last tick. */
  #now = 0;

  constructor(domain: GrantingDomain) {
    this.#domain = domain;
  }

  get size(): number {
    return this.#entries.size;
  }

  get counts(): QuarantineCounts {
    const [oldest] = this.#entries.values();
    return {
      entered: this.#entered,
      recovered: this.#recovered,
      now: this.#entries.size,
      oldest: oldest === undefined ? 0 : this.#now - oldest.since,
    };
  }

  /** Takes over a page, and the reference through which the backend still maps it. */
  add(ref: GrantRef, frame: FrameNumber): void {
    const { references, memory, tracer, id } = this.#domain;
    if (tracer.enabled) tracer.busy(id, ref);
    references.quarantine(ref);
    memory.hold(frame, 1);
    const entry = { ref, frame, since: this.#now, level: 0, due: this.#now };
    this.#entries.set(ref, entry);
    this.#levels[0].add(entry);
    this.#entered++;
  }

  /** Tries at once what is in it, all of it. Returns how many pages came free. */
  retry(): number {
    const before = this.#recovered;
    for (const entry of this.#entries.values()) this.#tryToRelease(entry);
    return this.#recovered - before;
  }

  /**
   * Tries what is due at `now`, a bounded amount.
   *
   * @param now milliseconds on a clock that never runs backwards
   * @returns when to call again; Infinity when nothing waits
   */
  tick(now: number): number {
    this.#now = now;
    let tries = TRIES;
    for (const level of this.#levels) {
      for (const entry of level) {
        if (entry.due > now || tries === 0) break;
        tries--;
        if (!this.#tryToRelease(entry)) this.#postpone(entry);
      }
    }
    return this.#nextDue();
  }

  /**
   * Gives up what is in it, for the guest goes on in another host, where nothing of it is granted: the host in
   * which it was does not reach this memory any more.
   */
  forget(): void {
    const { memory, tracer, id } = this.#domain;
    for (const { ref, frame } of this.#entries.values()) {
      if (tracer.enabled) tracer.revoke(id, ref, 1);
      memory.release(frame, 1);
      this.#recovered++;
    }
    this.#entries.clear();
    for (const level of this.#levels) level.clear();
  }

  #tryToRelease(entry: Entry): boolean {
    const { references, table, memory, tracer, id } = this.#domain;
    const { ref, frame } = entry;
    if (table.revoke(ref, 1) > 0) return false;
    if (tracer.enabled) tracer.revoke(id, ref, 1);
    this.#entries.delete(ref);
    this.#levels[entry.level].delete(entry);
    references.recover(ref);
    memory.release(frame, 1);
    this.#recovered++;
    return true;
  }

  #postpone(entry: Entry): void {
    this.#levels[entry.level].delete(entry);
    entry.due = this.#now + FIRST_PAUSE * 2 ** Math.min(entry.level, DOUBLINGS);
    entry.level = Math.min(entry.level + 1, DOUBLINGS + 1);
    this.#levels[entry.level].add(entry);
  }

  #nextDue(): number {
    let due = Number.POSITIVE_INFINITY;
    for (const level of this.#levels)
      for (const first of level) {
        due = Math.min(due, first.due);
        break;
      }
    return due;
  }
}
