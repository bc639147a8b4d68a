// Runs of consecutive numbers that are free, by their lengths: finding the shortest that is long enough, and
// joining a run that comes back with its neighbours, take the same time however many there are and however
// scattered they lie. Used by references.ts.
//
// There is a list of runs for each class of lengths, and a bit for each list that has any ("segregated fits").
// A run is known by its last number, because runs are taken from their beginnings and given back before others:
// what is left of one, or what it has grown to, is mostly still the same entry of the same list.

/** Lengths up to this have a class each; a class of longer ones ends with a power of two. */
const LONGEST_EXACT = 16;
const CLASSES = 32;
const NONE = -1;

/** The class of runs of `length`, or NONE for no run. */
function classOf(length: number): number {
  if (length <= LONGEST_EXACT) return length - 1;
  return Math.min(LONGEST_EXACT + 27 - Math.clz32(length - 1), CLASSES - 1);
}

/** How many runs there are, and the longest of them. */
export interface RunFigures {
  readonly runs: number;
  readonly longest: number;
}

export class FreeRuns {
  /** The length of each run, at its first number and at its last; 0 elsewhere. */
  readonly #lengths: Int32Array;
  /** The lists' links, by the runs' last numbers. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #heads = new Int32Array(CLASSES).fill(NONE);
  /** A set bit is a class whose list has runs. */
  #filled = 0;

  /** @param end above all numbers; none is free until `add` makes it so, and 0 is never used */
  constructor(end: number) {
    this.#lengths = new Int32Array(end + 1);
    this.#next = new Int32Array(end);
    this.#previous = new Int32Array(end);
  }

  /** Takes `count` (at least 1) numbers in a row. Returns the first, or -1 when no run is as long. */
  take(count: number): number {
    const last = this.#find(count);
    if (last === NONE) return NONE;
    const length = this.#lengths[last];
    this.#resize(last, length, length - count);
    return last - length + 1;
  }

  /** Makes `count` numbers from `first` free, none of which is. */
  add(first: number, count: number): void {
    const before = this.#lengths[first - 1];
    if (before > 0) this.#resize(first - 1, before, 0);
    const after = this.#lengths[first + count];
    this.#resize(first + count + after - 1, after, before + count + after);
  }

  /** Counts the runs: as slow as there are many. */
  figures(): RunFigures {
    let runs = 0;
    let longest = 0;
    for (const head of this.#heads) {
      for (let last = head; last !== NONE; last = this.#next[last]) {
        runs++;
        longest = Math.max(longest, this.#lengths[last]);
      }
    }
    return { runs, longest };
  }

  /** A run of at least `count`, of the shortest such class. */
  #find(count: number): number {
    const own = classOf(count);
    if (own < LONGEST_EXACT) return this.#headFrom(this.#filled & (-1 << own));
    // A class of several lengths has runs that are too short.
    for (let last = this.#heads[own]; last !== NONE; last = this.#next[last])
      if (this.#lengths[last] >= count) return last;
    return this.#headFrom(this.#filled & (-2 << own));
  }

  /** The first run of the lowest of `classes`. */
  #headFrom(classes: number): number {
    return classes === 0 ? NONE : this.#heads[31 - Math.clz32(classes & -classes)];
  }

  /** Gives the run that ends with `last` another length; 0 is no run. */
  #resize(last: number, from: number, to: number): void {
    if (from > 0) this.#lengths[last - from + 1] = 0;
    if (to > 0) this.#lengths[last - to + 1] = to;
    this.#lengths[last] = to;
    const left = classOf(from);
    const entered = classOf(to);
    if (left === entered) return;
    if (left !== NONE) this.#unlink(last, left);
    if (entered !== NONE) this.#link(last, entered);
  }

  #link(last: number, list: number): void {
    const next = this.#heads[list];
    if (next !== NONE) this.#previous[next] = last;
    this.#next[last] = next;
    this.#previous[last] = NONE;
    this.#heads[list] = last;
    this.#filled |= 1 << list;
  }

  #unlink(last: number, list: number): void {
    const next = this.#next[last];
    const previous = this.#previous[last];
    if (next !== NONE) this.#previous[next] = previous;
    if (previous !== NONE) {
      this.#next[previous] = next;
      return;
    }
    this.#heads[list] = next;
    if (next === NONE) this.#filled &= ~(1 << list);
  }
}
