// Port: what a disk is made of. A device hands over segments of guest memory and a place; the store moves
// the bytes without a copy in between. Implemented by raw-file.ts, memory-store.ts and the images of hosts/linux/.

import type { Segments } from '../memory/segments.ts';

/** Outcome of an operation: 'ok', or an errno name. Whatever the outcome, other data are intact. */
export type StoreResult = 'ok' | 'EIO' | 'ENOSPC' | 'EROFS';

/**
 * A disk's contents. Offsets and lengths are bytes, multiples of 512, and inside `size`: the caller has
 * checked. Calls are synchronous, for they run on the backend's own thread.
 */
export interface BlockStore {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Whether `writeZeroes` gives space back where it may. */
  readonly freesZeroes: boolean;
  /** Fills all of `into` from `offset`. */
  read(offset: number, into: Segments): StoreResult;
  /** Writes all of `from` to `offset`; volatile until a flush. */
  write(offset: number, from: Segments): StoreResult;
  /** Makes completed writes survive a power cut. Once it has failed, it fails until the store is reopened. */
  flush(): StoreResult;
  /** The contents of the range no longer matter. */
  discard(offset: number, length: number): StoreResult;
  /** The range reads as zero afterwards; with `mayUnmap` its space may be freed. */
  writeZeroes(offset: number, length: number, mayUnmap: boolean): StoreResult;
  close(): void;
}
