// A disk in memory that answers when the test says so, in any order: memory is read and written at the moment of the
// answer, as by a host that works meanwhile. What a power cut may leave of it is in its log.

import type { Segments } from '../../src/memory/segments.ts';
import type { BlockStore, StoreAnswer, StoreRequest, StoreResult } from '../../src/storage/block-store.ts';
import { WriteLog } from '../../src/storage/write-log.ts';

const DISCARDED = 0xdd;

interface Pending {
  readonly what: string;
  readonly request: StoreRequest;
  readonly work: () => StoreResult;
}

export class LateStore implements BlockStore {
  readonly bytes: Uint8Array;
  readonly readOnly = false;
  readonly freesZeroes = false;
  readonly log: WriteLog;
  /** What was asked and is not answered. */
  readonly pending: Pending[] = [];
  /** Every call and every answer, in order. */
  readonly calls: string[] = [];
  /** What an answer is in place of the outcome. */
  fails: (what: string) => StoreResult = () => 'ok';

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.log = new WriteLog(bytes);
  }

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, into: Segments, request: StoreRequest): StoreAnswer {
    return this.#later(`read ${offset}`, request, () => {
      into.copyFrom(this.bytes.subarray(offset, offset + into.byteLength), 0);
      return 'ok';
    });
  }

  write(offset: number, from: Segments, request: StoreRequest): StoreAnswer {
    // A host may have read it at once.
    const bytes = new Uint8Array(from.byteLength);
    from.copyTo(bytes, 0, bytes.length);
    return this.#change(`write ${offset}`, offset, bytes, request);
  }

  flush(request: StoreRequest): StoreAnswer {
    const flush = this.log.flush();
    return this.#later('flush', request, () => {
      this.log.flushed(flush, true);
      return 'ok';
    });
  }

  discard(offset: number, length: number, request: StoreRequest): StoreAnswer {
    return this.#change(`discard ${offset}`, offset, new Uint8Array(length).fill(DISCARDED), request);
  }

  writeZeroes(offset: number, length: number, _: boolean, request: StoreRequest): StoreAnswer {
    return this.#change(`zeroes ${offset}`, offset, new Uint8Array(length), request);
  }

  /** Answers one of what is pending. Returns false when there is nothing. */
  answer(choice = 0): boolean {
    if (this.pending.length === 0) return false;
    const [{ what, request, work }] = this.pending.splice(choice % this.pending.length, 1);
    const failure = this.fails(what);
    const result = failure === 'ok' ? work() : failure;
    this.calls.push(`${what}: ${result}`);
    request.finish(result);
    return true;
  }

  /** Whoever asked is gone: what is pending still happens, and nobody is told. */
  orphan(): void {
    for (const [index, { what, work }] of this.pending.entries())
      this.pending[index] = { what, work, request: { finish: () => undefined } };
  }

  drain(): void {
    while (this.answer());
  }

  close(): void {
    // Nothing is held.
  }

  #change(what: string, offset: number, bytes: Uint8Array, request: StoreRequest): StoreAnswer {
    const write = this.log.write(offset, bytes);
    return this.#later(what, request, () => {
      this.bytes.set(bytes, offset);
      this.log.written(write);
      return 'ok';
    });
  }

  #later(what: string, request: StoreRequest, work: () => StoreResult): StoreAnswer {
    this.pending.push({ what, request, work });
    this.calls.push(what);
    return 'later';
  }
}
