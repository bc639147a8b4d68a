// GNTTABOP_map_grant_ref and GNTTABOP_unmap_grant_ref of the embedded Xen, for version 1 tables, with the
// order of checks and the statuses of Xen's common/grant_table.c.
//
// What Xen itself knows of an entry is its active entry: how often it is pinned (four counters of 8 bits:
// host writable, host read-only, device writable, device read-only), by which domain, and the machine
// frame as it was at the first map. The guest may rewrite its shared entry at any time; a pinned frame
// stays the one that was snapshot. Each active entry has a lock, held for the whole step; what it guards
// is plain words.

import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_BAD_PAGE,
  GNTST_BAD_VIRT_ADDR,
  GNTST_GENERAL_ERROR,
  GNTST_NO_SPACE,
  GNTST_OKAY,
  GRANT_ENTRIES_PER_FRAME_V1,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_TYPE_MASK,
  GTF_WRITING,
} from '../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import {
  type DomainRecord,
  type Domains,
  P2M_GRANT_READONLY,
  P2M_GRANT_WRITABLE,
  P2M_RAM,
} from './domains.ts';
import { lock, unlock } from './lock.ts';
import {
  clearMapping,
  giveHandle,
  mappedOwner,
  mappedRef,
  mappedWord,
  mappingFlags,
  mappingFrame,
  mappingOf,
  setMapping,
  takeHandle,
} from './maptrack.ts';
import type { Machine } from './state.ts';

// Words of an active entry.
const LOCK = 0;
const PINS = 1;
const PINNED_BY = 2;
const FRAME = 3;

/** One pin in each of the four counters, and the bit at which a counter is full: 128 pins. */
const PIN_HOST_WRITABLE = 1;
const PIN_HOST_READONLY = 1 << 8;
const PIN_FULL = 0x80808080 | 0;
const PINS_WRITABLE = 0x00ff00ff;

/** A guest that rewrites its entry faster than this is refused (XSA-295). */
const MAX_TRIES = 5;

/** Grant hypercalls as one thread makes them. */
export class GrantOps {
  readonly #domains: Domains;
  readonly #heap: Int32Array;
  readonly #shared: Int32Array;

  constructor(machine: Machine, domains: Domains) {
    this.#domains = domains;
    this.#heap = machine.heap;
    this.#shared = machine.memory.i32;
  }

  /**
   * Maps the page behind `ref` of `ownerId` at the mapper's own frame `gfn`.
   *
   * @param flags GNTMAP_ flags
   * @returns the handle, or a negative GNTST status
   */
  map(mapper: DomainRecord, gfn: number, flags: number, ref: number, ownerId: number): number {
    if ((flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP)) === 0) return GNTST_BAD_GNTREF;
    // A guest with a translated address space has no use for device addresses.
    if (flags & ~(GNTMAP_HOST_MAP | GNTMAP_READONLY)) return GNTST_GENERAL_ERROR;
    const owner = this.#domains.find(ownerId);
    if (owner === undefined) return GNTST_BAD_DOMAIN;
    const handle = takeHandle(this.#heap, mapper);
    if (handle < 0) return GNTST_NO_SPACE;
    const status = this.#mapAt(handle, mapper, gfn, flags, ref, owner);
    if (status === GNTST_OKAY) return handle;
    giveHandle(this.#heap, mapper, handle);
    return status;
  }

  /** Ends the mapping `handle`, which must stand at the mapper's frame `gfn`. */
  unmap(mapper: DomainRecord, gfn: number, handle: number): number {
    const heap = this.#heap;
    const mapped = mappingOf(heap, mapper, handle);
    if (mapped === 0) return GNTST_BAD_HANDLE;
    const owner = this.#domains.find(mappedOwner(mapped));
    if (owner === undefined) return GNTST_BAD_DOMAIN;
    const active = owner.activeEntry(mappedRef(mapped));
    lock(heap, active + LOCK);
    const status = this.#unmapAt(handle, mapped, mapper, gfn, owner);
    unlock(heap, active + LOCK);
    if (status === GNTST_OKAY) giveHandle(heap, mapper, handle);
    return status;
  }

  /** Pin counters of an entry, in one word; for tests and the recount of invariants. */
  pins(owner: DomainRecord, ref: number): number {
    return Atomics.load(this.#heap, owner.activeEntry(ref) + PINS);
  }

  #mapAt(
    handle: number,
    mapper: DomainRecord,
    gfn: number,
    flags: number,
    ref: number,
    owner: DomainRecord,
  ): number {
    if (ref < 0 || ref >= owner.grantFrames * GRANT_ENTRIES_PER_FRAME_V1) return GNTST_BAD_GNTREF;
    const heap = this.#heap;
    const readonly = (flags & GNTMAP_READONLY) !== 0;
    const active = owner.activeEntry(ref);
    lock(heap, active + LOCK);
    let status = this.#pin(mapper, owner, ref, active, readonly);
    if (status === GNTST_OKAY) {
      const type = readonly ? P2M_GRANT_READONLY : P2M_GRANT_WRITABLE;
      if (mapper.p2mAdd(gfn, heap[active + FRAME], type))
        setMapping(heap, mapper, handle, mappedWord(owner.id, ref), flags, gfn);
      else {
        this.#unpin(owner, ref, active, readonly);
        status = GNTST_GENERAL_ERROR;
      }
    }
    unlock(heap, active + LOCK);
    return status;
  }

  /** Ends the mapping, if it is still the one that was found. Its active entry is locked. */
  #unmapAt(handle: number, mapped: number, mapper: DomainRecord, gfn: number, owner: DomainRecord): number {
    const heap = this.#heap;
    // Another thread may have unmapped the handle meanwhile, and mapped something else with it.
    if (mappingOf(heap, mapper, handle) !== mapped) return GNTST_BAD_HANDLE;
    if (mappingFrame(heap, mapper, handle) !== gfn) return GNTST_BAD_VIRT_ADDR;
    const readonly = (mappingFlags(heap, mapper, handle) & GNTMAP_READONLY) !== 0;
    clearMapping(heap, mapper, handle);
    mapper.p2mRemove(gfn);
    const ref = mappedRef(mapped);
    this.#unpin(owner, ref, owner.activeEntry(ref), readonly);
    return GNTST_OKAY;
  }

  /** Checks the shared entry, sets its status bits, and counts the pin. The active entry is locked. */
  #pin(mapper: DomainRecord, owner: DomainRecord, ref: number, active: number, readonly: boolean): number {
    const heap = this.#heap;
    const pins = heap[active + PINS];
    if (pins & PIN_FULL) return GNTST_GENERAL_ERROR;
    if (pins !== 0 && heap[active + PINNED_BY] !== mapper.id) return GNTST_GENERAL_ERROR;
    const word = this.#sharedWord(owner, ref);
    if (pins === 0 || (!readonly && (pins & PINS_WRITABLE) === 0)) {
      const status = this.#setStatusBits(word, mapper, readonly);
      if (status !== GNTST_OKAY) return status;
    }
    if (pins === 0) {
      const frame = this.#shared[word + 1] >>> 0;
      if (owner.p2mType(frame) !== P2M_RAM) {
        Atomics.and(this.#shared, word, ~(GTF_READING | GTF_WRITING));
        return GNTST_BAD_PAGE;
      }
      heap[active + FRAME] = owner.p2mFrame(frame);
      heap[active + PINNED_BY] = mapper.id;
    }
    heap[active + PINS] = pins + (readonly ? PIN_HOST_READONLY : PIN_HOST_WRITABLE);
    return GNTST_OKAY;
  }

  /** Marks the entry as being read or written, if it is one that permits that. */
  #setStatusBits(word: number, mapper: DomainRecord, readonly: boolean): number {
    const wanted = readonly ? GTF_READING : GTF_READING | GTF_WRITING;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      // Flags and domid are one word: they are looked at and changed together.
      const entry = Atomics.load(this.#shared, word);
      if ((entry & GTF_TYPE_MASK) !== GTF_PERMIT_ACCESS) return GNTST_GENERAL_ERROR;
      if (entry >>> 16 !== mapper.id) return GNTST_GENERAL_ERROR;
      if (!readonly && entry & GTF_READONLY) return GNTST_GENERAL_ERROR;
      if (Atomics.compareExchange(this.#shared, word, entry, entry | wanted) === entry) return GNTST_OKAY;
    }
    return GNTST_GENERAL_ERROR;
  }

  /** Counts a pin down and clears the status bits that no pin holds any more. The active entry is locked. */
  #unpin(owner: DomainRecord, ref: number, active: number, readonly: boolean): void {
    const left = this.#heap[active + PINS] - (readonly ? PIN_HOST_READONLY : PIN_HOST_WRITABLE);
    this.#heap[active + PINS] = left;
    let clear = 0;
    if (!readonly && (left & PINS_WRITABLE) === 0) clear |= GTF_WRITING;
    if (left === 0) clear |= GTF_READING;
    // Last: from here on the granter may end access and use the page for something else.
    if (clear !== 0) Atomics.and(this.#shared, this.#sharedWord(owner, ref), ~clear);
  }

  /** Index of the word of a shared entry that holds flags and domid; the frame is in the next one. */
  #sharedWord(owner: DomainRecord, ref: number): number {
    const frame = owner.grantFrame(Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V1));
    return (frame * XEN_PAGE_SIZE) / 4 + (ref % GRANT_ENTRIES_PER_FRAME_V1) * 2;
  }
}
