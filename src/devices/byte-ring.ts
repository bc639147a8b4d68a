// Bytes on their way from one side to the other, first in, first out, in memory that never grows.
// Used by console-port.ts.

import { assert } from '../errors.ts';

/** A queue of at most as many bytes as it was made for. */
export class ByteRing {
  readonly #bytes: Uint8Array;
  #first = 0;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** Bytes that wait. */
  get length(): number {
    return this.#length;
  }

  /** Takes as many of `bytes` as there is room for, from the start; returns how many that are. */
  push(bytes: Uint8Array): number {
    const capacity = this.#bytes.length;
    const taken = Math.min(bytes.length, capacity - this.#length);
    const end = (this.#first + this.#length) % capacity;
    const upToWrap = Math.min(taken, capacity - end);
    this.#bytes.set(bytes.subarray(0, upToWrap), end);
    this.#bytes.set(bytes.subarray(upToWrap, taken), 0);
    this.#length += taken;
    return taken;
  }

  /** Whether there is no room. */
  get full(): boolean {
    return this.#length === this.#bytes.length;
  }

  /** Bytes that wait, from the one at `from` on: at most `most` of them, and at least one if there is any. */
  peek(from: number, most: number): Uint8Array {
    const at = (this.#first + from) % this.#bytes.length;
    return this.#bytes.subarray(at, at + Math.min(most, this.#length - from, this.#bytes.length - at));
  }

  /** Forgets the oldest `count` bytes. */
  drop(count: number): void {
    assert(count <= this.#length, 'no more bytes leave than there are', count, this.#length);
    this.#first = (this.#first + count) % this.#bytes.length;
    this.#length -= count;
  }

  clear(): void {
    this.drop(this.#length);
  }
}
