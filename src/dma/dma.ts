// Port: DMA operations of one device, in the words of Linux's DMA API. A driver shares a buffer with
// `map` before the device may see it and ends the sharing with `unmap` before it looks at the result.
// Implemented by direct-dma.ts and bounce-dma.ts (grants), and plain-dma.ts (no grants).

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE } from '../trace.ts';

/** A limit of ours, so that one request cannot take a whole grant table: 256 pages. */
export const MAX_MAPPING_SIZE = 256 * XEN_PAGE_SIZE;

/** Asserts what every `map` asks of its caller. */
export function assertMappable(size: number, direction: number): void {
  assert(size > 0 && size <= MAX_MAPPING_SIZE, 'bytes to map', size, MAX_MAPPING_SIZE);
  assert(direction >= DMA_BIDIRECTIONAL && direction <= DMA_FROM_DEVICE, 'a direction to map for', direction);
}

/** What is wrong when the shape of `unmap` is not that of `map`. */
export const NOT_MAPPED = 'unmap of a buffer that is not mapped with this address, size and direction';

/**
 * How a buffer was mapped, in one number that is never 0: `unmap` must repeat it, or it is for a buffer that
 * is not mapped, not mapped so, or not mapped any more (case G18).
 */
export function mappingShape(offset: number, size: number, direction: number): number {
  return (size * 4 + direction) * XEN_PAGE_SIZE + offset;
}

/** Where a device finds a buffer: a 64-bit address in two halves, filled in by `map`. */
export interface DmaAddress {
  low: number;
  high: number;
}

/** Zeroed memory that driver and device both use for as long as it is allocated: rings, tables. */
export interface CoherentBuffer {
  /** Guest-physical address, page aligned. */
  readonly address: number;
  /** Bytes, as asked for. */
  readonly size: number;
  readonly low: number;
  readonly high: number;
}

/** The DMA operations of one device. Sizes are bytes, addresses guest-physical unless named otherwise. */
export interface DmaOperations {
  /** Longest buffer that one `map` takes. */
  readonly maxMappingSize: number;
  /** Memory for both sides, or undefined when pages or references are exhausted. */
  allocate(size: number): CoherentBuffer | undefined;
  /** Ends both sides' use. Returns false when the backend still maps some of it: it is quarantined. */
  free(buffer: CoherentBuffer): boolean;
  /**
   * Shares `size` bytes (1 to maxMappingSize) at `address` with the device; `direction` is one of trace.ts's
   * DMA_ constants and decides what the device may do. A page needs not be the caller's alone.
   *
   * @returns false when it cannot be done now: nothing is shared, `out` is ~0
   */
  map(address: number, size: number, direction: number, out: DmaAddress): boolean;
  /**
   * Ends the sharing of a buffer; the arguments are those of `map` and its result. After it, and not
   * before, a from-device buffer holds what the device wrote.
   *
   * @returns false when the device can still reach the caller's own pages: they may not be used again
   */
  unmap(low: number, high: number, size: number, direction: number): boolean;
  /** Tries again to end access to what is in quarantine. Returns how many pages came free. */
  recover(): number;
  /** Gives the pool's memory back when the device is gone; nothing may be mapped or allocated any more. */
  close(): void;
  /** References and pages that the backend has not let go of. */
  readonly quarantined: number;
  /** References granted now, coherent memory included. */
  readonly live: number;
}
