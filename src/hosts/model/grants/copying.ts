// GNTTABOP_copy of the embedded Xen: bytes from one page to another, of which each is named by a reference or, if it
// is the caller's own, by a frame number. Parts of pages and what was passed on (version 2) can be reached only so.
// After hypercall.ts and domain-grant-copier.ts, before shared-entry.ts.

import { GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import {
  GNTST_BAD_COPY_ARG,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_PAGE,
  GNTST_EAGAIN,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GNTST_PERMISSION_DENIED,
  GTF_SUB_PAGE,
  GTF_TRANSITIVE,
  GTF_TYPE_MASK,
} from '../../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { assert } from '../../../errors.ts';
import { DOMAIN_ALIVE, type DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import {
  ACTIVE_EXTENT,
  ACTIVE_FRAME,
  ACTIVE_KEPT,
  ACTIVE_LOCK,
  ACTIVE_PART,
  ACTIVE_PEER,
  ACTIVE_PINS,
  ACTIVE_SOURCE,
  ACTIVE_SOURCE_REF,
  ACTIVE_WHOLE,
  fullPins,
  PIN_HOST_READONLY,
  PIN_HOST_WRITABLE,
  PINS_WRITABLE,
  setActive,
} from './active-entry.ts';
import { releaseKept } from './kept-pages.ts';
import { headerWord, type SharedEntries } from './shared-entry.ts';

/** Internal status: the entry changed while its source was looked up; the copy is begun again. */
const RESTART = 1;
/** How often a copy whose source keeps changing is begun again. */
const MAX_RESTARTS = 100;

/** One end of a copy. */
export interface CopyEnd {
  /** The domain that `frame` or `ref` belongs to; a frame may only be the caller's own (DOMID_SELF). */
  domain: number;
  /** A reference, or a frame number of the caller, by the flags of the copy. */
  page: number;
  /** First byte in the page. */
  offset: number;
}

/** A page that is held for a copy. */
class Claim {
  domain: DomainRecord | undefined;
  frame = 0;
  /** Bytes of the page that may be copied from or to. */
  start = 0;
  length = 0;
  /** The reference that is pinned, or -1. */
  ref = -1;
}

/** An entry as it is granted now. */
interface Granted {
  readonly frame: number;
  readonly extent: number;
}

/** Copy hypercalls as one thread makes them. */
export class GrantCopying {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #heap: Int32Array;
  readonly #words: Int32Array;
  readonly #shared: SharedEntries;
  readonly #source = new Claim();
  readonly #dest = new Claim();

  constructor(machine: Machine, domains: Domains, shared: SharedEntries) {
    this.#machine = machine;
    this.#domains = domains;
    this.#heap = machine.heap;
    this.#words = machine.memory.i32;
    this.#shared = shared;
  }

  /**
   * Copies `length` bytes for `caller`.
   *
   * @param flags GNTCOPY_ flags: which ends are references
   * @returns GNTST_OKAY, a negative GNTST status, or a positive number if it has to be tried again
   */
  copy(caller: DomainRecord, source: CopyEnd, dest: CopyEnd, length: number, flags: number): number {
    if (length === 0) return GNTST_OKAY;
    const from = this.#domains.findFor(caller, source.domain);
    const to = this.#domains.findFor(caller, dest.domain);
    if (from === undefined || to === undefined) return GNTST_BAD_DOMAIN;
    let status = this.#claim(this.#source, caller, from, source, (flags & GNTCOPY_SOURCE_GREF) !== 0, true);
    if (status !== GNTST_OKAY) return status;
    status = this.#claim(this.#dest, caller, to, dest, (flags & GNTCOPY_DEST_GREF) !== 0, false);
    if (status === GNTST_OKAY) {
      status = this.#move(source.offset, dest.offset, length);
      this.#release(this.#dest, false);
    }
    this.#release(this.#source, true);
    return status;
  }

  #move(sourceOffset: number, destOffset: number, length: number): number {
    const [source, dest] = [this.#source, this.#dest];
    if (sourceOffset + length > XEN_PAGE_SIZE || destOffset + length > XEN_PAGE_SIZE)
      return GNTST_BAD_COPY_ARG;
    if (!contains(source, sourceOffset, length) || !contains(dest, destOffset, length))
      return GNTST_GENERAL_ERROR;
    const from = source.frame * XEN_PAGE_SIZE + sourceOffset;
    this.#machine.memory.u8.copyWithin(dest.frame * XEN_PAGE_SIZE + destOffset, from, from + length);
    return GNTST_OKAY;
  }

  #claim(
    claim: Claim,
    caller: DomainRecord,
    domain: DomainRecord,
    end: CopyEnd,
    isReference: boolean,
    readonly: boolean,
  ): number {
    claim.domain = domain;
    claim.ref = -1;
    if (isReference) return this.#pin(claim, domain, end.page, caller.id, readonly, true);
    // Asked for each end of each element, whatever was right for the one before (XSA-523).
    if (end.domain !== DOMID_SELF) return GNTST_PERMISSION_DENIED;
    claim.frame = domain.ownFrame(end.page);
    claim.start = 0;
    claim.length = XEN_PAGE_SIZE;
    return claim.frame === 0 ? GNTST_BAD_PAGE : GNTST_OKAY;
  }

  #release(claim: Claim, readonly: boolean): void {
    if (claim.ref >= 0) this.#unpin(claim.domain!, claim.ref, readonly);
  }

  /** Pins an entry for `peer` and says in `claim` which bytes of which frame it grants. */
  #pin(
    claim: Claim,
    domain: DomainRecord,
    ref: number,
    peer: number,
    readonly: boolean,
    mayBePassedOn: boolean,
  ): number {
    if (!this.#domains.enter(domain)) return GNTST_BAD_DOMAIN;
    let status = GNTST_BAD_GNTREF;
    if (domain.hasEntry(ref)) {
      const active = domain.activeEntry(ref);
      lock(this.#heap, active + ACTIVE_LOCK);
      status = this.#pinLocked(claim, domain, ref, active, peer, readonly, mayBePassedOn);
      unlock(this.#heap, active + ACTIVE_LOCK);
    }
    this.#domains.leave(domain);
    return status;
  }

  #pinLocked(
    claim: Claim,
    domain: DomainRecord,
    ref: number,
    active: number,
    peer: number,
    readonly: boolean,
    mayBePassedOn: boolean,
  ): number {
    const heap = this.#heap;
    if (!domain.hasEntry(ref)) return GNTST_BAD_GNTREF;
    const pins = heap[active + ACTIVE_PINS];
    const increment = readonly ? PIN_HOST_READONLY : PIN_HOST_WRITABLE;
    if (pins !== 0 && (heap[active + ACTIVE_PEER] !== peer || (pins & fullPins(increment)) !== 0))
      return GNTST_GENERAL_ERROR;
    if (domain.state !== DOMAIN_ALIVE) return GNTST_BAD_DOMAIN;
    const version = domain.grantVersion;
    const mark = pins === 0 || (!readonly && (pins & PINS_WRITABLE) === 0);
    const type = Atomics.load(this.#words, headerWord(domain, ref, version)) & GTF_TYPE_MASK;
    if (version === 2 && type === GTF_TRANSITIVE) {
      const status = mark ? this.#shared.mark(domain, ref, version, pins, peer, readonly, false) : GNTST_OKAY;
      if (status !== GNTST_OKAY) return status;
      const passed = mayBePassedOn
        ? this.#pinSource(claim, domain, ref, active, peer, readonly)
        : GNTST_GENERAL_ERROR;
      if (passed !== GNTST_OKAY) {
        this.#shared.reduce(domain, ref, heap[active + ACTIVE_PINS], readonly);
        return passed;
      }
    } else if (mark) {
      const status = this.#snapshot(domain, ref, version, active, peer, readonly);
      if (status !== GNTST_OKAY) return status;
    } else if (heap[active + ACTIVE_SOURCE] !== domain.id) {
      // Pinned while it was passed on: one more pin here would have none at the domain that it comes from.
      return GNTST_BAD_DOMAIN;
    }
    heap[active + ACTIVE_PINS] += increment;
    claim.ref = ref;
    claim.frame = heap[active + ACTIVE_FRAME];
    claim.start = heap[active + ACTIVE_EXTENT] & (ACTIVE_PART - 1);
    claim.length = heap[active + ACTIVE_EXTENT] >>> 16;
    return GNTST_OKAY;
  }

  /** Marks an entry that is not passed on, and notes what it grants; a pinned one must still grant the same. */
  #snapshot(
    domain: DomainRecord,
    ref: number,
    version: number,
    active: number,
    peer: number,
    readonly: boolean,
  ): number {
    const heap = this.#heap;
    const pins = heap[active + ACTIVE_PINS];
    const status = this.#shared.mark(domain, ref, version, pins, peer, readonly, false);
    if (status !== GNTST_OKAY) return status;
    const granted = this.#granted(domain, ref, version);
    if (granted.frame === 0) {
      this.#shared.reduce(domain, ref, pins, readonly);
      return GNTST_BAD_PAGE;
    }
    if (pins !== 0) {
      if (this.#isWhatIsPinned(active, granted, domain.id, ref)) return GNTST_OKAY;
      this.#shared.reduce(domain, ref, pins, readonly);
      return GNTST_GENERAL_ERROR;
    }
    setActive(heap, active, peer, granted.frame, granted.extent, domain.id, ref);
    if (granted.extent & ACTIVE_PART) Atomics.add(heap, domain.v2OperationsWord, 1);
    return GNTST_OKAY;
  }

  /** What an entry that is not passed on grants: each word of it is read once. */
  #granted(domain: DomainRecord, ref: number, version: number): Granted {
    if (version === 1) return { frame: this.#shared.frame(domain, ref, version), extent: ACTIVE_WHOLE };
    const word = headerWord(domain, ref, version);
    const flags = Atomics.load(this.#words, word);
    const part = this.#words[word + 1];
    const frame = this.#shared.frame(domain, ref, version);
    // An offset has 15 bits in Xen's own entry, as here.
    return { frame, extent: flags & GTF_SUB_PAGE ? part | ACTIVE_PART : ACTIVE_WHOLE };
  }

  #isWhatIsPinned(active: number, granted: Granted, source: number, sourceRef: number): boolean {
    const heap = this.#heap;
    const pinned = heap[active + ACTIVE_EXTENT];
    return (
      heap[active + ACTIVE_FRAME] === granted.frame &&
      heap[active + ACTIVE_SOURCE] === source &&
      heap[active + ACTIVE_SOURCE_REF] === sourceRef &&
      ((pinned & ACTIVE_PART) === 0 || pinned === granted.extent)
    );
  }

  /**
   * Pins what an entry passes on, at the domain that it comes from. Two entries are never locked at once, so this
   * one's lock is given up meanwhile; if anything about the entry has changed then, the copy has to begin again.
   */
  #pinSource(
    claim: Claim,
    domain: DomainRecord,
    ref: number,
    active: number,
    peer: number,
    readonly: boolean,
  ): number {
    const heap = this.#heap;
    const word = headerWord(domain, ref, 2);
    const sourceId = this.#words[word + 1] & 0xffff;
    const sourceRef = this.#words[word + 2] >>> 0;
    if (sourceId === domain.id) return GNTST_GENERAL_ERROR;
    const source = this.#domains.find(sourceId);
    if (source === undefined) return GNTST_GENERAL_ERROR;
    const pinsBefore = heap[active + ACTIVE_PINS];
    Atomics.add(heap, domain.v2OperationsWord, 1);
    unlock(heap, active + ACTIVE_LOCK);
    const status = this.#pin(claim, source, sourceRef, domain.id, readonly, false);
    lock(heap, active + ACTIVE_LOCK);
    if (status !== GNTST_OKAY) {
      Atomics.sub(heap, domain.v2OperationsWord, 1);
      return status;
    }
    const granted = { frame: claim.frame, extent: claim.start | ACTIVE_PART | (claim.length << 16) };
    const pins = heap[active + ACTIVE_PINS];
    const same = pinsBefore === 0 || this.#isSamePassedOn(active, peer, granted, sourceId, sourceRef);
    if (domain.grantVersion !== 2 || pins !== pinsBefore || !same) {
      unlock(heap, active + ACTIVE_LOCK);
      this.#unpin(source, sourceRef, readonly);
      lock(heap, active + ACTIVE_LOCK);
      Atomics.sub(heap, domain.v2OperationsWord, 1);
      return RESTART;
    }
    if (pinsBefore === 0) setActive(heap, active, peer, granted.frame, granted.extent, sourceId, sourceRef);
    else Atomics.sub(heap, domain.v2OperationsWord, 1);
    return GNTST_OKAY;
  }

  #isSamePassedOn(
    active: number,
    peer: number,
    granted: Granted,
    source: number,
    sourceRef: number,
  ): boolean {
    const heap = this.#heap;
    return (
      heap[active + ACTIVE_PEER] === peer &&
      (heap[active + ACTIVE_EXTENT] & ACTIVE_PART) !== 0 &&
      this.#isWhatIsPinned(active, granted, source, sourceRef)
    );
  }

  /** Takes a pin of `pin` back, and the one at the domain that a passed-on grant comes from. */
  #unpin(domain: DomainRecord, ref: number, readonly: boolean): void {
    const heap = this.#heap;
    const active = domain.activeEntry(ref);
    lock(heap, active + ACTIVE_LOCK);
    const pins = heap[active + ACTIVE_PINS] - (readonly ? PIN_HOST_READONLY : PIN_HOST_WRITABLE);
    heap[active + ACTIVE_PINS] = pins;
    this.#shared.reduce(domain, ref, pins, readonly);
    const isPart = (heap[active + ACTIVE_EXTENT] & ACTIVE_PART) !== 0;
    if (pins === 0 && isPart) Atomics.sub(heap, domain.v2OperationsWord, 1);
    const sourceId = heap[active + ACTIVE_SOURCE];
    const sourceRef = heap[active + ACTIVE_SOURCE_REF];
    const kept = pins === 0 && heap[active + ACTIVE_KEPT] !== 0;
    unlock(heap, active + ACTIVE_LOCK);
    if (kept) releaseKept(this.#machine, domain, ref);
    if (sourceId === domain.id) return;
    const source = this.#domains.find(sourceId);
    assert(source !== undefined, 'a domain stays while its pages are pinned');
    this.#unpin(source, sourceRef, readonly);
  }
}

function contains(claim: Claim, offset: number, length: number): boolean {
  return offset >= claim.start && offset + length <= claim.start + claim.length;
}

/**
 * Copies, and begins again as often as the source keeps changing meanwhile, within reason.
 *
 * @param pause called before each new beginning
 * @returns GNTST_OKAY or a negative GNTST status
 */
export function patientCopy(
  copying: GrantCopying,
  caller: DomainRecord,
  source: CopyEnd,
  dest: CopyEnd,
  length: number,
  flags: number,
  pause: () => void,
): number {
  for (let tries = 0; tries < MAX_RESTARTS; tries++) {
    const outcome = copying.copy(caller, source, dest, length, flags);
    // A positive outcome is no status: it says that nothing was done yet (XSA-318).
    if (outcome <= 0) return outcome;
    pause();
  }
  return GNTST_EAGAIN;
}
