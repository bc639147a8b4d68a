// GNTTABOP_map_grant_ref, _unmap_grant_ref and _unmap_and_replace of the embedded Xen, with the order of checks and
// the statuses of Xen's common/grant_table.c. After hypercall.ts and domain-grant-mapper.ts, before shared-entry.ts.

import {
  GNTMAP_APPLICATION_MAP,
  GNTMAP_CONTAINS_PTE,
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DEV_ADDR,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_BAD_PAGE,
  GNTST_GENERAL_ERROR,
  GNTST_NO_SPACE,
  GNTST_OKAY,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { DOMAIN_ALIVE, type DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { lock, unlock } from '../lock.ts';
import {
  P2M_GRANT_READONLY,
  P2M_GRANT_WRITABLE,
  P2M_NONE,
  P2M_RAM,
  p2mEntry,
  p2mFrame,
  p2mType,
} from '../physmap.ts';
import type { Machine } from '../state.ts';
import {
  ACTIVE_EXTENT,
  ACTIVE_FRAME,
  ACTIVE_KEPT,
  ACTIVE_LOCK,
  ACTIVE_PART,
  ACTIVE_PEER,
  ACTIVE_PINS,
  ACTIVE_WHOLE,
  fullPins,
  PIN_DEVICE_READONLY,
  PIN_DEVICE_WRITABLE,
  PIN_HOST_READONLY,
  PIN_HOST_WRITABLE,
  PINS_WRITABLE,
  setActive,
} from './active-entry.ts';
import { releaseKept } from './kept-pages.ts';
import {
  giveHandle,
  mappingFlags,
  mappingOwner,
  mappingRef,
  setMapping,
  setMappingFlags,
  takeHandle,
} from './maptrack.ts';
import type { SharedEntries } from './shared-entry.ts';

const MAPPED = GNTMAP_DEVICE_MAP | GNTMAP_HOST_MAP;
/** What only guests without an address space of their own may ask for. */
const PV_ONLY = GNTMAP_DEVICE_MAP | GNTMAP_APPLICATION_MAP | GNTMAP_CONTAINS_PTE;

/** No frame number: the host part is not meant. */
export const NO_PLACE = -1;

/** What an unmap is about, and what it has come to; one for each element of a batch. */
export class Unmapping {
  handle = 0;
  /** Frame number at which the page stands, or NO_PLACE to leave the host part alone. */
  gfn = NO_PLACE;
  /** Bus address of the device part, or 0 to leave it alone. */
  busAddress = 0;
  /** Frame number whose page is to stand at `gfn` afterwards (PV), or NO_PLACE. */
  replacement = NO_PLACE;
  /** What was unmapped: MAPPED flags; `complete` has to count it down. */
  done = 0;
  readonly = false;
  owner: DomainRecord | undefined;
  ref = 0;
}

/** Mapping hypercalls as one thread makes them. */
export class GrantMapping {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #heap: Int32Array;
  readonly #shared: SharedEntries;
  readonly #single = new Unmapping();
  /** The machine frame that was mapped last. */
  #mappedFrame = 0;

  constructor(machine: Machine, domains: Domains, shared: SharedEntries) {
    this.#machine = machine;
    this.#domains = domains;
    this.#heap = machine.heap;
    this.#shared = shared;
  }

  /**
   * Maps the page behind `ref` of `ownerId` at the mapper's own frame number `gfn`.
   *
   * @param flags GNTMAP_ flags
   * @param vcpu the processor that asks
   * @returns the handle, or a negative GNTST status
   */
  map(mapper: DomainRecord, gfn: number, flags: number, ref: number, ownerId: number, vcpu = 0): number {
    const increment = pinsFor(flags);
    if (increment === 0) return GNTST_BAD_GNTREF;
    if (mapper.translated && flags & PV_ONLY) return GNTST_GENERAL_ERROR;
    const owner = this.#domains.find(ownerId);
    if (owner === undefined) return GNTST_BAD_DOMAIN;
    const handle = takeHandle(this.#machine, mapper, vcpu);
    if (handle < 0) return GNTST_NO_SPACE;
    let status = GNTST_BAD_DOMAIN;
    if (this.#domains.enter(owner)) {
      status = this.#mapAt(handle, mapper, gfn, flags, increment, ref, owner);
      this.#domains.leave(owner);
    }
    if (status === GNTST_OKAY) return handle;
    giveHandle(this.#heap, mapper, handle);
    return status;
  }

  /** Ends the mapping `handle`, which must stand at the mapper's frame number `gfn`. */
  unmap(mapper: DomainRecord, gfn: number, handle: number): number {
    const op = this.#single;
    op.handle = handle;
    op.gfn = gfn;
    if (!this.#find(op, mapper)) return GNTST_BAD_HANDLE;
    const active = op.owner!.activeEntry(op.ref);
    lock(this.#heap, active + ACTIVE_LOCK);
    const status = this.#detach(op, mapper, active);
    if (op.done !== 0) this.#count(op, active);
    const kept = op.done !== 0 && this.#isLastOfKept(active);
    const free = op.done !== 0 && mappingFlags(this.#heap, mapper, handle) === 0;
    unlock(this.#heap, active + ACTIVE_LOCK);
    this.#domains.leave(op.owner!);
    if (free) giveHandle(this.#heap, mapper, handle);
    if (kept) releaseKept(this.#machine, op.owner!, op.ref);
    return status;
  }

  /**
   * The first half of an unmap: takes the page out of the mapper's address space. The owner is told by `complete`,
   * once caches of translations have been flushed, which Xen does once for a whole batch.
   */
  detach(op: Unmapping, mapper: DomainRecord): number {
    if (!this.#find(op, mapper)) return GNTST_BAD_HANDLE;
    const active = op.owner!.activeEntry(op.ref);
    lock(this.#heap, active + ACTIVE_LOCK);
    const status = this.#detach(op, mapper, active);
    const free = op.done !== 0 && mappingFlags(this.#heap, mapper, op.handle) === 0;
    unlock(this.#heap, active + ACTIVE_LOCK);
    this.#domains.leave(op.owner!);
    if (free) giveHandle(this.#heap, mapper, op.handle);
    return status;
  }

  /**
   * The second half: counts down what was unmapped, and shows it to the owner. Returns whether that was the last use
   * of a page whose domain has gone: letting go of it takes as long as the domain's table is.
   */
  complete(op: Unmapping): boolean {
    if (op.done === 0) return false;
    const owner = op.owner!;
    const active = owner.activeEntry(op.ref);
    lock(this.#heap, active + ACTIVE_LOCK);
    this.#count(op, active);
    const kept = this.#isLastOfKept(active);
    unlock(this.#heap, active + ACTIVE_LOCK);
    if (kept) releaseKept(this.#machine, owner, op.ref);
    return kept;
  }

  /** Ends a mapping of a domain that is being taken apart, with its whole address space. Returns as `complete` does. */
  releaseMapping(mapper: DomainRecord, handle: number): boolean {
    const flags = mappingFlags(this.#heap, mapper, handle);
    if ((flags & MAPPED) === 0) return false;
    const op = this.#single;
    op.owner = this.#domains.find(mappingOwner(this.#heap, mapper, handle));
    op.ref = mappingRef(this.#heap, mapper, handle);
    op.done = flags & MAPPED;
    op.readonly = (flags & GNTMAP_READONLY) !== 0;
    setMappingFlags(this.#heap, mapper, handle, 0);
    return this.complete(op);
  }

  /**
   * Bus address of the page that this thread has mapped last: where it is in the machine's memory. The handle may
   * be another mapping's by now, or nobody's.
   */
  get busAddress(): number {
    return this.#mappedFrame * XEN_PAGE_SIZE;
  }

  /** Pin counters of an entry, in one word; for tests and the recount of invariants. */
  pins(owner: DomainRecord, ref: number): number {
    return Atomics.load(this.#heap, owner.activeEntry(ref) + ACTIVE_PINS);
  }

  #mapAt(
    handle: number,
    mapper: DomainRecord,
    gfn: number,
    flags: number,
    increment: number,
    ref: number,
    owner: DomainRecord,
  ): number {
    // The table only grows, but a switch to version 2 halves its entries: looked at again under the lock.
    if (!owner.hasEntry(ref)) return GNTST_BAD_GNTREF;
    const heap = this.#heap;
    const active = owner.activeEntry(ref);
    lock(heap, active + ACTIVE_LOCK);
    let status = this.#pin(mapper, owner, ref, active, increment, (flags & GNTMAP_READONLY) !== 0);
    if (status === GNTST_OKAY) {
      status = this.#place(mapper, gfn, flags, heap[active + ACTIVE_FRAME]);
      if (status === GNTST_OKAY) {
        this.#mappedFrame = heap[active + ACTIVE_FRAME];
        setMapping(heap, mapper, handle, owner.id, ref, flags);
      } else this.#unpin(owner, ref, active, increment, (flags & GNTMAP_READONLY) !== 0);
    }
    unlock(heap, active + ACTIVE_LOCK);
    return status;
  }

  /** Checks the shared entry, sets its status bits, and counts the pin. The active entry is locked. */
  #pin(
    mapper: DomainRecord,
    owner: DomainRecord,
    ref: number,
    active: number,
    increment: number,
    readonly: boolean,
  ): number {
    const heap = this.#heap;
    if (owner.state !== DOMAIN_ALIVE) return GNTST_GENERAL_ERROR;
    const version = owner.grantVersion;
    if (!owner.hasEntry(ref)) return GNTST_BAD_GNTREF;
    const pins = heap[active + ACTIVE_PINS];
    if (
      pins !== 0 &&
      (heap[active + ACTIVE_PEER] !== mapper.id ||
        (pins & fullPins(increment)) !== 0 ||
        (heap[active + ACTIVE_EXTENT] & ACTIVE_PART) !== 0)
    )
      return GNTST_GENERAL_ERROR;
    if (pins === 0 || (!readonly && (pins & PINS_WRITABLE) === 0)) {
      const status = this.#shared.mark(owner, ref, version, pins, mapper.id, readonly, true);
      if (status !== GNTST_OKAY) return status;
      if (pins === 0) {
        const frame = this.#shared.frame(owner, ref, version);
        if (frame === 0) {
          this.#shared.reduce(owner, ref, 0, readonly);
          return GNTST_BAD_PAGE;
        }
        setActive(heap, active, mapper.id, frame, ACTIVE_WHOLE, owner.id, ref);
      }
    }
    heap[active + ACTIVE_PINS] = pins + increment;
    return GNTST_OKAY;
  }

  /** Puts the page into the mapper's address space, in place of memory of its own if that stands there. */
  #place(mapper: DomainRecord, gfn: number, flags: number, frame: number): number {
    if ((flags & GNTMAP_HOST_MAP) === 0) return GNTST_OKAY;
    if (mapper.translated && (flags & ~GNTMAP_READONLY) !== GNTMAP_HOST_MAP) return GNTST_GENERAL_ERROR;
    // Nothing here has page tables whose entries could be named.
    if (flags & GNTMAP_CONTAINS_PTE) return GNTST_GENERAL_ERROR;
    const entry = p2mEntry(frame, flags & GNTMAP_READONLY ? P2M_GRANT_READONLY : P2M_GRANT_WRITABLE);
    const before = mapper.physmap.get(gfn);
    if (p2mType(before) !== P2M_NONE && p2mType(before) !== P2M_RAM) {
      // A kernel that maps over a mapping has lost track of what it does.
      this.#domains.crash(mapper);
      return GNTST_GENERAL_ERROR;
    }
    return mapper.physmap.replace(gfn, before, entry) ? GNTST_OKAY : GNTST_GENERAL_ERROR;
  }

  /** Takes a pin back that could not be used. */
  #unpin(owner: DomainRecord, ref: number, active: number, increment: number, readonly: boolean): void {
    const left = this.#heap[active + ACTIVE_PINS] - increment;
    this.#heap[active + ACTIVE_PINS] = left;
    this.#shared.reduce(owner, ref, left, readonly);
  }

  /**
   * Finds whose page a handle maps, and enters that domain; the caller leaves it. Nothing is locked: the caller looks
   * again under the entry's lock.
   */
  #find(op: Unmapping, mapper: DomainRecord): boolean {
    op.done = 0;
    if (mappingFlags(this.#heap, mapper, op.handle) === 0) return false;
    const owner = this.#domains.find(mappingOwner(this.#heap, mapper, op.handle));
    if (owner === undefined || !this.#domains.enter(owner)) return false;
    op.owner = owner;
    op.ref = mappingRef(this.#heap, mapper, op.handle);
    if (owner.hasEntry(op.ref)) return true;
    // A racing unmap has put something else here.
    this.#domains.leave(owner);
    return false;
  }

  /** Takes parts of a mapping away, if it is still the one that was found. The active entry is locked. */
  #detach(op: Unmapping, mapper: DomainRecord, active: number): number {
    const heap = this.#heap;
    let flags = mappingFlags(heap, mapper, op.handle);
    if (
      flags === 0 ||
      mappingOwner(heap, mapper, op.handle) !== op.owner!.id ||
      mappingRef(heap, mapper, op.handle) !== op.ref
    )
      return GNTST_BAD_HANDLE;
    const frame = heap[active + ACTIVE_FRAME];
    const device = op.busAddress !== 0 ? flags & GNTMAP_DEVICE_MAP : 0;
    if (device !== 0 && op.busAddress !== frame * XEN_PAGE_SIZE) return GNTST_BAD_DEV_ADDR;
    const host = op.gfn !== NO_PLACE ? flags & GNTMAP_HOST_MAP : 0;
    op.readonly = (flags & GNTMAP_READONLY) !== 0;
    if (host !== 0) {
      const status = this.#displace(mapper, op, frame);
      if (status !== GNTST_OKAY) return status;
    }
    op.done = host | device;
    flags &= ~op.done;
    setMappingFlags(heap, mapper, op.handle, flags & MAPPED ? flags : 0);
    return GNTST_OKAY;
  }

  /** Takes the page out of the mapper's address space. It must be there, with the right of this mapping. */
  #displace(mapper: DomainRecord, op: Unmapping, frame: number): number {
    const entry = p2mEntry(frame, op.readonly ? P2M_GRANT_READONLY : P2M_GRANT_WRITABLE);
    if (op.replacement === NO_PLACE)
      return mapper.physmap.replace(op.gfn, entry, P2M_NONE) ? GNTST_OKAY : GNTST_GENERAL_ERROR;
    const replacement = mapper.physmap.get(op.replacement);
    if (mapper.translated || p2mType(replacement) === P2M_NONE || p2mFrame(replacement) === 0)
      return GNTST_GENERAL_ERROR;
    // Taken away first: it must stand at one place only, and be there for whoever unmaps it at the same time.
    if (!mapper.physmap.replace(op.replacement, replacement, P2M_NONE)) return GNTST_GENERAL_ERROR;
    if (mapper.physmap.replace(op.gfn, entry, replacement)) return GNTST_OKAY;
    mapper.physmap.replace(op.replacement, P2M_NONE, replacement);
    return GNTST_GENERAL_ERROR;
  }

  /** Counts pins down and clears the status bits that no pin holds any more. The active entry is locked. */
  #count(op: Unmapping, active: number): void {
    const flags = op.done | (op.readonly ? GNTMAP_READONLY : 0);
    // The bits last: from here on the owner may end access and use the page for something else.
    this.#unpin(op.owner!, op.ref, active, pinsFor(flags), op.readonly);
  }

  /** Whether nothing pins an entry any more whose owner has gone. The active entry is locked. */
  #isLastOfKept(active: number): boolean {
    return this.#heap[active + ACTIVE_PINS] === 0 && this.#heap[active + ACTIVE_KEPT] !== 0;
  }
}

/** The pins that a mapping with these flags takes. */
function pinsFor(flags: number): number {
  const readonly = (flags & GNTMAP_READONLY) !== 0;
  const host = readonly ? PIN_HOST_READONLY : PIN_HOST_WRITABLE;
  const device = readonly ? PIN_DEVICE_READONLY : PIN_DEVICE_WRITABLE;
  return (flags & GNTMAP_HOST_MAP ? host : 0) + (flags & GNTMAP_DEVICE_MAP ? device : 0);
}
