// Pages of one domain in the address space of another that is its device model or its toolstack. Each use is
// counted, in one word for the frame and in the domain that it belongs to, so that neither the page nor the
// domain's id is used again before the last one has let go. Before physmap.ts; after memory-op.ts.

import { assert } from '../../errors.ts';
import { DOMAIN_DEAD, type DomainRecord } from './domain-record.ts';
import type { Domains } from './domains.ts';
import { endRecord } from './grants/kept-pages.ts';
import { lock, unlock } from './lock.ts';
import { P2M_FOREIGN, P2M_NONE, p2mEntry, p2mFrame, p2mType } from './physmap.ts';
import { FRAME_GIVEN_BACK, type Machine } from './state.ts';

/** A frame's word: how often it is used, and whose it is (id + 1), below FRAME_GIVEN_BACK. */
const OWNER_SHIFT = 20;
const COUNT_MASK = (1 << OWNER_SHIFT) - 1;
const OWNER_MASK = 0xff;

/** Entries that are looked at in one slice. */
const SLICE = 1024;

/**
 * Puts a frame of `owner` into another domain's address space. The caller makes sure that it is a frame of the owner
 * for as long as the owner lives.
 *
 * @param displaced the entry that it replaces
 * @returns false, and nothing has changed, when another stands there, the owner is going, or memory is used up
 */
export function addForeign(
  machine: Machine,
  domains: Domains,
  mapper: DomainRecord,
  gfn: number,
  owner: DomainRecord,
  frame: number,
  displaced = P2M_NONE,
): boolean {
  if (!beginUse(machine, owner, frame)) return false;
  if (mapper.physmap.replace(gfn, displaced, p2mEntry(frame, P2M_FOREIGN))) return true;
  endForeignUse(machine, domains, frame);
  return false;
}

/** Takes a foreign page away from `gfn`. Returns false when there is none. */
export function removeForeign(
  machine: Machine,
  domains: Domains,
  mapper: DomainRecord,
  gfn: number,
): boolean {
  const entry = mapper.physmap.get(gfn);
  if (p2mType(entry) !== P2M_FOREIGN) return false;
  // Only one of two threads that try finds the entry still there, and ends its use.
  if (!mapper.physmap.replace(gfn, entry, P2M_NONE)) return false;
  endForeignUse(machine, domains, p2mFrame(entry));
  return true;
}

/** Lets go of all foreign pages of a domain that is going. */
export function* releaseForeign(machine: Machine, domains: Domains, mapper: DomainRecord): Generator<void> {
  let seen = 0;
  for (const { gfn, type } of mapper.physmap.entries()) {
    if (type === P2M_FOREIGN) removeForeign(machine, domains, mapper, gfn);
    if (++seen % SLICE === 0) yield;
  }
}

/** How often other domains have a frame in their address spaces. */
export function foreignUses(machine: Machine, frame: number): number {
  return Atomics.load(machine.heap, machine.frameUseWord(frame)) & COUNT_MASK;
}

/** The lock keeps the owner from going meanwhile: a domain begins to die under it. */
function beginUse(machine: Machine, owner: DomainRecord, frame: number): boolean {
  const { heap } = machine;
  lock(heap, machine.lockWord);
  const word = machine.frameUseWord(frame);
  const uses = Atomics.load(heap, word);
  const possible = owner.alive && (uses & COUNT_MASK) < COUNT_MASK && (uses & FRAME_GIVEN_BACK) === 0;
  if (possible) {
    Atomics.add(heap, word, uses === 0 ? ((owner.id + 1) << OWNER_SHIFT) | 1 : 1);
    Atomics.add(heap, owner.keptWord, 1);
  }
  unlock(heap, machine.lockWord);
  return possible;
}

/** Ends one use of a frame whose entry has been replaced. */
export function endForeignUse(machine: Machine, domains: Domains, frame: number): void {
  const { heap } = machine;
  lock(heap, machine.lockWord);
  const word = machine.frameUseWord(frame);
  const uses = Atomics.sub(heap, word, 1);
  if ((uses & COUNT_MASK) === 1) {
    const last = Atomics.exchange(heap, word, 0);
    if ((last & FRAME_GIVEN_BACK) !== 0) machine.giveFrames(frame, 1);
  }
  const owner = domains.find(((uses >>> OWNER_SHIFT) & OWNER_MASK) - 1);
  assert(owner !== undefined, 'a domain stays while others use its pages', frame);
  const isLast = Atomics.sub(heap, owner.keptWord, 1) === 1;
  if (isLast && owner.state === DOMAIN_DEAD) for (const _ of endRecord(machine, owner));
  unlock(heap, machine.lockWord);
}
