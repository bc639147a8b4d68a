// A set of numbers as ranges that do not touch each other, in one page of Xen's heap: the addresses, ports or PCI
// functions that one ioreq server answers for (Xen common/rangeset.c). For the holder of the device model's lock.
// Before servers.ts.

import { EEXIST, ENOENT, ENOMEM } from '../errno.ts';

/** Ranges of one kind that one server may have. */
export const MAX_IO_RANGES = 256;

/** Words of a range: first and last number that belong to it, the lower half first. */
const RANGE_WORDS = 4;
const HIGH = 2 ** 32;

type Range = readonly [first: bigint, last: bigint];

/** The ranges in one page. */
export class Ranges {
  readonly #heap: Int32Array;
  readonly #at: number;
  readonly #countWord: number;

  /** @param at index of the page's first word; @param countWord index of the word that counts the ranges */
  constructor(heap: Int32Array, at: number, countWord: number) {
    this.#heap = heap;
    this.#at = at;
    this.#countWord = countWord;
  }

  get count(): number {
    return this.#heap[this.#countWord];
  }

  /**
   * Adds `first` to `last`, both included, and joins it with what it touches. Returns 0; EEXIST when a number is
   * there already; ENOMEM when there are too many ranges.
   */
  add(first: bigint, last: bigint): number {
    const ranges = this.list();
    if (ranges.some((range) => range[0] <= last && first <= range[1])) return EEXIST;
    const before = ranges.findLastIndex((range) => range[1] < first);
    const joins = before >= 0 && ranges[before][1] + 1n === first;
    // As Xen does it: a range that only touches the next one is made first and joined then.
    if (!joins && ranges.length === MAX_IO_RANGES) return ENOMEM;
    const next = ranges.at(before + 1);
    const joinsNext = next !== undefined && last + 1n === next[0];
    const joined: Range = [joins ? ranges[before][0] : first, joinsNext ? next[1] : last];
    ranges.splice(joins ? before : before + 1, (joins ? 1 : 0) + (joinsNext ? 1 : 0), joined);
    this.#store(ranges);
    return 0;
  }

  /** Removes numbers. Returns 0; ENOENT unless all are there; ENOMEM when what is left would be too many ranges. */
  remove(first: bigint, last: bigint): number {
    const ranges = this.list();
    const index = ranges.findIndex((range) => range[0] <= first && last <= range[1]);
    if (index < 0) return ENOENT;
    const rest: Range[] = [];
    if (ranges[index][0] < first) rest.push([ranges[index][0], first - 1n]);
    if (last < ranges[index][1]) rest.push([last + 1n, ranges[index][1]]);
    if (ranges.length - 1 + rest.length > MAX_IO_RANGES) return ENOMEM;
    ranges.splice(index, 1, ...rest);
    this.#store(ranges);
    return 0;
  }

  /** Whether all numbers from `first` to `last` are in one range; numbers below 2^53. */
  contains(first: number, last: number): boolean {
    let [low, high] = [0, this.count];
    // The last range that begins at or before `first`.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#number(middle, 0) <= first) low = middle + 1;
      else high = middle;
    }
    return low > 0 && last <= this.#number(low - 1, 2);
  }

  /** All ranges in order. */
  list(): Range[] {
    return Array.from({ length: this.count }, (_, index) => [this.#exact(index, 0), this.#exact(index, 2)]);
  }

  clear(): void {
    this.#heap[this.#countWord] = 0;
  }

  #store(ranges: readonly Range[]): void {
    ranges.forEach(([first, last], index) => {
      const word = this.#at + index * RANGE_WORDS;
      this.#heap[word] = Number(first & 0xffff_ffffn);
      this.#heap[word + 1] = Number(first >> 32n);
      this.#heap[word + 2] = Number(last & 0xffff_ffffn);
      this.#heap[word + 3] = Number(last >> 32n);
    });
    this.#heap[this.#countWord] = ranges.length;
  }

  /** Rounded above 2^53, where nothing that is looked for lies. */
  #number(index: number, half: 0 | 2): number {
    const word = this.#at + index * RANGE_WORDS + half;
    return (this.#heap[word + 1] >>> 0) * HIGH + (this.#heap[word] >>> 0);
  }

  #exact(index: number, half: 0 | 2): bigint {
    const word = this.#at + index * RANGE_WORDS + half;
    return (BigInt(this.#heap[word + 1] >>> 0) << 32n) | BigInt(this.#heap[word] >>> 0);
  }
}
