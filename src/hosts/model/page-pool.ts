// Units of memory that are taken and given back: machine frames, and pages of Xen's heap. One bit for each,
// under one lock; runs are found by looking for them, since only the making of a domain asks for long ones.

import { assert } from '../../errors.ts';
import { lock, unlock } from './lock.ts';

// Words of a pool.
const LOCK = 0;
/** Where the last search ended, so that the next goes on from there. */
const HINT = 1;
const FREE = 2;
const BITMAP = 3;

const ALL_TAKEN = -1;

/** Words that a pool of `count` units takes. */
export function poolWords(count: number): number {
  return BITMAP + Math.ceil(count / 32);
}

/** A pool as one thread sees it. */
export class PagePool {
  readonly #heap: Int32Array;
  readonly #at: number;
  readonly #count: number;

  /** @param at index of the pool's first word, where `initialise` has made it */
  constructor(heap: Int32Array, at: number, count: number) {
    this.#heap = heap;
    this.#at = at;
    this.#count = count;
  }

  /** Makes a pool with all its units free, in zeroed words. */
  static initialise(heap: Int32Array, at: number, count: number): PagePool {
    heap[at + FREE] = count;
    const pool = new PagePool(heap, at, count);
    for (let beyond = count; beyond % 32 !== 0; beyond++) pool.#setBit(beyond, true);
    return pool;
  }

  /** Units that nobody has. */
  get free(): number {
    return Atomics.load(this.#heap, this.#at + FREE);
  }

  /** Takes `count` units that follow each other. Returns the first, or -1 when there is no such run. */
  take(count: number): number {
    const heap = this.#heap;
    lock(heap, this.#at + LOCK);
    const first = this.#find(count);
    if (first >= 0) {
      for (let unit = first; unit < first + count; unit++) this.#setBit(unit, true);
      heap[this.#at + HINT] = first + count;
      Atomics.sub(heap, this.#at + FREE, count);
    }
    unlock(heap, this.#at + LOCK);
    return first;
  }

  /** Gives units back. */
  give(first: number, count: number): void {
    const heap = this.#heap;
    lock(heap, this.#at + LOCK);
    for (let unit = first; unit < first + count; unit++) {
      assert(this.#isTaken(unit), 'what is given back has been taken', unit);
      this.#setBit(unit, false);
    }
    Atomics.add(heap, this.#at + FREE, count);
    unlock(heap, this.#at + LOCK);
  }

  #find(count: number): number {
    if (count > this.#heap[this.#at + FREE]) return -1;
    const hint = this.#heap[this.#at + HINT];
    const found = this.#findFrom(hint, count);
    return found >= 0 || hint === 0 ? found : this.#findFrom(0, count);
  }

  #findFrom(start: number, count: number): number {
    let run = 0;
    for (let unit = start; unit < this.#count; unit++) {
      if ((unit & 31) === 0 && this.#heap[this.#at + BITMAP + (unit >>> 5)] === ALL_TAKEN) {
        run = 0;
        unit += 31;
        continue;
      }
      run = this.#isTaken(unit) ? 0 : run + 1;
      if (run === count) return unit - count + 1;
    }
    return -1;
  }

  #isTaken(unit: number): boolean {
    return ((this.#heap[this.#at + BITMAP + (unit >>> 5)] >>> (unit & 31)) & 1) === 1;
  }

  #setBit(unit: number, taken: boolean): void {
    const word = this.#at + BITMAP + (unit >>> 5);
    const bit = 1 << (unit & 31);
    this.#heap[word] = taken ? this.#heap[word] | bit : this.#heap[word] & ~bit;
  }
}
