// Maptrack: what a domain has mapped, by handle. Given-back handles are a lock-free stack whose head carries
// a counter, so that a thread that was overtaken between its look and its swap notices (the ABA problem);
// handles never used before are taken in order, so that memory is touched only as far as it is needed.

import { type DomainRecord, MAPPED_REF_BITS, MAPTRACK_INDEX_BITS } from './domains.ts';

const INDEX_MASK = (1 << MAPTRACK_INDEX_BITS) - 1;
const COUNT_STEP = 1 << MAPTRACK_INDEX_BITS;

// Words of an entry.
/** What is mapped: the owner's id + 1 in 8 bits above the reference in 24; 0 while the handle is free. */
const MAPPED = 0;
/** While the handle is free, the handle below it on the stack, plus one. */
const BELOW = 1;
/** GNTMAP_ flags that are still mapped. */
const FLAGS = 2;
/** The mapper's own frame at which the page stands. */
const FRAME = 3;

/** Takes a free handle, or -1 when the domain may hold no more mappings. */
export function takeHandle(heap: Int32Array, domain: DomainRecord): number {
  const word = domain.maptrackFreeWord;
  for (;;) {
    const head = Atomics.load(heap, word);
    const top = head & INDEX_MASK;
    if (top === 0) break;
    const below = Atomics.load(heap, domain.maptrackEntry(top - 1) + BELOW);
    const next = ((head + COUNT_STEP) & ~INDEX_MASK) | below;
    if (Atomics.compareExchange(heap, word, head, next) === head) return top - 1;
  }
  const fresh = Atomics.add(heap, domain.maptrackUsedWord, 1);
  if (fresh < domain.maptrackHandles) return fresh;
  Atomics.sub(heap, domain.maptrackUsedWord, 1);
  return -1;
}

/** Gives a handle back; its entry must be cleared. */
export function giveHandle(heap: Int32Array, domain: DomainRecord, handle: number): void {
  const word = domain.maptrackFreeWord;
  for (;;) {
    const head = Atomics.load(heap, word);
    Atomics.store(heap, domain.maptrackEntry(handle) + BELOW, head & INDEX_MASK);
    const next = ((head + COUNT_STEP) & ~INDEX_MASK) | (handle + 1);
    if (Atomics.compareExchange(heap, word, head, next) === head) return;
  }
}

/**
 * Whose page and which, in one word, so that no thread can see the one of an old mapping with the other of a
 * new one. The word of a mapping changes only under the lock of the active entry that it names, whose release
 * publishes it; who reads it without the lock looks again under it. So these are plain accesses.
 */
export function mappedWord(owner: number, ref: number): number {
  return ((owner + 1) << MAPPED_REF_BITS) | ref;
}

/** The owner in the word of a mapping. */
export function mappedOwner(mapped: number): number {
  return (mapped >>> MAPPED_REF_BITS) - 1;
}

/** The reference in the word of a mapping. */
export function mappedRef(mapped: number): number {
  return mapped & ((1 << MAPPED_REF_BITS) - 1);
}

/** Books a mapping at a handle that was taken. */
export function setMapping(
  heap: Int32Array,
  domain: DomainRecord,
  handle: number,
  mapped: number,
  flags: number,
  frame: number,
): void {
  const at = domain.maptrackEntry(handle);
  heap[at + FLAGS] = flags;
  heap[at + FRAME] = frame;
  heap[at + MAPPED] = mapped;
}

/** The word of a handle's mapping, or 0 when the handle is out of range or free. */
export function mappingOf(heap: Int32Array, domain: DomainRecord, handle: number): number {
  if (!(handle >= 0 && handle < domain.maptrackHandles)) return 0;
  return heap[domain.maptrackEntry(handle) + MAPPED];
}

export function mappingFlags(heap: Int32Array, domain: DomainRecord, handle: number): number {
  return heap[domain.maptrackEntry(handle) + FLAGS];
}

/** The mapper's frame behind a handle in use. */
export function mappingFrame(heap: Int32Array, domain: DomainRecord, handle: number): number {
  return heap[domain.maptrackEntry(handle) + FRAME];
}

/** Clears a mapping, whose handle may then be given back. */
export function clearMapping(heap: Int32Array, domain: DomainRecord, handle: number): void {
  heap[domain.maptrackEntry(handle) + MAPPED] = 0;
}
