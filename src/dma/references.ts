// Allocates grant references: single ones and consecutive runs, for one DMA mapping of n pages is one
// address and therefore n references in a row. Between dma/grants.ts and the domain's grant table.
//
// A bitmap (a set bit is a free reference), searched a word of 32 at a time from where the last search
// ended. After every operation reserved + free + live + quarantined == entries.

import { GRANT_RESERVED_ENTRIES } from '../abi/grant.ts';
import { assert } from '../errors.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import type { GrantRef } from '../xen/ids.ts';

const WORD_BITS = 32;
const ALL_FREE = 0xffff_ffff;

/** Set bits from bit 0 upwards before the first clear one. */
function trailingOnes(word: number): number {
  const inverted = ~word;
  return inverted === 0 ? WORD_BITS : WORD_BITS - 1 - Math.clz32(inverted & -inverted);
}

/** Lowest bit at which `count` (1-31) set bits follow each other, or -1. */
function runInWord(word: number, count: number): number {
  let starts = word;
  for (let have = 1; have < count; ) {
    const shift = Math.min(have, count - have);
    starts &= starts >>> shift;
    have += shift;
  }
  return starts === 0 ? -1 : WORD_BITS - 1 - Math.clz32(starts & -starts);
}

/** The references of one domain's table. */
export class References {
  readonly #table: GrantTable;
  readonly #words: Uint32Array;
  #entries: number;
  #free: number;
  #quarantined = 0;
  /** Word at which the next search starts. */
  #hint = 0;

  constructor(table: GrantTable) {
    this.#table = table;
    this.#words = new Uint32Array(Math.ceil(table.maxEntries / WORD_BITS));
    this.#entries = table.entries;
    this.#free = 0;
    this.#markFree(GRANT_RESERVED_ENTRIES, table.entries - GRANT_RESERVED_ENTRIES);
  }

  /** Entries of the table, the reserved ones included. */
  get entries(): number {
    return this.#entries;
  }

  get free(): number {
    return this.#free;
  }

  /** References in use and not in quarantine. */
  get live(): number {
    return this.#entries - GRANT_RESERVED_ENTRIES - this.#free - this.#quarantined;
  }

  get quarantined(): number {
    return this.#quarantined;
  }

  /**
   * Takes `count` consecutive references, growing the table when no run is free.
   *
   * @returns the first of them, or -1 when the table may not grow any more
   */
  allocate(count: number): number {
    assert(count > 0, 'a run of grant references has at least one');
    let first = this.#find(count);
    if (first < 0 && this.#grow(count)) first = this.#find(count);
    if (first < 0) return -1;
    this.#markUsed(first, count);
    return first;
  }

  /** Gives back `count` references from `first`, to which access has ended. */
  release(first: number, count: number): void {
    assert(first >= GRANT_RESERVED_ENTRIES, 'a reserved grant reference is released', first);
    this.#markFree(first, count);
  }

  /** Books a live reference as quarantined: its page is still mapped, so it may not be used again. */
  quarantine(_ref: GrantRef): void {
    this.#quarantined++;
  }

  /** Gives back a reference out of quarantine. */
  recover(ref: GrantRef): void {
    this.#quarantined--;
    this.#markFree(ref, 1);
  }

  #find(count: number): number {
    const found = this.#search(count, this.#hint);
    return found < 0 && this.#hint > 0 ? this.#search(count, 0) : found;
  }

  #search(count: number, from: number): number {
    const words = this.#words;
    // Free references that end where the current word starts.
    let run = 0;
    for (let index = from; index < words.length; index++) {
      const word = words[index];
      if (word === ALL_FREE) run += WORD_BITS;
      else {
        if (run + trailingOnes(word) >= count) return index * WORD_BITS - run;
        const inside = count < WORD_BITS ? runInWord(word, count) : -1;
        if (inside >= 0) return index * WORD_BITS + inside;
        run = Math.clz32(~word);
        continue;
      }
      if (run >= count) return (index + 1) * WORD_BITS - run;
    }
    return -1;
  }

  /** Doubles the table, or makes it as long as `count` more references need. */
  #grow(count: number): boolean {
    const wanted = Math.min(Math.max(this.#entries * 2, this.#entries + count), this.#table.maxEntries);
    if (wanted === this.#entries || !this.#table.grow(wanted)) return false;
    const before = this.#entries;
    this.#entries = this.#table.entries;
    this.#markFree(before, this.#entries - before);
    return true;
  }

  #markUsed(first: number, count: number): void {
    for (let ref = first; ref < first + count; ref++) this.#words[ref >>> 5] &= ~(1 << (ref & 31));
    this.#free -= count;
    this.#hint = first >>> 5;
  }

  #markFree(first: number, count: number): void {
    for (let ref = first; ref < first + count; ref++) {
      const bit = 1 << (ref & 31);
      assert((this.#words[ref >>> 5] & bit) === 0, 'a grant reference is released once', ref);
      this.#words[ref >>> 5] |= bit;
    }
    this.#free += count;
    if (count > 0) this.#hint = Math.min(this.#hint, first >>> 5);
  }
}
