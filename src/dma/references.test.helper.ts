// A grant table that is only its length, and what a table of references has to be at every moment.

import assert from 'node:assert/strict';
import { GRANT_ENTRIES_PER_FRAME_V1, GRANT_RESERVED_ENTRIES } from '../abi/grant.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import type { References } from './references.ts';

/** Grows a frame at a time up to a limit, as tables of version 1 do; grants nothing. */
export class BareTable implements GrantTable {
  readonly maxEntries: number;
  readonly grantsParts = false;
  entries = GRANT_ENTRIES_PER_FRAME_V1;

  constructor(maxFrames: number) {
    this.maxEntries = maxFrames * GRANT_ENTRIES_PER_FRAME_V1;
  }

  grow(entries: number): boolean {
    if (entries > this.maxEntries) return false;
    const frames = Math.ceil(entries / GRANT_ENTRIES_PER_FRAME_V1);
    this.entries = Math.max(this.entries, frames * GRANT_ENTRIES_PER_FRAME_V1);
    return true;
  }

  grant(): void {
    // Nobody maps what this table grants.
  }

  grantPart(): void {
    // Nor parts of it.
  }

  revoke(): number {
    return 0;
  }

  isFree(): boolean {
    return true;
  }
}

/** What a reference is that the table has. */
type State = 'reserved' | 'free' | 'live' | 'quarantined';

/** Each reference's state, one by one in a plain array: the plainest allocator there is. */
export class ReferenceModel {
  readonly #states: State[] = [];
  #mostInUse = 0;

  /** The references in one state, lowest first. */
  those(state: State): number[] {
    return [...this.#states.keys()].filter((ref) => this.#states[ref] === state);
  }

  /** The table has become this long. */
  grow(entries: number): void {
    while (this.#states.length < entries)
      this.#states.push(this.#states.length < GRANT_RESERVED_ENTRIES ? 'reserved' : 'free');
  }

  /** Whether `count` references in a row are free. */
  hasRun(count: number): boolean {
    return this.#runs().some((length) => length >= count);
  }

  /** Changes the state of a run; each of its references must have been in state `from`. */
  move(first: number, count: number, from: State, to: State): void {
    for (let ref = first; ref < first + count; ref++) {
      assert.equal(this.#states[ref], from, `reference ${ref} of ${this.#states.length} becomes ${to}`);
      this.#states[ref] = to;
    }
    const inUse = this.those('live').length + this.those('quarantined').length;
    this.#mostInUse = Math.max(this.#mostInUse, inUse);
  }

  /** The figures agree with a recount, and reserved, free, live and quarantined are all there is. */
  check(references: References, maxEntries: number): void {
    const entries = this.#states.length;
    const [free, live, quarantined] = (['free', 'live', 'quarantined'] as const).map(
      (state) => this.those(state).length,
    );
    const runs = this.#runs();
    const longestFreeRun = Math.max(0, ...runs);
    assert.deepEqual(references.usage(), {
      entries,
      maxEntries,
      free,
      live,
      quarantined,
      mostInUse: this.#mostInUse,
      headroom: maxEntries - GRANT_RESERVED_ENTRIES - live - quarantined,
      freeRuns: runs.length,
      longestFreeRun,
      fragmentation: free === 0 ? 0 : 1 - longestFreeRun / free,
    });
    assert.equal(
      references.free + references.live + references.quarantined + GRANT_RESERVED_ENTRIES,
      references.entries,
    );
  }

  /** The lengths of the free runs. */
  #runs(): number[] {
    const text = this.#states.map((state) => (state === 'free' ? 'f' : ' ')).join('');
    return text.split(/ +/).flatMap((run) => (run === '' ? [] : [run.length]));
  }
}
