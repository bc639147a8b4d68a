// The rest of the grant table's operations: size, frames, places, swapping of entries, flushing of caches.
// After hypercall.ts.

import { GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL } from '../../../abi/grant-table-op.ts';
import {
  GNTST_BAD_GNTREF,
  GNTST_EAGAIN,
  GNTST_OKAY,
  GRANT_ENTRIES_PER_FRAME_V1,
  GRANT_ENTRIES_PER_FRAME_V2,
  GRANT_STATUSES_PER_FRAME,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { type DomainRecord, NO_GFN } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EINVAL, ENOMEM, EPERM } from '../errno.ts';
import { lock, unlock } from '../lock.ts';
import { P2M_NONE, P2M_RAM, p2mEntry } from '../physmap.ts';
import type { Machine } from '../state.ts';
import { ACTIVE_FRAME, ACTIVE_LOCK, ACTIVE_PEER, ACTIVE_PINS } from './active-entry.ts';
import { headerWord, statusWord } from './shared-entry.ts';
import { displaceFrame, growLocked } from './table-size.ts';

/** Frames of entries whose statuses fill one frame. */
export const GRANT_FRAMES_PER_STATUS_FRAME = GRANT_STATUSES_PER_FRAME / GRANT_ENTRIES_PER_FRAME_V2;

/** The frame number of a frame that stands nowhere in the guest's address space. */
export const INVALID_GFN = 2n ** 64n - 1n;

/**
 * The guest's frame number of a frame of its table (or of its statuses): what setup_table and get_status_frames
 * answer. A PV guest gets the machine's.
 */
export function tableFrameNumber(
  machine: Machine,
  domain: DomainRecord,
  index: number,
  isStatus: boolean,
): bigint {
  if (!domain.translated) return BigInt(isStatus ? domain.statusFrame(index) : domain.grantFrame(index));
  const gfn = machine.heap[isStatus ? domain.statusGfnWord(index) : domain.grantGfnWord(index)];
  return gfn === NO_GFN ? INVALID_GFN : BigInt(gfn);
}

/**
 * Puts a frame of a domain's table at `gfn` of its address space, making the table longer if need be
 * (XENMEM_add_to_physmap, XENMAPSPACE_grant_table). Where it stood before it stands no longer.
 *
 * @param displaced the entry of the address space that it replaces
 * @returns 0 or a negative errno
 */
export function placeTableFrame(
  machine: Machine,
  domain: DomainRecord,
  index: number,
  isStatus: boolean,
  gfn: number,
  displaced = P2M_NONE,
): number {
  lock(machine.heap, domain.grantLockWord);
  const result = placeLocked(machine, domain, index, isStatus, gfn, displaced);
  unlock(machine.heap, domain.grantLockWord);
  return result;
}

function placeLocked(
  machine: Machine,
  domain: DomainRecord,
  index: number,
  isStatus: boolean,
  gfn: number,
  displaced: number,
): number {
  if (isStatus && domain.grantVersion !== 2) return EINVAL;
  // Statuses are added with the frames of entries that they belong to.
  const frames = isStatus ? (index + 1) * GRANT_FRAMES_PER_STATUS_FRAME : index + 1;
  const isThere = index < (isStatus ? domain.statusFrames : domain.grantFrames);
  if (!isThere && frames > domain.maxGrantFrames) return EINVAL;
  if (!isThere && !growLocked(machine, domain, frames)) return ENOMEM;
  const word = isStatus ? domain.statusGfnWord(index) : domain.grantGfnWord(index);
  const before = machine.heap[word];
  if (before === gfn) return 0;
  const frame = isStatus ? domain.statusFrame(index) : domain.grantFrame(index);
  if (!domain.physmap.replace(gfn, displaced, p2mEntry(frame, P2M_RAM))) return EINVAL;
  displaceFrame(domain, before, frame);
  machine.heap[word] = gfn;
  return 0;
}

/** Swaps two entries that nobody has pinned (GNTTABOP_swap_grant_ref). Returns a GNTST status. */
export function swapEntries(machine: Machine, domain: DomainRecord, a: number, b: number): number {
  lock(machine.heap, domain.grantLockWord);
  const status = swapLocked(machine, domain, a, b);
  unlock(machine.heap, domain.grantLockWord);
  return status;
}

function swapLocked(machine: Machine, domain: DomainRecord, a: number, b: number): number {
  if (!(a >= 0 && a < domain.grantEntries)) return GNTST_BAD_GNTREF;
  if (!(b >= 0 && b < domain.grantEntries)) return GNTST_BAD_GNTREF;
  if (a === b) return GNTST_OKAY;
  const { heap } = machine;
  const first = domain.activeEntry(Math.min(a, b)) + ACTIVE_LOCK;
  const second = domain.activeEntry(Math.max(a, b)) + ACTIVE_LOCK;
  // In the order of references, as set_version locks all of them.
  lock(heap, first);
  lock(heap, second);
  const pinned = [a, b].some((ref) => heap[domain.activeEntry(ref) + ACTIVE_PINS] !== 0);
  if (!pinned) swapWords(machine, domain, a, b);
  unlock(heap, second);
  unlock(heap, first);
  return pinned ? GNTST_EAGAIN : GNTST_OKAY;
}

function swapWords(machine: Machine, domain: DomainRecord, a: number, b: number): void {
  const version = domain.grantVersion;
  const { i32, u16 } = machine.memory;
  const [left, right] = [headerWord(domain, a, version), headerWord(domain, b, version)];
  for (let word = 0; word < (version === 1 ? 2 : 4); word++)
    [i32[left + word], i32[right + word]] = [i32[right + word], i32[left + word]];
  if (version === 1) return;
  const [one, other] = [statusWord(domain, a), statusWord(domain, b)];
  [u16[one], u16[other]] = [u16[other], u16[one]];
}

/**
 * Checks a request to flush caches (GNTTABOP_cache_flush, Arm). There are no caches here: what is left is who may
 * ask for which page.
 *
 * @returns 0 or a negative errno
 */
export function flushCache(
  machine: Machine,
  domains: Domains,
  caller: DomainRecord,
  address: number,
  offset: number,
  length: number,
  operation: number,
): number {
  if (offset >= XEN_PAGE_SIZE || length > XEN_PAGE_SIZE || offset + length > XEN_PAGE_SIZE) return EINVAL;
  if (operation & ~(GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL)) return EINVAL;
  if (length === 0 || operation === 0) return 0;
  const frame = Math.floor(address / XEN_PAGE_SIZE);
  if (frame >= machine.memory.byteLength / XEN_PAGE_SIZE) return EINVAL;
  const owner = domains.ownerOf(frame);
  if (owner === undefined) return EPERM;
  return owner === caller || isPinnedFor(machine, owner, caller, frame) ? 0 : EINVAL;
}

function isPinnedFor(machine: Machine, owner: DomainRecord, peer: DomainRecord, frame: number): boolean {
  const { heap } = machine;
  for (let ref = 0; ref < owner.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++) {
    const active = owner.activeEntry(ref);
    lock(heap, active + ACTIVE_LOCK);
    const found =
      heap[active + ACTIVE_PINS] !== 0 &&
      heap[active + ACTIVE_PEER] === peer.id &&
      heap[active + ACTIVE_FRAME] === frame;
    unlock(heap, active + ACTIVE_LOCK);
    if (found) return true;
  }
  return false;
}
