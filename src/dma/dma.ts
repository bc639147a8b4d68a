// Port: DMA operations of one device, in the words of Linux's DMA API (struct dma_map_ops). A driver shares a
// buffer with `map` before the device may see it and ends the sharing with `unmap` before it looks at the
// result. Implemented by grant-dma.ts (grants) and plain-dma.ts (none).
//
// Operations over lists of buffers (map_sg and its relatives) are made of these, in scatter-list.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE } from '../trace.ts';
import type { QuarantineCounts } from './quarantine.ts';

/** A limit of ours, so that one request cannot take a whole grant table. */
export const MAX_MAPPING_PAGES = 256;
export const MAX_MAPPING_SIZE = MAX_MAPPING_PAGES * XEN_PAGE_SIZE;

// Attributes of a mapping (Linux, include/linux/dma-mapping.h). Those not named here ask for what is so anyway.
/** The caller keeps the copy that the device sees up to date by itself, with `syncForDevice` and `syncForCpu`. */
export const DMA_ATTR_SKIP_CPU_SYNC = 1 << 5;
/** The address is a device's register, which cannot be granted: `map` refuses it. */
export const DMA_ATTR_MMIO = 1 << 10;

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
  /** Longest buffer that one `map` takes (max_mapping_size). */
  readonly maxMappingSize: number;
  /** Whether a device that can address `bits` bits can use the addresses made here (dma_supported). */
  supportsMask(bits: number): boolean;

  /** Memory for both sides (alloc), or undefined when pages or references are exhausted. */
  allocate(size: number): CoherentBuffer | undefined;
  /**
   * `count` pages that are mapped for `direction` from the beginning (alloc_pages), or undefined; the device
   * sees them without a copy, in every mode, because nothing else lies in them.
   */
  allocatePages(count: number, direction: number): CoherentBuffer | undefined;
  /** Ends both sides' use of either. Returns false when the backend still maps some of it: it is quarantined. */
  free(buffer: CoherentBuffer): boolean;
  /** The driver's view of a buffer (mmap). Not to be used once it is free. */
  view(buffer: CoherentBuffer): Uint8Array;
  /** Where the device finds each page of a buffer, first to last (get_sgtable). */
  pagesOf(buffer: CoherentBuffer): DmaAddress[];

  /**
   * Shares `size` bytes (1 to maxMappingSize) at `address` with the device; `direction` is one of trace.ts's
   * DMA_ constants and decides what the device may do. A page needs not be the caller's alone.
   *
   * @param attributes DMA_ATTR_ bits
   * @returns false when it cannot be done now: nothing is shared, `out` is ~0
   */
  map(address: number, size: number, direction: number, out: DmaAddress, attributes?: number): boolean;
  /**
   * Ends the sharing of a buffer; the arguments are those of `map` and its result. After it, and not
   * before, a from-device buffer holds what the device wrote.
   *
   * @returns false when the device can still reach the caller's own pages: they may not be used again
   */
  unmap(low: number, high: number, size: number, direction: number, attributes?: number): boolean;
  /**
   * Lets the driver see what the device has written so far to `length` bytes from byte `at` of a mapped buffer;
   * the first four arguments are those of `unmap`.
   */
  syncForCpu(low: number, high: number, size: number, direction: number, at?: number, length?: number): void;
  /** Lets the device see what the driver has changed in `length` bytes from byte `at` of a mapped buffer. */
  syncForDevice(
    low: number,
    high: number,
    size: number,
    direction: number,
    at?: number,
    length?: number,
  ): void;

  /** Ends access to all that is granted and not in use: the device was reset, or is idle. */
  revokeIdle(): void;
  /**
   * Does what is due at `now`: ends access to what has been idle for too long, tries again to end access to
   * what is in quarantine.
   *
   * @param now milliseconds on a clock that never runs backwards
   * @returns when to call again at the latest, on the same clock; Infinity when nothing is due
   */
  tick(now: number): number;
  /** Tries at once to end access to what is in quarantine. Returns how many pages came free. */
  recover(): number;
  /** Gives back what is in quarantine without ending access: its host was left, with all that was granted in it. */
  forget(): void;
  /** Gives the pool's memory back when the device is gone; nothing may be mapped or allocated any more. */
  close(): void;
  /** References and pages that the backend has not let go of. */
  readonly quarantined: number;
  /** What has passed through quarantine so far. */
  readonly quarantine: QuarantineCounts;
  /** References granted now, coherent memory included. */
  readonly live: number;
}
