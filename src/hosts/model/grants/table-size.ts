// How large a grant table is: frames of entries, of statuses (version 2), and Xen's own page of active entries
// for each. Tables only grow while a domain lives; statuses go when it leaves version 2.

import { type DomainRecord, NO_GFN, statusFramesFor } from '../domain-record.ts';
import { lock, unlock } from '../lock.ts';
import { P2M_NONE, P2M_RAM, p2mEntry } from '../physmap.ts';
import type { Machine } from '../state.ts';

/**
 * Makes a table `frames` long, if it is shorter. Returns false, and changes nothing, beyond the domain's limit or
 * when memory is used up.
 */
export function growGrantTable(machine: Machine, domain: DomainRecord, frames: number): boolean {
  if (frames > domain.maxGrantFrames) return false;
  lock(machine.heap, domain.grantLockWord);
  const grown = growLocked(machine, domain, frames);
  unlock(machine.heap, domain.grantLockWord);
  return grown;
}

/** The same for the holder of the table's lock. */
export function growLocked(machine: Machine, domain: DomainRecord, frames: number): boolean {
  const before = domain.grantFrames;
  if (frames <= before) return true;
  if (!addActivePages(machine, domain, before, frames)) return false;
  const first = addFrames(machine, frames - before);
  const taken = first.length === frames - before;
  if (taken && (domain.grantVersion === 1 || growStatuses(machine, domain, statusFramesFor(frames)))) {
    first.forEach((frame, index) => {
      machine.heap[domain.grantFrameWord(before + index)] = frame;
      machine.heap[domain.grantGfnWord(before + index)] = NO_GFN;
    });
    // Last: entries exist for others from here on.
    domain.grantFrames = frames;
    return true;
  }
  for (const frame of first) machine.frames.give(frame, 1);
  removeActivePages(machine, domain, before, frames);
  return false;
}

/** Adds frames of statuses up to `frames`. Returns false, having added none, when memory is used up. */
export function growStatuses(machine: Machine, domain: DomainRecord, frames: number): boolean {
  const before = domain.statusFrames;
  if (frames <= before) return true;
  const added = addFrames(machine, frames - before);
  if (added.length < frames - before) {
    for (const frame of added) machine.frames.give(frame, 1);
    return false;
  }
  added.forEach((frame, index) => {
    machine.heap[domain.statusFrameWord(before + index)] = frame;
    machine.heap[domain.statusGfnWord(before + index)] = NO_GFN;
  });
  domain.statusFrames = frames;
  return true;
}

/** Takes all frames of statuses away, from the domain's address space too. */
export function removeStatuses(machine: Machine, domain: DomainRecord): void {
  for (let index = 0; index < domain.statusFrames; index++)
    displaceFrame(domain, machine.heap[domain.statusGfnWord(index)], domain.statusFrame(index));
  giveStatuses(machine, domain);
}

/** The same for a domain that has no address space any more. */
export function giveStatuses(machine: Machine, domain: DomainRecord): void {
  const frames = domain.statusFrames;
  domain.statusFrames = 0;
  for (let index = 0; index < frames; index++) {
    machine.giveFrames(domain.statusFrame(index), 1);
    machine.heap[domain.statusFrameWord(index)] = 0;
  }
}

/** Takes a frame of the table out of the address space, unless the guest has put something else where it stood. */
export function displaceFrame(domain: DomainRecord, gfn: number, frame: number): void {
  if (gfn !== NO_GFN) domain.physmap.replace(gfn, p2mEntry(frame, P2M_RAM), P2M_NONE);
}

/** Frames of memory one by one, as many as there are. */
function addFrames(machine: Machine, count: number): number[] {
  const frames: number[] = [];
  for (let index = 0; index < count; index++) {
    const frame = machine.frames.take(1);
    if (frame < 0) break;
    frames.push(frame);
  }
  return frames;
}

function addActivePages(machine: Machine, domain: DomainRecord, before: number, frames: number): boolean {
  for (let index = domain.activePages(before); index < domain.activePages(frames); index++) {
    const page = machine.takePages(1);
    if (page === 0) {
      removeActivePages(machine, domain, before, frames);
      return false;
    }
    machine.heap[domain.activePageWord(index)] = page;
  }
  return true;
}

function removeActivePages(machine: Machine, domain: DomainRecord, before: number, frames: number): void {
  for (let index = domain.activePages(before); index < domain.activePages(frames); index++) {
    const word = domain.activePageWord(index);
    if (machine.heap[word] !== 0) machine.givePages(machine.heap[word], 1);
    machine.heap[word] = 0;
  }
}
