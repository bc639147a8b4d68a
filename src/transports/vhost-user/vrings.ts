// The rings of a session: what the frontend has said about each, and whether it runs. A ring runs when it has a size,
// addresses and a kick, and is enabled; it pauses while what it depends on changes. After session.ts, before the
// runner (platform.ts).

import { isSplitRingSize } from '../../abi/split-ring.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { RingPlaces } from '../../virtqueue/ring-areas.ts';
import { OwnedFd } from './owned-fd.ts';
import type { InflightArea } from './inflight-journal.ts';
import type { RingRunner, VhostPlatform } from './platform.ts';

/** Where a ring lies, and where its changes are logged. */
export interface VringPlaces {
  readonly places: RingPlaces;
  /** Guest-physical address, if writes to the used ring are to be logged. */
  readonly logAddress: number | undefined;
}

/** One ring. */
class Vring {
  size = 0;
  base = 0;
  where: VringPlaces | undefined;
  enabled = false;
  /** Whether SET_VRING_KICK has come, with a descriptor or without, or a kick as a message. */
  started = false;
  running = false;
  /** Why it stopped by itself, until it is started anew. */
  fault: ProtocolViolation | undefined;
  readonly kick: OwnedFd;
  readonly call: OwnedFd;
  readonly error: OwnedFd;

  constructor(platform: VhostPlatform) {
    this.kick = new OwnedFd(platform);
    this.call = new OwnedFd(platform);
    this.error = new OwnedFd(platform);
  }
}

/** What the rings ask of their session. */
export interface VringsOwner {
  /** Whether a ring waits for SET_VRING_ENABLE. */
  readonly needsEnable: boolean;
  /** Whether in-band notifications were negotiated. */
  readonly kicksAreMessages: boolean;
  inflightArea(index: number, size: number): InflightArea | undefined;
  /** Tells the frontend that a ring without an error descriptor has failed. */
  reportError(index: number): void;
}

/** All rings of a device. A method that is given an index which no ring has throws ProtocolViolation (case T7). */
export class Vrings {
  readonly #rings: readonly Vring[];
  readonly #queueSizes: readonly number[];
  readonly #runner: RingRunner;
  readonly #platform: VhostPlatform;
  readonly #owner: VringsOwner;

  constructor(
    queueSizes: readonly number[],
    platform: VhostPlatform,
    runner: RingRunner,
    owner: VringsOwner,
  ) {
    this.#queueSizes = queueSizes;
    this.#rings = queueSizes.map(() => new Vring(platform));
    this.#platform = platform;
    this.#runner = runner;
    this.#owner = owner;
  }

  /** Whether a ring has failed and not been started anew. */
  get failed(): boolean {
    return this.#rings.some(({ fault }) => fault !== undefined);
  }

  /** Throws ProtocolViolation when there is no such ring. */
  check(index: number): void {
    this.#at(index);
  }

  /** SET_VRING_NUM. */
  setSize(index: number, size: number): void {
    const ring = this.#stopped(index, 'SET_VRING_NUM');
    if (!isSplitRingSize(size) || size > this.#queueSizes[index])
      throw new ProtocolViolation(
        '§2.7',
        `ring ${index}: size ${size}, expected a power of two up to ${this.#queueSizes[index]}`,
      );
    ring.size = size;
  }

  /** SET_VRING_BASE. */
  setBase(index: number, base: number): void {
    const ring = this.#stopped(index, 'SET_VRING_BASE');
    if (base > 0xffff)
      throw new ProtocolViolation('vhost-user SET_VRING_BASE', `ring ${index}: base ${base}, expected a u16`);
    ring.base = base;
  }

  /** SET_VRING_ADDR, also while it runs: a migration begins with it. */
  setPlaces(index: number, where: VringPlaces): void {
    const ring = this.#at(index);
    this.#stop(index, ring);
    ring.where = where;
    this.#startIfReady(index, ring);
  }

  /** SET_VRING_KICK: the ring is there to be served. `fd` is -1 where kicks come as messages. */
  setKick(index: number, fd: number): void {
    const ring = this.#at(index);
    this.#stop(index, ring);
    ring.kick.replace(fd);
    ring.started = true;
    ring.fault = undefined;
    this.#startIfReady(index, ring);
  }

  /** SET_VRING_CALL; something may have been completed before there was anything to say so with. */
  setCall(index: number, fd: number): void {
    const ring = this.#at(index);
    this.#runner.setCall(index, fd);
    ring.call.replace(fd);
    if (fd >= 0) this.#platform.signal(fd);
  }

  /** SET_VRING_ERR. */
  setError(index: number, fd: number): void {
    this.#at(index).error.replace(fd);
  }

  /** SET_VRING_ENABLE. */
  enable(index: number, enabled: boolean): void {
    const ring = this.#at(index);
    ring.enabled = enabled;
    if (enabled) this.#startIfReady(index, ring);
    else this.#stop(index, ring);
  }

  /** GET_VRING_BASE: the ring stops until it gets a kick again. Returns the entry to go on from. */
  takeBase(index: number): number {
    const ring = this.#at(index);
    this.#stop(index, ring);
    this.#forgetStart(index, ring);
    return ring.base;
  }

  /**
   * VRING_KICK. A ring that is not ready is not touched (case F24); one that is starts with it, since where kicks
   * come as messages SET_VRING_KICK need not come at all (it does not from User-Mode Linux).
   */
  kick(index: number): void {
    const ring = this.#at(index);
    if (!ring.running && this.#owner.kicksAreMessages) {
      ring.started = true;
      this.#startIfReady(index, ring);
    }
    if (ring.running) this.#runner.kick(index);
  }

  /** Runs `step` while no ring runs; those that ran go on after it, also when it throws. */
  pausing(step: () => void): void {
    for (const [index, ring] of this.#rings.entries()) this.#stop(index, ring);
    try {
      step();
    } finally {
      this.startReady();
    }
  }

  /** A translation has come, or a feature was chosen: rings that waited for it start, the others look again. */
  startReady(): void {
    for (const [index, ring] of this.#rings.entries()) {
      if (ring.running) this.#runner.kick(index);
      else this.#startIfReady(index, ring);
    }
  }

  /** The driver of a ring broke a rule; the runner has stopped it. */
  fail(index: number, violation: ProtocolViolation): void {
    const ring = this.#at(index);
    this.#stop(index, ring);
    ring.fault = violation;
    if (ring.error.fd >= 0) this.#platform.signal(ring.error.fd);
    else this.#owner.reportError(index);
  }

  /** Stops all rings and forgets what was said about them but their descriptors for calls and errors. */
  reset(): void {
    for (const [index, ring] of this.#rings.entries()) {
      this.#stop(index, ring);
      ring.kick.replace(-1);
      ring.started = false;
      ring.enabled = false;
      ring.fault = undefined;
      ring.base = 0;
    }
  }

  /** Stops all rings and closes their descriptors. */
  close(): void {
    this.reset();
    for (const [index, ring] of this.#rings.entries()) {
      this.#runner.setCall(index, -1);
      ring.call.replace(-1);
      ring.error.replace(-1);
    }
  }

  #at(index: number): Vring {
    const ring = this.#rings[index];
    if (ring === undefined)
      throw new ProtocolViolation('vhost-user vring', `ring ${index} of ${this.#rings.length}`);
    return ring;
  }

  #stopped(index: number, request: string): Vring {
    const ring = this.#at(index);
    if (ring.running) throw new ProtocolViolation(`vhost-user ${request}`, `ring ${index} is running`);
    return ring;
  }

  #startIfReady(index: number, ring: Vring): void {
    const { size, base, where, kick } = ring;
    const enabled = ring.enabled || !this.#owner.needsEnable;
    if (ring.running || ring.fault !== undefined) return;
    if (!ring.started || !enabled || size === 0 || where === undefined) return;
    try {
      const inflight = this.#owner.inflightArea(index, size);
      ring.running = this.#runner.start({ index, size, base, ...where, inflight, kick: kick.fd });
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.fail(index, error);
    }
  }

  #stop(index: number, ring: Vring): void {
    if (!ring.running) return;
    ring.running = false;
    ring.base = this.#runner.stop(index);
  }

  #forgetStart(index: number, ring: Vring): void {
    ring.kick.replace(-1);
    this.#runner.setCall(index, -1);
    ring.call.replace(-1);
    ring.started = false;
    ring.fault = undefined;
  }
}
