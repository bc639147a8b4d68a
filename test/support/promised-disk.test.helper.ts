// What a block device has promised its driver (virtio 1.3 §5.2.6.2), from what the driver asked and was answered:
// the oracle of the power-cut tests. It knows nothing of stores and logs.

import assert from 'node:assert/strict';

const SECTOR = 512;

/** Something that was to change sectors. */
interface Change {
  readonly first: number;
  readonly count: number;
  /** What they hold afterwards; undefined for a discard, after which they may hold anything. */
  readonly bytes: Uint8Array | undefined;
  readonly begun: number;
  /** When it was answered, whatever the answer; Infinity until then. */
  ended: number;
}

/** A flush that is under way. */
export interface PromisedFlush {
  readonly begun: number;
}

/**
 * A sector holds, after a power cut, what the last stable change left there, or what any change since would have.
 * "Last" and "since" go by what the driver knows: a change comes after another that was answered before it was asked
 * for. Of two that were asked for together either may be the later.
 */
export class PromisedDisk {
  /** For each sector what it may hold, oldest first. */
  readonly #sectors: Change[][];
  readonly #writeThrough: boolean;
  /** Changes that have succeeded and that the next flush covers. */
  readonly #volatile = new Set<Change>();
  #now = 0;

  /** @param writeThrough that a change is stable as soon as it was answered: no flush was negotiated */
  constructor(bytes: Uint8Array, writeThrough: boolean) {
    this.#writeThrough = writeThrough;
    this.#sectors = Array.from({ length: bytes.length / SECTOR }, (_, first) => [
      {
        first,
        count: 1,
        bytes: bytes.slice(first * SECTOR, (first + 1) * SECTOR),
        begun: -1,
        ended: -1,
      },
    ]);
  }

  /** A change was asked for. */
  begin(first: number, count: number, bytes: Uint8Array | undefined): Change {
    const begun = this.#now++;
    const change = { first, count, bytes, begun, ended: Number.POSITIVE_INFINITY };
    for (let sector = first; sector < first + count; sector++) this.#sectors[sector].push(change);
    return change;
  }

  /** It was answered. One that failed may have been done, in part or not at all. */
  end(change: Change, succeeded: boolean): void {
    assert.equal(change.ended, Number.POSITIVE_INFINITY, 'a request is answered once');
    change.ended = this.#now++;
    if (!succeeded) return;
    if (this.#writeThrough) this.#settle(change);
    else this.#volatile.add(change);
  }

  beginFlush(): PromisedFlush {
    return { begun: this.#now++ };
  }

  /** A flush that succeeded makes stable what was answered before it was asked for. */
  endFlush({ begun }: PromisedFlush, succeeded: boolean): void {
    if (!succeeded) return;
    for (const change of this.#volatile) if (change.ended < begun) this.#settle(change);
  }

  /** How many contents a sector may have. */
  choices(sector: number): number {
    return this.#sectors[sector].length;
  }

  /** Whether a sector may hold these bytes after a power cut. */
  allows(sector: number, held: Uint8Array): boolean {
    return this.#sectors[sector].some(
      ({ bytes, first }) =>
        bytes === undefined ||
        Buffer.compare(bytes.subarray((sector - first) * SECTOR, (sector - first + 1) * SECTOR), held) === 0,
    );
  }

  /** What was answered before it was asked for can come back no more. */
  #settle(change: Change): void {
    this.#volatile.delete(change);
    for (let sector = change.first; sector < change.first + change.count; sector++)
      this.#sectors[sector] = this.#sectors[sector].filter(({ ended }) => ended >= change.begun);
  }
}
