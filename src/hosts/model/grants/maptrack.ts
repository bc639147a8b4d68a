// Maptrack: what a domain has mapped, by handle. Frames of 256 handles are added as they are needed, up to the
// domain's limit. Each processor has a list of free handles of its own; one whose list is empty, when no frame may
// be added, takes from the lists of the others. A handle goes back to the list that it was taken from last.

import { MAPTRACK_HANDLES_PER_FRAME } from '../../../abi/grant.ts';
import type { DomainRecord } from '../domain-record.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';

// Words of an entry.
/** GNTMAP_ flags of what is mapped through the handle; 0 while it is free. */
const FLAGS = 0;
/** While the handle is free: the next free one, or TAIL. While it is in use: the owner's reference. */
const REF = 1;
/** The owner's id. */
const OWNER = 2;
/** The processor to whose list the handle belongs. */
const VCPU = 3;

// Words of a processor's list.
const LIST_LOCK = 0;
/** First and last free handle, plus one; 0 while the processor has never had any. */
const HEAD = 1;
const LAST = 2;

/** Ends a list. */
const TAIL = -1;

/** Takes a free handle for a processor, or returns -1 when the domain may hold no more mappings. */
export function takeHandle(machine: Machine, domain: DomainRecord, vcpu: number): number {
  const handle = takeFrom(machine.heap, domain, vcpu);
  return handle >= 0 ? handle : takeElsewhere(machine, domain, vcpu);
}

/** Gives back a handle that was taken. */
export function giveHandle(heap: Int32Array, domain: DomainRecord, handle: number): void {
  const entry = domain.maptrackEntry(handle);
  const list = domain.maptrackList(heap[entry + VCPU]);
  heap[entry + REF] = TAIL;
  lock(heap, list + LIST_LOCK);
  heap[domain.maptrackEntry(heap[list + LAST] - 1) + REF] = handle;
  heap[list + LAST] = handle + 1;
  unlock(heap, list + LIST_LOCK);
}

/** The first handle of a list. The last one always stays, so that giving back need not touch the head. */
function takeFrom(heap: Int32Array, domain: DomainRecord, vcpu: number): number {
  const list = domain.maptrackList(vcpu);
  lock(heap, list + LIST_LOCK);
  let handle = heap[list + HEAD] - 1;
  if (handle >= 0) {
    const next = heap[domain.maptrackEntry(handle) + REF];
    if (next === TAIL) handle = -1;
    else heap[list + HEAD] = next + 1;
  }
  unlock(heap, list + LIST_LOCK);
  return handle;
}

/** A handle of a new frame, or of another processor. */
function takeElsewhere(machine: Machine, domain: DomainRecord, vcpu: number): number {
  const { heap } = machine;
  lock(heap, domain.maptrackLockWord);
  const handle = addFrame(machine, domain, vcpu);
  unlock(heap, domain.maptrackLockWord);
  return handle >= 0 ? handle : steal(heap, domain, vcpu);
}

/** Adds a frame of handles to a processor's list, and takes its first. Returns -1 at the limit. */
function addFrame(machine: Machine, domain: DomainRecord, vcpu: number): number {
  const { heap } = machine;
  const first = domain.maptrackLimit;
  const frame = first / MAPTRACK_HANDLES_PER_FRAME;
  const page = frame < domain.maxMaptrackFrames ? machine.takePages(1) : 0;
  if (page === 0) return -1;
  heap[domain.maptrackPageWord(frame)] = page;
  domain.maptrackLimit = first + MAPTRACK_HANDLES_PER_FRAME;
  const last = first + MAPTRACK_HANDLES_PER_FRAME - 1;
  for (let handle = first; handle <= last; handle++) {
    heap[domain.maptrackEntry(handle) + REF] = handle + 1;
    heap[domain.maptrackEntry(handle) + VCPU] = vcpu;
  }
  const list = domain.maptrackList(vcpu);
  lock(heap, list + LIST_LOCK);
  const head = heap[list + HEAD] - 1;
  heap[domain.maptrackEntry(last) + REF] = head < 0 ? TAIL : head;
  heap[list + HEAD] = first + 2;
  if (head < 0) heap[list + LAST] = last + 1;
  unlock(heap, list + LIST_LOCK);
  return first;
}

/** A handle from another processor's list; a processor without a list first takes one to end its own with. */
function steal(heap: Int32Array, domain: DomainRecord, vcpu: number): number {
  const list = domain.maptrackList(vcpu);
  if (heap[list + LAST] === 0) {
    const end = stealFrom(heap, domain, vcpu);
    if (end < 0) return -1;
    heap[domain.maptrackEntry(end) + REF] = TAIL;
    lock(heap, list + LIST_LOCK);
    heap[list + HEAD] = heap[list + LAST] = end + 1;
    unlock(heap, list + LIST_LOCK);
  }
  return stealFrom(heap, domain, vcpu);
}

function stealFrom(heap: Int32Array, domain: DomainRecord, vcpu: number): number {
  for (let step = 1; step <= domain.vcpus; step++) {
    const handle = takeFrom(heap, domain, (vcpu + step) % domain.vcpus);
    if (handle < 0) continue;
    heap[domain.maptrackEntry(handle) + VCPU] = vcpu;
    return handle;
  }
  return -1;
}

/**
 * Books a mapping at a handle that was taken. Flags last, and released by the lock of the active entry: who finds
 * them set without that lock looks again under it.
 */
export function setMapping(
  heap: Int32Array,
  domain: DomainRecord,
  handle: number,
  owner: number,
  ref: number,
  flags: number,
): void {
  const entry = domain.maptrackEntry(handle);
  heap[entry + REF] = ref;
  heap[entry + OWNER] = owner;
  heap[entry + FLAGS] = flags;
}

/** GNTMAP_ flags of a handle's mapping; 0 when the handle is out of range or free. */
export function mappingFlags(heap: Int32Array, domain: DomainRecord, handle: number): number {
  if (!domain.hasHandle(handle)) return 0;
  return heap[domain.maptrackEntry(handle) + FLAGS];
}

/** Notes what is still mapped through a handle; with 0 it may be given back. */
export function setMappingFlags(heap: Int32Array, domain: DomainRecord, handle: number, flags: number): void {
  heap[domain.maptrackEntry(handle) + FLAGS] = flags;
}

/** The owner in a handle's mapping. */
export function mappingOwner(heap: Int32Array, domain: DomainRecord, handle: number): number {
  return heap[domain.maptrackEntry(handle) + OWNER];
}

/** The reference in a handle's mapping. */
export function mappingRef(heap: Int32Array, domain: DomainRecord, handle: number): number {
  return heap[domain.maptrackEntry(handle) + REF];
}
