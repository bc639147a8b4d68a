// A disk in memory, for tests, benchmarks and the browser.

import type { Segments } from '../memory/segments.ts';
import type { BlockStore, StoreResult } from './block-store.ts';

/** Bytes that live as long as the object. */
export class MemoryStore implements BlockStore {
  readonly bytes: Uint8Array;
  readonly readOnly: boolean;
  readonly freesZeroes = false;

  constructor(bytes: Uint8Array, readOnly = false) {
    this.bytes = bytes;
    this.readOnly = readOnly;
  }

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, into: Segments): StoreResult {
    into.copyFrom(this.bytes.subarray(offset, offset + into.byteLength), 0);
    return 'ok';
  }

  write(offset: number, from: Segments): StoreResult {
    if (this.readOnly) return 'EROFS';
    from.copyTo(this.bytes.subarray(offset, offset + from.byteLength), 0, from.byteLength);
    return 'ok';
  }

  flush(): StoreResult {
    return 'ok';
  }

  /** The bytes stay as they are, which a discard permits. */
  discard(): StoreResult {
    return this.readOnly ? 'EROFS' : 'ok';
  }

  writeZeroes(offset: number, length: number): StoreResult {
    if (this.readOnly) return 'EROFS';
    this.bytes.fill(0, offset, offset + length);
    return 'ok';
  }

  close(): void {
    // Nothing is held.
  }
}
