// Exposure mode `direct`: the caller's own pages are granted, whole, for as long as the buffer is mapped,
// as Linux does. What else lies in those pages is exposed with it (XSA-403).
// After grant-dma.ts, before grants.ts.

import { pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_TO_DEVICE } from '../trace.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import { mappingShape, NOT_MAPPED } from './dma.ts';
import type { Grants } from './grants.ts';

/** Direct grants of the caller's pages. */
export class DirectSharing implements BufferSharing {
  readonly #grants: Grants;
  /** How each live mapping was made, by its first reference; 0 where there is none. */
  readonly #shapes: Float64Array;

  constructor(grants: Grants) {
    this.#grants = grants;
    this.#shapes = new Float64Array(grants.domain.table.maxEntries);
  }

  share(address: number, size: number, direction: number): number {
    const offset = address & (XEN_PAGE_SIZE - 1);
    const ref = this.grant(this.#grants, address, size, direction === DMA_TO_DEVICE);
    if (ref < 0) return -1;
    this.#shapes[ref] = mappingShape(offset, size, direction);
    return ref * XEN_PAGE_SIZE + offset;
  }

  unshare(ref: number, offset: number, size: number, direction: number): boolean {
    this.#check(ref, offset, size, direction);
    this.#shapes[ref] = 0;
    return this.#grants.unshare(ref, pagesTouched(offset, size));
  }

  /** Driver and device see the same bytes. */
  syncForCpu(ref: number, offset: number, size: number, direction: number): void {
    this.#check(ref, offset, size, direction);
  }

  syncForDevice(ref: number, offset: number, size: number, direction: number): void {
    this.#check(ref, offset, size, direction);
  }

  /** Nothing is granted but what is in use. */
  revokeIdle(): void {
    // Nothing stays granted.
  }

  close(): void {
    // There is no pool.
  }

  tick(): number {
    return Number.POSITIVE_INFINITY;
  }

  /** Grants what the buffer needs through consecutive references. Returns the first, or -1. */
  protected grant(grants: Grants, address: number, size: number, readonly: boolean): number {
    const pages = pagesTouched(address & (XEN_PAGE_SIZE - 1), size);
    return grants.share(Math.floor(address / XEN_PAGE_SIZE), pages, readonly);
  }

  #check(ref: number, offset: number, size: number, direction: number): void {
    assert(this.#shapes[ref] === mappingShape(offset, size, direction), NOT_MAPPED, size);
  }
}
