// Maptrack: what a domain has mapped, by handle. An entry is guarded by the lock of the active grant entry
// that it pins (grant-ops.ts).
//
// Each thread keeps the handles that were given back on it for itself, as Xen does for each processor, so
// that taking one costs no atomic operation.

import type { DomainRecord } from './domains.ts';

// Words of an entry.
/** The owner's id + 1; 0 while the handle is free. */
const OWNER = 0;
const REF = 1;
/** GNTMAP_ flags of the mapping. */
const FLAGS = 2;
/** The mapper's own frame at which the page stands. */
const FRAME = 3;

/** The mappings of one domain, as one thread uses them. */
export class Maptrack {
  readonly #heap: Int32Array;
  readonly #domain: DomainRecord;
  /** Free handles, the one given back last on top. */
  readonly #free: number[] = [];

  constructor(heap: Int32Array, domain: DomainRecord) {
    this.#heap = heap;
    this.#domain = domain;
  }

  /** Takes a free handle, or -1 when the domain may hold no more mappings. */
  take(): number {
    if (this.#free.length > 0) return this.#free.pop()!;
    const { maptrackUsedWord, maptrackHandles } = this.#domain;
    const fresh = Atomics.add(this.#heap, maptrackUsedWord, 1);
    if (fresh < maptrackHandles) return fresh;
    Atomics.sub(this.#heap, maptrackUsedWord, 1);
    return -1;
  }

  /** Gives a handle back; its entry must be clear. */
  give(handle: number): void {
    this.#free.push(handle);
  }

  /** Books a mapping at a handle that was taken. */
  set(handle: number, owner: number, ref: number, flags: number, frame: number): void {
    const at = this.#domain.maptrackEntry(handle);
    this.#heap[at + REF] = ref;
    this.#heap[at + FLAGS] = flags;
    this.#heap[at + FRAME] = frame;
    this.#heap[at + OWNER] = owner + 1;
  }

  clear(handle: number): void {
    this.#heap[this.#domain.maptrackEntry(handle) + OWNER] = 0;
  }

  /** A handle's owner, or -1 when the handle is out of range or free. */
  owner(handle: number): number {
    if (!(handle >= 0 && handle < this.#domain.maptrackHandles)) return -1;
    return this.#heap[this.#domain.maptrackEntry(handle) + OWNER] - 1;
  }

  ref(handle: number): number {
    return this.#heap[this.#domain.maptrackEntry(handle) + REF] >>> 0;
  }

  flags(handle: number): number {
    return this.#heap[this.#domain.maptrackEntry(handle) + FLAGS];
  }

  /** The mapper's frame behind a handle in use. */
  frame(handle: number): number {
    return this.#heap[this.#domain.maptrackEntry(handle) + FRAME];
  }
}
