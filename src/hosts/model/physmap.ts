// A domain's address space (p2m): for each 4 KiB frame number that the domain uses (gfn), which machine frame
// stands there, and what the domain may do with it. Two levels of tables in Xen's heap; the lower ones are made
// when they are first needed.

import type { Machine } from './state.ts';
import { PAGE_WORDS } from './state.ts';

/** Kinds of entries. */
export const P2M_NONE = 0;
/** The domain's own memory, or a page that Xen shares with it. */
export const P2M_RAM = 1;
/** A page that another domain has granted. */
export const P2M_GRANT_WRITABLE = 2;
export const P2M_GRANT_READONLY = 3;
/** A page of another domain, mapped because this one is its device model or the toolstack. */
export const P2M_FOREIGN = 4;

const TYPE_MASK = 7;
const FRAME_SHIFT = 3;
const LEAF_SHIFT = 10;
const LEAF_MASK = PAGE_WORDS - 1;

/** Frame numbers of an address space: 8 GiB. */
export const PHYSMAP_FRAMES = 1 << 21;
const LEAVES = PHYSMAP_FRAMES >> LEAF_SHIFT;
const DIRECTORY_PAGES = LEAVES / PAGE_WORDS;

/** The type of an entry. */
export function p2mType(entry: number): number {
  return entry & TYPE_MASK;
}

/** The machine frame of an entry; meaningless where its type is P2M_NONE. */
export function p2mFrame(entry: number): number {
  return entry >>> FRAME_SHIFT;
}

/** An entry. */
export function p2mEntry(frame: number, type: number): number {
  return ((frame << FRAME_SHIFT) | type) >>> 0;
}

/** One domain's address space. */
export class Physmap {
  readonly #machine: Machine;
  readonly #heap: Int32Array;
  /** Index of the directory's first word. */
  readonly directory: number;

  constructor(machine: Machine, directory: number) {
    this.#machine = machine;
    this.#heap = machine.heap;
    this.directory = directory;
  }

  /** Makes an empty directory. Returns the index of its first word, or 0 when Xen's heap is used up. */
  static create(machine: Machine): number {
    return machine.takePages(DIRECTORY_PAGES);
  }

  /** The entry at `gfn`; P2M_NONE where there is nothing, and outside. */
  get(gfn: number): number {
    if (!(gfn >= 0 && gfn < PHYSMAP_FRAMES)) return P2M_NONE;
    const leaf = this.#heap[this.directory + (gfn >>> LEAF_SHIFT)];
    return leaf === 0 ? P2M_NONE : this.#heap[leaf + (gfn & LEAF_MASK)] >>> 0;
  }

  /**
   * Puts `entry` at `gfn` in place of `before`. Returns false when something else stands there, there is no
   * such place, or Xen's heap is used up.
   */
  replace(gfn: number, before: number, entry: number): boolean {
    if (!(gfn >= 0 && gfn < PHYSMAP_FRAMES)) return false;
    const leaf = this.#leaf(gfn >>> LEAF_SHIFT);
    if (leaf === 0) return false;
    const word = leaf + (gfn & LEAF_MASK);
    return Atomics.compareExchange(this.#heap, word, before | 0, entry | 0) === (before | 0);
  }

  /** Puts a machine frame at an empty place. Returns false as `replace` does. */
  add(gfn: number, frame: number, type: number): boolean {
    return this.replace(gfn, P2M_NONE, p2mEntry(frame, type));
  }

  /**
   * Puts `count` machine frames that follow each other at empty places from `gfn`, for a domain that is being
   * made. Returns false when Xen's heap is used up; what was put is then left for `release`.
   */
  fill(gfn: number, frame: number, count: number): boolean {
    for (let index = 0; index < count; index++) {
      const leaf = this.#leaf((gfn + index) >>> LEAF_SHIFT);
      if (leaf === 0) return false;
      this.#heap[leaf + ((gfn + index) & LEAF_MASK)] = p2mEntry(frame + index, P2M_RAM);
    }
    return true;
  }

  /** Takes away whatever stands at `gfn`. */
  remove(gfn: number): void {
    const leaf = this.#heap[this.directory + (gfn >>> LEAF_SHIFT)];
    if (leaf !== 0) Atomics.store(this.#heap, leaf + (gfn & LEAF_MASK), P2M_NONE);
  }

  /** Every entry that is not P2M_NONE, in order of frame numbers; for tests and for what is saved. */
  *entries(): Generator<{ readonly gfn: number; readonly frame: number; readonly type: number }> {
    for (let index = 0; index < LEAVES; index++) {
      const leaf = this.#heap[this.directory + index];
      if (leaf === 0) continue;
      for (let place = 0; place < PAGE_WORDS; place++) {
        const entry = this.#heap[leaf + place] >>> 0;
        if (entry !== P2M_NONE)
          yield { gfn: index * PAGE_WORDS + place, frame: p2mFrame(entry), type: p2mType(entry) };
      }
    }
  }

  /** Gives all tables back, one lower table a turn; for a domain that is going. */
  *release(): Generator<void> {
    for (let index = 0; index < LEAVES; index++) {
      const leaf = this.#heap[this.directory + index];
      if (leaf === 0) continue;
      this.#heap[this.directory + index] = 0;
      this.#machine.givePages(leaf, 1);
      yield;
    }
    this.#machine.givePages(this.directory, DIRECTORY_PAGES);
  }

  #leaf(index: number): number {
    const word = this.directory + index;
    const leaf = this.#heap[word];
    if (leaf !== 0) return leaf;
    const fresh = this.#machine.takePages(1);
    if (fresh === 0) return 0;
    const other = Atomics.compareExchange(this.#heap, word, 0, fresh);
    if (other === 0) return fresh;
    this.#machine.givePages(fresh, 1);
    return other;
  }
}
