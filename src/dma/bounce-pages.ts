// The pages of a device's bounce pool: runs of one page or more that are granted when a buffer goes into them,
// and hold nothing but zeroes, the bytes of this device's live buffers, and what the device itself has written.
// After bounce-slots.ts and bounce-runs.ts, before kept-runs.ts and grants.ts.
//
// How long the grant of an idle run is kept is the difference between the modes `bounce` (not at all) and
// `persistent` (within a budget and for a time). For both holds:
// - What the guest has written is wiped as soon as its buffer is over, before anything else.
// - What the device has written is wiped before the place becomes a buffer again, and when access ends. Until
//   then the device can read again what it knew, but no other reader in the guest ever gets it.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { MAX_MAPPING_PAGES } from './dma.ts';
import type { PageSharing } from './page-sharing.ts';
import type { IdlePool } from './idle-pools.ts';
import { type Keepable, KeptRuns } from './kept-runs.ts';

/** How long grants outlive their use. */
export interface Retention {
  /** Idle runs stay granted as long as no more than so many pages of the pool are granted, those in use included. */
  readonly pages: number;
  /** Milliseconds after which an idle run is no longer granted, if `tick` is called as it asks to be. */
  readonly milliseconds: number;
}

/** Access ends with the last buffer. */
export const KEEP_NOTHING: Retention = { pages: 0, milliseconds: 0 };

/**
 * About what Linux's blkback keeps mapped for a ring (1056 pages), and as long as its own sweep waits: enough
 * for a busy device to have no grant on its hot path, short enough that an idle one is soon out of reach.
 */
export const KEEP_FOR_A_WHILE: Retention = { pages: 1024, milliseconds: 100 };

/** Sweeps in the time that an idle run may stay granted: two of them end it, the other two are time to be late in. */
const SWEEPS = 4;
const NANOSECONDS = 1e6;

/** Contiguous pages that are private to the device. */
export interface BounceRun extends Keepable {
  readonly frame: number;
  /** Its first reference, or -1 while it is not granted. */
  ref: number;
  /** Whether the device may only read it; of no meaning while it is not granted. */
  readonly: boolean;
  /** Nothing but zeroes where no buffer is: the device has not been able to write since it was wiped. */
  isZero: boolean;
}

export class BouncePages implements IdlePool {
  readonly #grants: PageSharing;
  readonly #device: number;
  readonly #retention: Retention;
  /** Idle runs that are granted. */
  readonly #kept = new KeptRuns<BounceRun>();
  /** Idle runs that are not granted, by their number of pages. */
  readonly #idle: BounceRun[][] = Array.from({ length: MAX_MAPPING_PAGES + 1 }, () => []);
  readonly #byRef: (BounceRun | undefined)[] = [];
  /** Pages granted now, in use or kept. */
  #granted = 0;
  #nextSweep = Number.NEGATIVE_INFINITY;

  /** @param device the device's number in trace events */
  constructor(grants: PageSharing, device: number, retention: Retention) {
    this.#grants = grants;
    this.#device = device;
    this.#retention = retention;
    const { tracer, id, pools } = grants.domain;
    pools.add(this);
    if (tracer.enabled && retention.pages > 0)
      tracer.staleLimit(id, device, retention.milliseconds * NANOSECONDS);
  }

  /** A granted run in which no buffer is, or undefined when pages or references are exhausted. */
  take(pages: number, readonly: boolean): BounceRun | undefined {
    const kept = this.#kept.take(pages, readonly);
    if (kept !== undefined) return kept;
    while (this.#granted + pages > this.#retention.pages && this.revokeOldest());
    const run = this.#idle[pages].pop() ?? this.#newRun(pages);
    if (run === undefined || this.#grant(run, readonly)) return run;
    this.#idle[pages].push(run);
    return undefined;
  }

  /** Takes back a run in which no buffer is any more: its grant is kept or ends. */
  put(run: BounceRun): void {
    if (this.#granted <= this.#retention.pages) this.#kept.add(run);
    else this.#revoke(run);
  }

  /** The run in use whose first reference is `ref`. */
  at(ref: number): BounceRun | undefined {
    return this.#byRef[ref];
  }

  /** Makes `size` bytes at `offset` of a run what the device is to find there: the caller's buffer, or zeroes. */
  fill(
    run: BounceRun,
    offset: number,
    address: number,
    size: number,
    direction: number,
    copies: boolean,
  ): void {
    const { memory } = this.#grants.domain;
    const place = run.frame * XEN_PAGE_SIZE + offset;
    if (copies && direction !== DMA_FROM_DEVICE) memory.copy(place, address, size);
    else if (!run.isZero) memory.wipe(place, size);
    run.isZero = run.readonly;
  }

  /** Gives the caller what the device wrote, once and for all (case G23), and wipes what the caller did. */
  collect(
    run: BounceRun,
    offset: number,
    address: number,
    size: number,
    direction: number,
    copies: boolean,
  ): void {
    const { memory } = this.#grants.domain;
    const place = run.frame * XEN_PAGE_SIZE + offset;
    if (copies && direction !== DMA_TO_DEVICE) memory.copy(address, place, size);
    if (direction !== DMA_FROM_DEVICE) memory.wipe(place, size);
  }

  /** Ends access to the run that has been idle longest. Returns false when none is granted and idle. */
  revokeOldest(): boolean {
    const run = this.#kept.takeOldest();
    if (run !== undefined) this.#revoke(run);
    return run !== undefined;
  }

  /** Ends access to every idle run. */
  revokeIdle(): void {
    while (this.revokeOldest());
  }

  /** Gives all runs back to the guest; none is in use any more. */
  close(): void {
    this.releaseIdle();
    this.#grants.domain.pools.remove(this);
  }

  /** Gives the idle runs back to the guest. Returns whether there were any. */
  releaseIdle(): boolean {
    this.revokeIdle();
    let any = false;
    for (const runs of this.#idle) {
      for (const run of runs.splice(0)) {
        this.#abandon(run);
        any = true;
      }
    }
    return any;
  }

  /**
   * Ends access to what has not been used since the sweep before the last one.
   *
   * @param now milliseconds
   * @returns when the next sweep is due
   */
  tick(now: number): number {
    if (now >= this.#nextSweep) {
      for (const run of this.#kept.sweep()) this.#revoke(run);
      this.#nextSweep = now + this.#retention.milliseconds / SWEEPS;
    }
    return this.#kept.count > 0 ? this.#nextSweep : Number.POSITIVE_INFINITY;
  }

  #newRun(pages: number): BounceRun | undefined {
    const { memory, tracer, id, pools } = this.#grants.domain;
    // When the guest has none left, those that lie idle in pools may be enough.
    const address =
      memory.allocatePages(pages) ?? (pools.reclaimPages() ? memory.allocatePages(pages) : undefined);
    if (address === undefined) return undefined;
    const frame = address / XEN_PAGE_SIZE;
    if (tracer.enabled) tracer.privatePages(id, this.#device, frame, pages);
    return { frame, pages, ref: -1, readonly: false, isZero: true, lastUse: 0 };
  }

  #grant(run: BounceRun, readonly: boolean): boolean {
    run.ref = this.#grants.share(run.frame, run.pages, readonly);
    if (run.ref < 0) return false;
    run.readonly = readonly;
    this.#byRef[run.ref] = run;
    this.#granted += run.pages;
    return true;
  }

  #revoke(run: BounceRun): void {
    const { ref, frame, pages } = run;
    this.#byRef[ref] = undefined;
    this.#granted -= pages;
    run.ref = -1;
    if (!this.#grants.unshare(ref, pages)) {
      this.#abandon(run);
      return;
    }
    if (!run.isZero) this.#grants.domain.memory.wipe(frame * XEN_PAGE_SIZE, pages * XEN_PAGE_SIZE);
    run.isZero = true;
    this.#idle[pages].push(run);
  }

  /** Lets go of a run; pages of it that the backend still maps stay in quarantine. */
  #abandon({ frame, pages }: BounceRun): void {
    const { memory, tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.privatePagesEnd(id, frame, pages);
    memory.freePages(frame * XEN_PAGE_SIZE, pages);
  }
}
