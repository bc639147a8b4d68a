// Pages that outlive their domain: what others still map or copy of a domain that is being taken apart stays, with
// the entries that say so, until they let go of it. The last one to do so ends the domain for good.
// After mapping.ts and copying.ts; teardown.ts decides what is kept.

import { GRANT_ENTRIES_PER_FRAME_V1 } from '../../../abi/grant.ts';
import { DOMAIN_DEAD, DOMAIN_ENDING, DOMAIN_NONE, type DomainRecord } from '../domain-record.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import { ACTIVE_FRAME, ACTIVE_KEPT, ACTIVE_LOCK, ACTIVE_PINS, ACTIVE_SOURCE } from './active-entry.ts';
import { giveStatuses } from './table-size.ts';

/** Entries that are looked at in one turn. */
const SLICE = 1024;

/** All entries that the table ever had, whatever its version. */
function entriesOf(domain: DomainRecord): number {
  return domain.grantFrames * GRANT_ENTRIES_PER_FRAME_V1;
}

/**
 * Marks the pinned entries of a domain that is dying, and adds their frames to `kept`. Each entry's lock is taken
 * once, so that from here on nobody can pin anything: who had seen the domain alive has done with its lock.
 */
export function* keepPinned(machine: Machine, domain: DomainRecord, kept: Set<number>): Generator<void> {
  const { heap } = machine;
  for (let ref = 0; ref < entriesOf(domain); ref++) {
    const active = domain.activeEntry(ref);
    lock(heap, active + ACTIVE_LOCK);
    if (heap[active + ACTIVE_PINS] !== 0) {
      keep(heap, domain, active);
      kept.add(heap[active + ACTIVE_FRAME]);
    }
    unlock(heap, active + ACTIVE_LOCK);
    if (ref % SLICE === SLICE - 1) yield;
  }
}

/** Marks an entry, whose lock is held. */
function keep(heap: Int32Array, domain: DomainRecord, active: number): void {
  if (heap[active + ACTIVE_KEPT] !== 0) return;
  heap[active + ACTIVE_KEPT] = 1;
  Atomics.add(heap, domain.keptWord, 1);
}

/** Lets go of the page of a kept entry that nothing pins any more. */
export function releaseKept(machine: Machine, domain: DomainRecord, ref: number): void {
  const { heap } = machine;
  lock(heap, machine.lockWord);
  const active = domain.activeEntry(ref);
  const frame = heap[active + ACTIVE_FRAME];
  heap[active + ACTIVE_KEPT] = 0;
  // What was passed on is its source's, and frames of the table go with the record.
  const isOwnPage = heap[active + ACTIVE_SOURCE] === domain.id && !domain.isTableFrame(frame);
  if (isOwnPage && !isKeptElsewhere(heap, domain, frame)) machine.giveFrames(frame, 1);
  const last = Atomics.sub(heap, domain.keptWord, 1) === 1;
  if (last && domain.state === DOMAIN_DEAD) for (const _ of endRecord(machine, domain));
  unlock(heap, machine.lockWord);
}

/** Whether another entry keeps the same frame. One that `keepPinned` has not come to yet is marked for it here. */
function isKeptElsewhere(heap: Int32Array, domain: DomainRecord, frame: number): boolean {
  for (let ref = 0; ref < entriesOf(domain); ref++) {
    const active = domain.activeEntry(ref);
    if (heap[active + ACTIVE_FRAME] !== frame) continue;
    lock(heap, active + ACTIVE_LOCK);
    if (heap[active + ACTIVE_PINS] !== 0) keep(heap, domain, active);
    const isKept = heap[active + ACTIVE_KEPT] !== 0;
    unlock(heap, active + ACTIVE_LOCK);
    if (isKept) return true;
  }
  return false;
}

/** Gives back the last of a domain: its grant table and its record. The id is free then. */
export function* endRecord(machine: Machine, domain: DomainRecord): Generator<void> {
  const { heap } = machine;
  domain.state = DOMAIN_ENDING;
  // Who has found the domain before may still be about to lock an entry.
  while (Atomics.load(heap, domain.usersWord) !== 0) yield;
  for (let index = domain.grantFrames - 1; index >= 0; index--) {
    // First: whoever looks for an entry meanwhile finds the table shorter, and not what has become of its page.
    domain.grantFrames = index;
    machine.giveFrames(domain.grantFrame(index), 1);
    for (let page = domain.activePages(index); page < domain.activePages(index + 1); page++)
      machine.givePages(heap[domain.activePageWord(page)], 1);
    yield;
  }
  giveStatuses(machine, domain);
  machine.givePages(domain.directory, domain.directoryPages);
  domain.state = DOMAIN_NONE;
}
