// What a disk with a volatile cache can know of the writes to it: which are under way, which are done, and which a
// flush has made stable. Whoever moves bytes tells the log: lossy-store.ts does, and an engine whose writes complete
// later, or a store that keeps its own metadata in a file, can as well. Before power-cut.ts.

import { assert } from '../errors.ts';

/** What the disk writes as a whole: a sector is never half old and half new. */
export const SECTOR = 512;

/** A write that a power cut may undo. */
export interface VolatileWrite {
  /** Its place among all events of the log. */
  readonly begun: number;
  /** In bytes of the disk. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** When it was done; Infinity while it is under way. */
  done: number;
  /** A flush that should have covered it has failed: no later flush will write it, for the host thinks it is clean. */
  dropped: boolean;
}

/** What happened, as the one who listens to a log is told. `at` names a write or a flush, by its beginning. */
export type LogEvent =
  | { readonly kind: 'write'; readonly at: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'written'; readonly at: number }
  | { readonly kind: 'flush'; readonly at: number }
  | { readonly kind: 'flushed'; readonly at: number; readonly ok: boolean };

/**
 * The writes and flushes of one disk. A flush covers the writes that were done before it was issued, and no others:
 * one that ends while the flush is under way may have missed it.
 */
export class WriteLog {
  /** What a power cut cannot take away. */
  readonly stable: Uint8Array;
  /** Called after each event. */
  onEvent: (event: LogEvent) => void = () => undefined;
  #volatile: VolatileWrite[] = [];
  readonly #flushes = new Set<number>();
  #now = 0;

  /** @param bytes of the disk at the start; they are copied */
  constructor(bytes: Uint8Array) {
    this.stable = bytes.slice();
  }

  /** Writes that are not stable, in the order in which they were begun. */
  get volatile(): readonly VolatileWrite[] {
    return this.#volatile;
  }

  /** A write was handed to the host. `bytes` are the log's from now on. Returns its name for `written`. */
  write(offset: number, bytes: Uint8Array): number {
    assert(
      offset >= 0 && offset + bytes.length <= this.stable.length,
      'a write outside',
      offset,
      bytes.length,
    );
    const begun = this.#now++;
    this.#volatile.push({ begun, offset, bytes, done: Number.POSITIVE_INFINITY, dropped: false });
    this.onEvent({ kind: 'write', at: begun, offset, bytes });
    return begun;
  }

  /** The host has reported that write done. */
  written(at: number): void {
    const write = this.#volatile.find(({ begun }) => begun === at);
    assert(write?.done === Number.POSITIVE_INFINITY, 'a write ends once', at);
    write.done = this.#now++;
    this.onEvent({ kind: 'written', at });
  }

  /** A flush was handed to the host. Returns its name for `flushed`. */
  flush(): number {
    const issued = this.#now++;
    this.#flushes.add(issued);
    this.onEvent({ kind: 'flush', at: issued });
    return issued;
  }

  /**
   * The host has reported the end of that flush. One that failed leaves it open which writes are stable, and nobody
   * will try them again: Linux reports a failed write-back once and marks the pages clean.
   */
  flushed(at: number, ok: boolean): void {
    assert(this.#flushes.delete(at), 'a flush ends once', at);
    this.#now++;
    const covered = this.#volatile.filter(({ done, dropped }) => done < at && !dropped);
    if (ok) this.#settle(covered);
    else this.#drop(covered);
    this.onEvent({ kind: 'flushed', at, ok });
  }

  /** In the order in which they were done, for so the host's cache has them. */
  #settle(covered: VolatileWrite[]): void {
    for (const write of covered.sort((one, other) => one.done - other.done)) {
      this.stable.set(write.bytes, write.offset);
      this.#volatile = this.#volatile.filter((other) => other !== write && !isReplaced(other, write));
    }
  }

  /** Piece by piece, so that each can be replaced by a later write to its sector. */
  #drop(covered: readonly VolatileWrite[]): void {
    this.#volatile = this.#volatile.flatMap((write) =>
      covered.includes(write) ? [...piecesOf(write)] : [write],
    );
  }
}

/** Whether a dropped write cannot come back any more: a later write to the same place is stable. */
function isReplaced(write: VolatileWrite, by: VolatileWrite): boolean {
  const inside =
    write.offset >= by.offset && write.offset + write.bytes.length <= by.offset + by.bytes.length;
  return write.dropped && inside && write.done < by.begun;
}

function* piecesOf({ begun, offset, bytes, done }: VolatileWrite): Generator<VolatileWrite> {
  for (let from = 0; from < bytes.length; ) {
    const length = Math.min(bytes.length - from, SECTOR - ((offset + from) % SECTOR));
    yield { begun, offset: offset + from, bytes: bytes.subarray(from, from + length), done, dropped: true };
    from += length;
  }
}
