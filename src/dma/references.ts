// Allocates grant references: single ones and consecutive runs, for one DMA mapping of n pages is one
// address and therefore n references in a row. Between dma/grants.ts and the domain's grant table.
//
// Each reference is in one state, and after every operation reserved + free + live + quarantined == entries.
// Which free ones lie in a row is kept in free-runs.ts.

import { GRANT_RESERVED_ENTRIES } from '../abi/grant.ts';
import { assert } from '../errors.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import type { GrantRef } from '../xen/ids.ts';
import { FreeRuns } from './free-runs.ts';

// What a reference is. Reserved ones are UNUSABLE, and so are those that the table has not grown to.
const UNUSABLE = 0;
const FREE = 1;
const LIVE = 2;
const QUARANTINED = 3;

/** How full and how scattered a domain's grant table is; figures are references unless named otherwise. */
export interface ReferenceUsage {
  /** Those that exist now and those that may exist (max_grant_frames), the 8 reserved ones included. */
  readonly entries: number;
  readonly maxEntries: number;
  readonly free: number;
  readonly live: number;
  readonly quarantined: number;
  /** Most that were live or in quarantine at once. */
  readonly mostInUse: number;
  /** Those that can still be allocated, if the table grows as far as it may. */
  readonly headroom: number;
  /** The number of runs in which the free ones lie, and the length of the longest. */
  readonly freeRuns: number;
  readonly longestFreeRun: number;
  /** Share of the free ones that lie outside of the longest run: 0 in a table like new, towards 1 in dust. */
  readonly fragmentation: number;
}

/** The references of one domain's table. */
export class References {
  readonly #table: GrantTable;
  /** What each reference is. */
  readonly #states: Uint8Array;
  readonly #freeRuns: FreeRuns;
  #entries: number;
  #free = 0;
  #quarantined = 0;
  #mostInUse = 0;

  constructor(table: GrantTable) {
    this.#table = table;
    this.#states = new Uint8Array(table.maxEntries);
    this.#freeRuns = new FreeRuns(table.maxEntries);
    this.#entries = table.entries;
    this.#setFree(GRANT_RESERVED_ENTRIES, table.entries - GRANT_RESERVED_ENTRIES, UNUSABLE);
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

  /** All figures of the table now. Walks the free runs: not for the path of a request. */
  usage(): ReferenceUsage {
    const { entries, free, live, quarantined } = this;
    const { maxEntries } = this.#table;
    const { runs, longest } = this.#freeRuns.figures();
    return {
      entries,
      maxEntries,
      free,
      live,
      quarantined,
      mostInUse: this.#mostInUse,
      headroom: free + maxEntries - entries,
      freeRuns: runs,
      longestFreeRun: longest,
      fragmentation: free === 0 ? 0 : 1 - longest / free,
    };
  }

  /**
   * Takes `count` consecutive references, growing the table when no run is free.
   *
   * @returns the first of them, or -1 when the table may not grow any more
   */
  allocate(count: number): number {
    assert(count > 0, 'a run of grant references has at least one');
    let first = this.#freeRuns.take(count);
    if (first < 0 && this.#grow(count)) first = this.#freeRuns.take(count);
    if (first < 0) return -1;
    const states = this.#states;
    for (let ref = first; ref < first + count; ref++) states[ref] = LIVE;
    this.#free -= count;
    const inUse = this.#entries - GRANT_RESERVED_ENTRIES - this.#free;
    if (inUse > this.#mostInUse) this.#mostInUse = inUse;
    return first;
  }

  /** Gives back `count` references from `first`, to which access has ended. */
  release(first: number, count: number): void {
    this.#setFree(first, count, LIVE);
  }

  /** Books a live reference as quarantined: its page is still mapped, so it may not be used again. */
  quarantine(ref: GrantRef): void {
    assert(this.#states[ref] === LIVE, 'a grant reference that is put into quarantine is live', ref);
    this.#states[ref] = QUARANTINED;
    this.#quarantined++;
  }

  /** Gives back a reference out of quarantine. */
  recover(ref: GrantRef): void {
    this.#setFree(ref, 1, QUARANTINED);
    this.#quarantined--;
  }

  /** Doubles the table, or makes it as long as `count` more references need. */
  #grow(count: number): boolean {
    const wanted = Math.min(Math.max(this.#entries * 2, this.#entries + count), this.#table.maxEntries);
    if (wanted === this.#entries || !this.#table.grow(wanted)) return false;
    const before = this.#entries;
    this.#entries = this.#table.entries;
    this.#setFree(before, this.#entries - before, UNUSABLE);
    return true;
  }

  /** Makes references free, each of which must be in state `from`. */
  #setFree(first: number, count: number, from: number): void {
    assert(count > 0, 'a run of grant references that becomes free has at least one');
    const states = this.#states;
    for (let ref = first; ref < first + count; ref++) {
      assert(states[ref] === from, 'a grant reference is given back while it is in use, and once', ref);
      states[ref] = FREE;
    }
    this.#free += count;
    this.#freeRuns.add(first, count);
  }
}
