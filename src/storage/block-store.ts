// Port: what a disk is made of. A device hands over segments of guest memory and a place; the store moves
// the bytes without a copy in between. Implemented by raw-file.ts, memory-store.ts and the images of hosts/linux/.

import type { Segments } from '../memory/segments.ts';

/** Outcome of an operation: 'ok', or an errno name. Whatever the outcome, other data are intact. */
export type StoreResult = 'ok' | 'EIO' | 'ENOSPC' | 'EROFS';

/** What a store says to a call: its outcome, or that it comes later. */
export type StoreAnswer = StoreResult | 'later';

/** Who waits for a store that answers later. */
export interface StoreRequest {
  /** Called once for each call that returned 'later', never within that call. May make the next call. */
  finish(result: StoreResult): void;
}

/**
 * A disk's contents. Offsets and lengths are bytes, multiples of 512, and inside `size`: the caller has checked. A call
 * answers at once, on the backend's own thread, or says 'later' and has `request` finished: then the segments and
 * their memory are the store's until that, and calls may be finished in any order.
 */
export interface BlockStore {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Whether `writeZeroes` gives space back where it may. */
  readonly freesZeroes: boolean;
  /** Fills all of `into` from `offset`. */
  read(offset: number, into: Segments, request: StoreRequest): StoreAnswer;
  /** Writes all of `from` to `offset`; volatile until a flush. */
  write(offset: number, from: Segments, request: StoreRequest): StoreAnswer;
  /**
   * Makes writes that were finished before it survive a power cut. Once it has failed, it fails until the store is
   * reopened.
   */
  flush(request: StoreRequest): StoreAnswer;
  /** The contents of the range no longer matter. */
  discard(offset: number, length: number, request: StoreRequest): StoreAnswer;
  /** The range reads as zero afterwards; with `mayUnmap` its space may be freed. */
  writeZeroes(offset: number, length: number, mayUnmap: boolean, request: StoreRequest): StoreAnswer;
  /** Waits until everything that was to come later is finished. Only stores have it that answer later. */
  drain?(): void;
  /** Nothing may be under way. */
  close(): void;
}
