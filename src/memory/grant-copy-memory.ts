// A device that copies: what the driver sent is copied into private memory when a chain is taken, what the device wrote
// is copied out when it is done, each in one hypercall. It reaches exactly the bytes that descriptors name, whether the
// guest granted parts of pages (exposure mode `copy`) or whole ones. Rings are mapped, as in grant-memory.ts.
// After virtqueue/device-queue.ts, before xen/grant-copier.ts (hosts/model/domain-grant-copier.ts).

import { GNTST_NO_SPACE, GNTST_OKAY } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { Tracer } from '../trace.ts';
import { type GrantCopier, GrantCopies } from '../xen/grant-copier.ts';
import type { DomainId } from '../xen/ids.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import { checkGrantRange, GrantedBuffers } from './granted-buffers.ts';
import { Segments } from './segments.ts';

/** Private memory of one device at most: a chain that needs more is refused, however much its driver describes. */
const MAX_PAGES = 1024;

class CopyChainAccess implements ChainAccess {
  readonly readable = new Segments();
  readonly writable = new Segments();
  readonly #memory: GrantCopyMemory;
  readonly #buffers = new GrantedBuffers();
  /** Where each buffer's private bytes are. */
  readonly #places: number[] = [];
  /** The private pages of this chain. */
  #start = 0;
  #pages = 0;
  /** Bytes of private memory that the buffers take, before the pages are there. */
  #size = 0;

  constructor(memory: GrantCopyMemory) {
    this.#memory = memory;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    checkGrantRange(low, high, length);
    // A long buffer stands in its page as it does in the guest's: a copy then crosses pages on both sides at once.
    const gap = length < XEN_PAGE_SIZE ? 0 : (low - this.#size) & (XEN_PAGE_SIZE - 1);
    if (this.#size + gap + length > MAX_PAGES * XEN_PAGE_SIZE) return GNTST_NO_SPACE;
    this.#places[this.#buffers.count] = this.#size + gap;
    this.#size += gap + length;
    this.#buffers.add(low, high, length, writable);
    return GNTST_OKAY;
  }

  ready(): number {
    const pages = Math.ceil(this.#size / XEN_PAGE_SIZE);
    if (pages === 0) return GNTST_OKAY;
    const start = this.#memory.take(pages);
    if (start < 0) {
      this.#drop();
      return GNTST_NO_SPACE;
    }
    this.#start = start;
    this.#pages = pages;
    const status = this.#fetch();
    if (status < 0) this.#drop();
    return status;
  }

  release(_bytesRead: number, bytesWritten: number, bytesAtEnd: number): number {
    const status = bytesWritten + bytesAtEnd > 0 ? this.#deliver(bytesWritten, bytesAtEnd) : GNTST_OKAY;
    this.#drop();
    return status;
  }

  /** Fills the lists of segments, and copies in what the driver sent. */
  #fetch(): number {
    const { copies, copier, owner } = this.#memory;
    const { count, lengths, writable } = this.#buffers;
    copies.clear();
    for (let index = 0; index < count; index++) {
      const place = this.#start + this.#places[index];
      (writable[index] ? this.writable : this.readable).push(copier.region, place, lengths[index]);
      if (!writable[index]) this.#addPages(index, 0, lengths[index]);
    }
    if (copies.count === 0) return GNTST_OKAY;
    const status = copier.copyIn(owner, copies);
    this.#traceTouches(false);
    return status;
  }

  /** Copies out what the device wrote, and nothing else. */
  #deliver(bytesWritten: number, bytesAtEnd: number): number {
    const { copies, copier, owner } = this.#memory;
    copies.clear();
    this.#buffers.eachWritten(bytesWritten, bytesAtEnd, this.#addPages);
    const status = copier.copyOut(owner, copies);
    this.#traceTouches(true);
    return status;
  }

  /** Adds a copy for each page of the guest's that a piece of a buffer touches. */
  readonly #addPages = (index: number, from: number, length: number): void => {
    const { copies } = this.#memory;
    const place = this.#start + this.#places[index];
    const first = this.#buffers.offsets[index] + from;
    let ref = this.#buffers.refs[index] + Math.floor(first / XEN_PAGE_SIZE);
    let offset = first % XEN_PAGE_SIZE;
    for (let done = 0; done < length; ref++) {
      const piece = Math.min(length - done, XEN_PAGE_SIZE - offset);
      copies.add(ref, offset, piece, place + from + done);
      done += piece;
      offset = 0;
    }
  };

  /** What was really copied. */
  #traceTouches(write: boolean): void {
    const { copies, tracer, copierId, owner } = this.#memory;
    if (!tracer.enabled) return;
    for (let i = 0; i < copies.count; i++) {
      if (copies.statuses[i] !== GNTST_OKAY) continue;
      tracer.touch(copierId, owner, copies.refs[i], copies.offsets[i], copies.lengths[i], write);
    }
  }

  #drop(): void {
    if (this.#pages > 0) this.#memory.give(this.#start, this.#pages);
    this.#pages = 0;
    this.#size = 0;
    this.#buffers.clear();
    this.readable.clear();
    this.writable.clear();
  }
}

/** What one guest granted to this backend, by copies. */
export class GrantCopyMemory implements DeviceMemory {
  readonly copier: GrantCopier;
  readonly copierId: DomainId;
  readonly owner: DomainId;
  readonly tracer: Tracer;
  /** The copies of the hypercall in hand. */
  readonly copies = new GrantCopies();
  readonly #rings: DeviceMemory;
  #pagesTaken = 0;

  /**
   * @param rings through which rings are mapped, which stay reachable while their queue is enabled
   * @param copierId the domain that this backend runs in; @param owner the guest
   */
  constructor(rings: DeviceMemory, copier: GrantCopier, copierId: DomainId, owner: DomainId, tracer: Tracer) {
    this.#rings = rings;
    this.copier = copier;
    this.copierId = copierId;
    this.owner = owner;
    this.tracer = tracer;
  }

  newChainAccess(): ChainAccess {
    return new CopyChainAccess(this);
  }

  mapRing(low: number, high: number, length: number): MappedRing {
    return this.#rings.mapRing(low, high, length);
  }

  /** Private pages for a chain, all zeroes: no request finds what another left. Returns their place, or -1. */
  take(pages: number): number {
    if (this.#pagesTaken + pages > MAX_PAGES) return -1;
    const place = this.copier.takePages(pages);
    if (place >= 0) this.#pagesTaken += pages;
    return place;
  }

  give(place: number, pages: number): void {
    this.copier.givePages(place, pages);
    this.#pagesTaken -= pages;
  }
}
