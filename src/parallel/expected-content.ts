// What a disk should hold, for the job that reads all of it. Used by copy-job.ts.

import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';

/** Bytes that are read from an image at a time, before others get a turn. */
const COMPARED = 4 * 2 ** 20;

/** Says whether what was read is right. */
export interface ExpectedContent {
  /**
   * Compares what was read from `offset` on. Returns the offset on the disk of the first byte that is wrong.
   *
   * @param breathe called now and then, when it takes long
   */
  firstDifference(copied: Uint8Array, offset: number, breathe: () => void): number | undefined;
  close(): void;
}

/** The file that the disk is made of. */
export class ImageContent implements ExpectedContent {
  readonly #file: number;
  #expected = Buffer.alloc(0);

  constructor(path: string) {
    this.#file = openSync(path, 'r');
  }

  firstDifference(copied: Uint8Array, offset: number, breathe: () => void): number | undefined {
    const { length } = copied;
    if (this.#expected.length < length) this.#expected = Buffer.alloc(length);
    for (let got = 0; got < length; ) {
      const step = readSync(this.#file, this.#expected, got, Math.min(length - got, COMPARED), offset + got);
      if (step === 0) return offset + got;
      got += step;
      breathe();
    }
    const expected = this.#expected.subarray(0, length);
    if (expected.equals(copied)) return undefined;
    return offset + copied.findIndex((byte, at) => byte !== expected[at]);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** What the disk held when it was read first: where nobody knows what it is made of, it must not change by itself. */
export class SeenContent implements ExpectedContent {
  /** Of each piece that was read, by its offset. */
  readonly #digests = new Map<number, string>();

  firstDifference(copied: Uint8Array, offset: number): number | undefined {
    const digest = createHash('sha256').update(copied).digest('base64');
    const before = this.#digests.get(offset);
    this.#digests.set(offset, digest);
    return before === undefined || before === digest ? undefined : offset;
  }

  close(): void {
    this.#digests.clear();
  }
}
