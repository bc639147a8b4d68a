// A disk in memory that loses power: beside its contents it keeps the log of what a power cut may leave of them
// (write-log.ts, power-cut.ts). For tests of whoever promises that data are safe.

import type { Segments } from '../memory/segments.ts';
import type { BlockStore, StoreResult } from './block-store.ts';
import { WriteLog } from './write-log.ts';

/** What a discarded range reads as: nothing that anybody has written, so that relying on it shows. */
const DISCARDED = 0xdd;

/** Bytes in memory, behind a volatile cache. */
export class LossyStore implements BlockStore {
  /** What reads return. */
  readonly bytes: Uint8Array;
  readonly readOnly: boolean;
  readonly freesZeroes = false;
  readonly log: WriteLog;

  constructor(bytes: Uint8Array, readOnly = false) {
    this.bytes = bytes;
    this.readOnly = readOnly;
    this.log = new WriteLog(bytes);
  }

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, into: Segments): StoreResult {
    into.copyFrom(this.bytes.subarray(offset, offset + into.byteLength), 0);
    return 'ok';
  }

  write(offset: number, from: Segments): StoreResult {
    const bytes = new Uint8Array(from.byteLength);
    from.copyTo(bytes, 0, bytes.length);
    return this.#change(offset, bytes);
  }

  flush(): StoreResult {
    this.log.flushed(this.log.flush(), true);
    return 'ok';
  }

  /** As a write of something else: a disk may throw the old data away at once, later or never. */
  discard(offset: number, length: number): StoreResult {
    return this.#change(offset, new Uint8Array(length).fill(DISCARDED));
  }

  writeZeroes(offset: number, length: number): StoreResult {
    return this.#change(offset, new Uint8Array(length));
  }

  close(): void {
    // Nothing is held.
  }

  #change(offset: number, bytes: Uint8Array): StoreResult {
    if (this.readOnly) return 'EROFS';
    const write = this.log.write(offset, bytes);
    this.bytes.set(bytes, offset);
    this.log.written(write);
    return 'ok';
  }
}
