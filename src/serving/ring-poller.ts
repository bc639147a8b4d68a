// The rings of a worker: those that are busy are looked at in every turn; one that has had nothing for long is armed,
// looked at once more, and then left to its driver, who notifies. Used by queue-worker.ts.

import type { LocalRings } from '../transports/vhost-user/local-rings.ts';

/** A ring that runs. */
export interface ServedRing {
  readonly session: number;
  readonly rings: LocalRings;
  readonly index: number;
  /** Names it in epoll. */
  readonly token: number;
  /** Descriptor by which its driver notifies; -1 where a message says so. */
  readonly kick: number;
}

/** A ring, and whether it is looked at. */
interface Entry extends ServedRing {
  awake: boolean;
  /** When there was something to do last, in milliseconds of the monotonic clock; -1 for just now. */
  busyAt: number;
}

/** Looks at rings. */
export class RingPoller {
  readonly #broken: (ring: ServedRing, error: unknown) => void;
  readonly #rings = new Map<number, Entry>();
  /** Those that are looked at in every turn. */
  #awake: Entry[] = [];

  /** @param broken an error of ours has ended a ring, which is not looked at any more */
  constructor(broken: (ring: ServedRing, error: unknown) => void) {
    this.#broken = broken;
  }

  /** Whether any ring is looked at. */
  get anyAwake(): boolean {
    return this.#awake.length > 0;
  }

  /** Looks at a ring from now on: whatever its driver did before is found then. */
  add(ring: ServedRing): void {
    const entry: Entry = { ...ring, awake: false, busyAt: -1 };
    this.#rings.set(ring.token, entry);
    this.#wake(entry);
  }

  /** The ring of that number in a session, if it runs. */
  find(session: number, index: number): ServedRing | undefined {
    for (const ring of this.#rings.values())
      if (ring.session === session && ring.index === index) return ring;
    return undefined;
  }

  remove({ token }: ServedRing): void {
    const entry = this.#rings.get(token);
    if (entry === undefined) return;
    this.#rings.delete(token);
    this.#forget(entry);
  }

  /** The driver of the ring of that token has notified. */
  notified(token: number): void {
    const ring = this.#rings.get(token);
    if (ring === undefined) return;
    ring.rings.meter?.notified();
    this.#wake(ring);
  }

  /** Looks at every ring that is awake. Returns whether there was anything to do. */
  look(): boolean {
    let busy = false;
    // By index: a ring that fails does not leave the list before the control thread stops it.
    for (let i = 0; i < this.#awake.length; i++) {
      const ring = this.#awake[i];
      if (!this.#guarded(ring, () => ring.rings.look(ring.index))) continue;
      ring.busyAt = -1;
      busy = true;
    }
    return busy;
  }

  /** Lets rings sleep that have had nothing for `milliseconds`, unless something has come just then. */
  letSleep(milliseconds: number): void {
    const now = performance.now();
    let asleep = false;
    for (const ring of this.#awake) {
      if (ring.busyAt < 0) ring.busyAt = now;
      else if (ring.busyAt <= now - milliseconds) {
        ring.awake = this.#guarded(ring, () => ring.rings.arm(ring.index));
        asleep ||= !ring.awake;
      }
    }
    if (asleep) this.#awake = this.#awake.filter(({ awake }) => awake);
  }

  #wake(ring: Entry): void {
    if (ring.awake) return;
    ring.awake = true;
    ring.busyAt = -1;
    this.#awake.push(ring);
  }

  #forget(ring: Entry): void {
    ring.awake = false;
    this.#awake = this.#awake.filter((other) => other !== ring);
  }

  /** An error of ours ends this ring's session, and not the thread with everybody else's. */
  #guarded(ring: Entry, step: () => boolean): boolean {
    try {
      return step();
    } catch (error) {
      this.#forget(ring);
      this.#broken(ring, error);
      return false;
    }
  }
}
