// A guest's memory while it is migrated: everything that a device writes is marked in the dirty log before the
// request is reported complete. Wraps region-table.ts or iotlb-memory.ts.

import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { RegionTable } from './region-table.ts';
import { Segments } from './segments.ts';

class LoggedAccess implements ChainAccess {
  readonly #inner: ChainAccess;
  readonly #memory: LoggedMemory;

  constructor(inner: ChainAccess, memory: LoggedMemory) {
    this.#inner = inner;
    this.#memory = memory;
  }

  get readable(): Segments {
    return this.#inner.readable;
  }

  get writable(): Segments {
    return this.#inner.writable;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    return this.#inner.map(low, high, length, writable);
  }

  ready(): number {
    return this.#inner.ready();
  }

  release(bytesRead: number, bytesWritten: number, bytesAtEnd: number): number {
    this.#memory.mark(this.writable, 0, bytesWritten);
    this.#memory.mark(this.writable, this.writable.byteLength - bytesAtEnd, bytesAtEnd);
    return this.#inner.release(bytesRead, bytesWritten, bytesAtEnd);
  }
}

/** Memory whose changes are logged, but for the rings: those are known to whoever serves them. */
export class LoggedMemory implements DeviceMemory {
  readonly #inner: DeviceMemory;
  readonly #table: RegionTable;
  readonly #log: DirtyLog;
  readonly #piece = new Segments();

  constructor(inner: DeviceMemory, table: RegionTable, log: DirtyLog) {
    this.#inner = inner;
    this.#table = table;
    this.#log = log;
  }

  newChainAccess(): ChainAccess {
    return new LoggedAccess(this.#inner.newChainAccess(), this);
  }

  mapRing(low: number, high: number, length: number): MappedRing {
    return this.#inner.mapRing(low, high, length);
  }

  /** Marks `length` bytes from `from` of what was written. */
  mark(written: Segments, from: number, length: number): void {
    const piece = this.#piece.slice(written, from, length);
    for (let i = 0; i < piece.count; i++)
      this.#log.mark(this.#table.guestAddress(piece.regions[i]) + piece.offsets[i], piece.lengths[i]);
  }
}
