// Takes a domain apart, a slice at a time, so that nothing else waits for it: its mappings of others, its event
// channels, its devices, its memory. What others still map of it stays until they let go (grants/kept-pages.ts).
// The domain's own threads must have been stopped.

import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { assert } from '../../errors.ts';
import { DOMAIN_ALIVE, DOMAIN_DEAD, DOMAIN_DYING, type DomainRecord } from './domain-record.ts';
import { endRecord, keepPinned } from './grants/kept-pages.ts';
import type { GrantMapping } from './grants/mapping.ts';
import { MAPTRACK_HANDLES_PER_FRAME } from '../../abi/grant.ts';
import { lock, unlock } from './lock.ts';
import type { Machine } from './state.ts';

/** Frames of memory that are wiped and given back in one slice. */
const FRAMES_A_SLICE = 256;

/** A part of Xen that has something of a domain, and gives it back slice by slice. */
export type Release = (domain: DomainRecord) => Iterable<void>;

/**
 * Destroys a domain (XEN_DOMCTL_destroydomain). The caller takes one step after the other; between any two of them
 * everybody else may run. With the last one the id is free, unless others still map pages: then it becomes free
 * when they unmap the last of these.
 *
 * @param releases what the other parts of Xen have of it, taken in turn before its memory goes
 */
export function* destroyDomain(
  machine: Machine,
  mapping: GrantMapping,
  releases: readonly Release[],
  domain: DomainRecord,
): Generator<void> {
  lock(machine.heap, machine.lockWord);
  const wasAlive = domain.state === DOMAIN_ALIVE;
  if (wasAlive) domain.state = DOMAIN_DYING;
  unlock(machine.heap, machine.lockWord);
  assert(wasAlive, 'a domain is destroyed once', domain.id);
  yield* releaseMappings(machine, mapping, domain);
  for (const release of releases) yield* release(domain);
  const kept = new Set<number>();
  yield* keepPinned(machine, domain, kept);
  yield* releaseMemory(machine, domain, kept);
  yield* domain.physmap.release();
  lock(machine.heap, machine.lockWord);
  const isKept = Atomics.load(machine.heap, domain.keptWord) !== 0;
  if (isKept) domain.state = DOMAIN_DEAD;
  unlock(machine.heap, machine.lockWord);
  if (!isKept) yield* endRecord(machine, domain);
}

/** Ends all that the domain maps of others, from the last handle to the first, as Xen does. */
function* releaseMappings(machine: Machine, mapping: GrantMapping, domain: DomainRecord): Generator<void> {
  for (let handle = domain.maptrackLimit - 1; handle >= 0; handle--) {
    if (mapping.releaseMapping(domain, handle)) yield;
    if (handle % MAPTRACK_HANDLES_PER_FRAME !== 0) continue;
    const word = domain.maptrackPageWord(handle / MAPTRACK_HANDLES_PER_FRAME);
    domain.maptrackLimit = handle;
    machine.givePages(machine.heap[word], 1);
    yield;
  }
}

function* releaseMemory(machine: Machine, domain: DomainRecord, kept: Set<number>): Generator<void> {
  const pages = [domain.sharedInfo / XEN_PAGE_SIZE, domain.consoleFrame, domain.xenstoreFrame];
  for (const frame of pages) if (!kept.has(frame)) machine.giveFrames(frame, 1);
  for (let index = 0; index < domain.ramFrames; index++) {
    const frame = domain.ramFrame + index;
    if (!kept.has(frame)) machine.giveFrames(frame, 1);
    if (index % FRAMES_A_SLICE === FRAMES_A_SLICE - 1) yield;
  }
}
