// A set of bytes as disjoint ranges, and one such set for each frame: how the accounting counts a byte of
// guest memory once, however often it was exposed. Used by exposure-figures.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';

/** Bytes of one page. */
class ByteRanges {
  /** start, end, start, end, …: sorted, apart from each other, ends exclusive. */
  readonly #bounds: number[] = [];
  size = 0;

  /** Adds the bytes from `start` up to and without `end`. */
  add(start: number, end: number): void {
    const bounds = this.#bounds;
    let first = 0;
    while (first < bounds.length && bounds[first + 1] < start) first += 2;
    let from = start;
    let to = end;
    let last = first;
    let absorbed = 0;
    for (; last < bounds.length && bounds[last] <= end; last += 2) {
      from = Math.min(from, bounds[last]);
      to = Math.max(to, bounds[last + 1]);
      absorbed += bounds[last + 1] - bounds[last];
    }
    if (absorbed === to - from) return;
    bounds.splice(first, last - first, from, to);
    this.size += to - from - absorbed;
  }
}

/** Distinct bytes of guest memory, by frame. Memory grows with the frames that occur, not with the run. */
export class FrameBytes {
  readonly #frames = new Map<number, ByteRanges>();
  /** How many bytes the set holds. */
  size = 0;

  /** Adds bytes `start` to `end` (exclusive) of a frame. */
  add(frame: number, start: number, end: number): void {
    let ranges = this.#frames.get(frame);
    if (ranges === undefined) {
      ranges = new ByteRanges();
      this.#frames.set(frame, ranges);
    }
    const before = ranges.size;
    if (before === XEN_PAGE_SIZE) return;
    ranges.add(start, end);
    this.size += ranges.size - before;
  }
}
