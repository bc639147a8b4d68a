// A set of bytes as disjoint ranges, and one such set for each frame: how the accounting counts a byte of
// guest memory once, however often it was exposed. Used by exposure-figures.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';

/** A set of numbers. */
class Ranges {
  /** start, end, start, end, …: sorted, apart from each other, ends exclusive. */
  readonly #bounds: number[] = [];
  size = 0;

  /** Adds the numbers from `start` up to and without `end`. */
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

  has(number: number): boolean {
    const bounds = this.#bounds;
    for (let at = 0; at < bounds.length && bounds[at] <= number; at += 2) {
      if (number < bounds[at + 1]) return true;
    }
    return false;
  }
}

/**
 * Distinct bytes of guest memory. Memory grows with the frames of which some bytes are in the set, and with
 * the runs of whole frames that were added at once: neither with the run nor with the size of the guest.
 */
export class FrameBytes {
  readonly #frames = new Map<number, Ranges>();
  /** Frames that are in the set as a whole, and not in #frames. */
  readonly #whole = new Ranges();
  /** How many bytes the set holds. */
  size = 0;

  /** Adds bytes `start` to `end` (exclusive) of a frame. */
  add(frame: number, start: number, end: number): void {
    if (this.#whole.size > 0 && this.#whole.has(frame)) return;
    let ranges = this.#frames.get(frame);
    if (ranges === undefined) {
      ranges = new Ranges();
      this.#frames.set(frame, ranges);
    }
    const before = ranges.size;
    if (before === XEN_PAGE_SIZE) return;
    ranges.add(start, end);
    this.size += ranges.size - before;
  }

  /** Adds all bytes of the frames from `first` up to and without `end`. */
  addFrames(first: number, end: number): void {
    for (const [frame, ranges] of this.#frames) {
      if (frame < first || frame >= end) continue;
      this.#frames.delete(frame);
      this.size -= ranges.size;
    }
    const before = this.#whole.size;
    this.#whole.add(first, end);
    this.size += (this.#whole.size - before) * XEN_PAGE_SIZE;
  }

  /** How many bytes of a frame the set holds. */
  sizeIn(frame: number): number {
    return this.#whole.has(frame) ? XEN_PAGE_SIZE : (this.#frames.get(frame)?.size ?? 0);
  }
}
