// The part of the bounce pool for long buffers: runs of whole pages, private to the device, kept zeroed
// while nothing is in them and granted only while something is. Used by bounce-sharing.ts.

import { XEN_PAGE_SHIFT, XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { mappingShape, NOT_MAPPED } from './dma.ts';
import type { Grants } from './grants.ts';

export class BounceRuns {
  readonly #grants: Grants;
  readonly #device: number;
  readonly #takePages: (count: number) => number | undefined;
  /** First frames of idle runs, by their number of pages. */
  readonly #idle: number[][] = [];
  /** The caller's buffer behind each run in use, by the run's first reference. */
  readonly #origins: Float64Array;
  /** How it was mapped; 0 where no run begins. */
  readonly #shapes: Float64Array;

  /** @param takePages allocates contiguous zeroed pages: the address of the first, or undefined */
  constructor(grants: Grants, device: number, takePages: (count: number) => number | undefined) {
    this.#grants = grants;
    this.#device = device;
    this.#takePages = takePages;
    this.#origins = new Float64Array(grants.domain.table.maxEntries);
    this.#shapes = new Float64Array(grants.domain.table.maxEntries);
  }

  /** Copies the buffer in as `direction` asks and grants the run. Returns its first reference, or -1. */
  share(address: number, size: number, direction: number, copies: boolean): number {
    const pages = (size + 0xfff) >>> XEN_PAGE_SHIFT;
    const frame = this.#take(pages);
    if (frame < 0) return -1;
    const { memory } = this.#grants.domain;
    // Before the grant: the backend never sees a buffer half filled.
    if (copies && direction !== DMA_FROM_DEVICE) memory.copy(frame * XEN_PAGE_SIZE, address, size);
    const ref = this.#grants.share(frame, pages, direction === DMA_TO_DEVICE);
    if (ref < 0) {
      this.#putBack(frame, pages, size);
      return -1;
    }
    this.#origins[ref] = address;
    this.#shapes[ref] = mappingShape(0, size, direction);
    return ref;
  }

  /** Revokes the run, then copies what the device wrote to the caller's buffer, then wipes the run. */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): void {
    this.#check(ref, offset, size, direction);
    this.#shapes[ref] = 0;
    const pages = (size + 0xfff) >>> XEN_PAGE_SHIFT;
    const frame = this.#grants.frameOf(ref);
    const released = this.#grants.unshare(ref, pages);
    const { memory } = this.#grants.domain;
    if (copies && direction !== DMA_TO_DEVICE) memory.copy(this.#origins[ref], frame * XEN_PAGE_SIZE, size);
    // A page that the device could write may have changed beyond the buffer's end.
    if (released) this.#putBack(frame, pages, direction === DMA_TO_DEVICE ? size : pages * XEN_PAGE_SIZE);
    else this.#abandon(frame, pages);
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    this.#check(ref, offset, size, direction);
    const place = this.#grants.frameOf(ref) * XEN_PAGE_SIZE;
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
    this.#check(ref, offset, size, direction);
    const place = this.#grants.frameOf(ref) * XEN_PAGE_SIZE;
    if (direction !== DMA_FROM_DEVICE)
      this.#grants.domain.memory.copy(place + at, this.#origins[ref] + at, length);
  }

  /** Gives the idle runs back to the guest. Returns whether there were any. */
  releaseIdle(): boolean {
    let any = false;
    for (const [pages, frames] of this.#idle.entries()) {
      for (const frame of frames ?? []) {
        this.#abandon(frame, pages);
        any = true;
      }
    }
    this.#idle.length = 0;
    return any;
  }

  #check(ref: number, offset: number, size: number, direction: number): void {
    assert(this.#shapes[ref] === mappingShape(offset, size, direction), NOT_MAPPED, size);
  }

  #take(pages: number): number {
    const idle = this.#idle[pages];
    if (idle !== undefined && idle.length > 0) return idle.pop()!;
    const { tracer, id } = this.#grants.domain;
    const address = this.#takePages(pages);
    if (address === undefined) return -1;
    const frame = address / XEN_PAGE_SIZE;
    if (tracer.enabled) tracer.privatePages(id, this.#device, frame, pages);
    return frame;
  }

  #putBack(frame: number, pages: number, dirtyBytes: number): void {
    this.#grants.domain.memory.wipe(frame * XEN_PAGE_SIZE, dirtyBytes);
    this.#idle[pages] ??= [];
    this.#idle[pages].push(frame);
  }

  /** Lets go of a run; pages of it that the backend still maps stay in quarantine. */
  #abandon(frame: number, pages: number): void {
    const { memory, tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.privatePagesEnd(id, frame, pages);
    memory.freePages(frame * XEN_PAGE_SIZE, pages);
  }
}
