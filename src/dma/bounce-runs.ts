// The part of the bounce pool for long buffers: each has a run of whole pages to itself.
// Used by bounce-sharing.ts, before bounce-pages.ts.

import { XEN_PAGE_SHIFT, XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { BouncePages, BounceRun } from './bounce-pages.ts';
import { mappingShape, NOT_MAPPED } from './dma.ts';
import type { PageSharing } from './page-sharing.ts';

export class BounceRuns {
  readonly #grants: PageSharing;
  readonly #pages: BouncePages;
  /** The caller's buffer behind each run in use, by the run's first reference. */
  readonly #origins: Float64Array;
  /** How it was mapped; 0 where no buffer begins. */
  readonly #shapes: Float64Array;

  constructor(grants: PageSharing, pages: BouncePages) {
    this.#grants = grants;
    this.#pages = pages;
    this.#origins = new Float64Array(grants.domain.table.maxEntries);
    this.#shapes = new Float64Array(grants.domain.table.maxEntries);
  }

  /** Puts the buffer into a run as `direction` asks. Returns the run's first reference, or -1. */
  share(address: number, size: number, direction: number, copies: boolean): number {
    const run = this.#pages.take((size + 0xfff) >>> XEN_PAGE_SHIFT, direction === DMA_TO_DEVICE);
    if (run === undefined) return -1;
    this.#pages.fill(run, 0, address, size, direction, copies);
    this.#origins[run.ref] = address;
    this.#shapes[run.ref] = mappingShape(0, size, direction);
    return run.ref;
  }

  /** Copies what the device wrote to the caller's buffer and gives the run back. */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): void {
    const run = this.#runOf(ref, offset, size, direction);
    this.#shapes[ref] = 0;
    this.#pages.collect(run, 0, this.#origins[ref], size, direction, copies);
    this.#pages.put(run);
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    const place = this.#runOf(ref, offset, size, direction).frame * XEN_PAGE_SIZE;
    if (direction !== DMA_TO_DEVICE)
      this.#grants.domain.memory.copy(this.#origins[ref] + at, place + at, length);
  }

  syncForDevice(
    ref: number,
    offset: number,
    size: number,
    direction: number,
    at: number,
    length: number,
  ): void {
    const place = this.#runOf(ref, offset, size, direction).frame * XEN_PAGE_SIZE;
    if (direction !== DMA_FROM_DEVICE)
      this.#grants.domain.memory.copy(place + at, this.#origins[ref] + at, length);
  }

  /** The run of a buffer that is mapped so. */
  #runOf(ref: number, offset: number, size: number, direction: number): BounceRun {
    const run = this.#pages.at(ref);
    const isMapped = run !== undefined && this.#shapes[ref] === mappingShape(offset, size, direction);
    assert(isMapped, NOT_MAPPED, size);
    return run;
  }
}
