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

/** Each reference's fate, one by one: the plainest allocator there is. */
export class ReferenceModel {
  readonly live = new Set<number>();
  readonly quarantined = new Set<number>();

  isFree(ref: number): boolean {
    return ref >= GRANT_RESERVED_ENTRIES && !this.live.has(ref) && !this.quarantined.has(ref);
  }

  /** Whether `count` references in a row are free below `entries`. */
  hasRun(count: number, entries: number): boolean {
    for (let ref = GRANT_RESERVED_ENTRIES, run = 0; ref < entries; ref++) {
      run = this.isFree(ref) ? run + 1 : 0;
      if (run === count) return true;
    }
    return false;
  }

  /** Books a run; each of its references must have been free and exist. */
  take(first: number, count: number, entries: number): void {
    for (let ref = first; ref < first + count; ref++) {
      assert.ok(this.isFree(ref) && ref < entries, `reference ${ref} of a table of ${entries} was given out`);
      this.live.add(ref);
    }
  }

  /** The counters agree with a recount, and reserved, free, live and quarantined are all there is. */
  check(references: References): void {
    const { entries, free, live, quarantined } = references;
    let counted = 0;
    for (let ref = 0; ref < entries; ref++) if (this.isFree(ref)) counted++;
    assert.deepEqual([free, live, quarantined], [counted, this.live.size, this.quarantined.size]);
    assert.equal(free + live + quarantined + GRANT_RESERVED_ENTRIES, entries);
  }
}
