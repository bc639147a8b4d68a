// A device that reaches exactly what the guest granted: every descriptor's address names a grant, is mapped
// for the time of its chain, read-only when the device only reads, and unmapped before completion. All pages that are to
// be read are mapped by one call, and all that are to be written by another.
// After virtqueue/device-queue.ts, before xen/grant-mapper.ts (hosts/model/grant-mapper.ts).

import { formatAddress, grantAddressRef, pagesTouched } from '../abi/grant-address.ts';
import { GNTST_NO_SPACE, GNTST_OKAY, grantStatusName } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import type { Tracer } from '../trace.ts';
import { type GrantMapper, GrantPages } from '../xen/grant-mapper.ts';
import type { DomainId } from '../xen/ids.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import { checkGrantRange, GrantedBuffers } from './granted-buffers.ts';
import { Segments } from './segments.ts';

/** Port: told of pages of the guest's that are mapped, with a negative number when they no longer are. */
export interface MapMeter {
  mapped(pages: number): void;
}

/**
 * Pages of one chain at most, as many as a backend on a real host maps at the same time: a chain that needs more is
 * refused, however much its driver describes.
 */
const MAX_PAGES = 0x4000;

class GrantChainAccess implements ChainAccess {
  readonly readable = new Segments();
  readonly writable = new Segments();
  readonly #memory: GrantMemory;
  readonly #buffers = new GrantedBuffers();
  /** Pages of the buffers that the device may only read, and of those that it may write. */
  readonly #readablePages = new GrantPages();
  readonly #writablePages = new GrantPages();
  /** How many of them are mapped: all or none. */
  #mapped = 0;

  constructor(memory: GrantMemory) {
    this.#memory = memory;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    checkGrantRange(low, high, length);
    const count = pagesTouched(low, length);
    if (this.#readablePages.count + this.#writablePages.count + count > MAX_PAGES) return GNTST_NO_SPACE;
    const pages = writable ? this.#writablePages : this.#readablePages;
    const ref = grantAddressRef(low, high);
    for (let page = 0; page < count; page++) pages.add(ref + page);
    this.#buffers.add(low, high, length, writable);
    return GNTST_OKAY;
  }

  ready(): number {
    const status = this.#mapPages();
    if (status === GNTST_OKAY) this.#fillSegments();
    else this.#drop();
    return status;
  }

  release(bytesRead: number, bytesWritten: number, bytesAtEnd: number): number {
    if (this.#memory.tracer.enabled) {
      this.#buffers.eachRead(bytesRead, this.#traceTouch);
      this.#buffers.eachWritten(bytesWritten, bytesAtEnd, this.#traceTouch);
    }
    this.#drop();
    return GNTST_OKAY;
  }

  /** Both lists, or nothing. */
  #mapPages(): number {
    const { mapper, owner, meter } = this.#memory;
    let status = mapper.mapPages(owner, this.#readablePages, true);
    if (status !== GNTST_OKAY) return status;
    status = mapper.mapPages(owner, this.#writablePages, false);
    if (status !== GNTST_OKAY) {
      this.#unmap(this.#readablePages);
      return status;
    }
    this.#mapped = this.#readablePages.count + this.#writablePages.count;
    meter?.mapped(this.#mapped);
    return GNTST_OKAY;
  }

  #fillSegments(): void {
    const { count, writable } = this.#buffers;
    let readablePage = 0;
    let writablePage = 0;
    for (let index = 0; index < count; index++) {
      if (writable[index]) writablePage = this.#push(this.writable, index, this.#writablePages, writablePage);
      else readablePage = this.#push(this.readable, index, this.#readablePages, readablePage);
    }
  }

  /** Makes a buffer, which begins in mapped page number `page`, segments. Returns the page after it. */
  #push(segments: Segments, index: number, { handles }: GrantPages, page: number): number {
    const { mapper } = this.#memory;
    let start = this.#buffers.offsets[index];
    let next = page;
    for (let left = this.#buffers.lengths[index]; left > 0; next++) {
      const handle = handles[next];
      const piece = Math.min(left, XEN_PAGE_SIZE - start);
      segments.push(mapper.region(handle), mapper.offset(handle) + start, piece);
      left -= piece;
      start = 0;
    }
    return next;
  }

  #drop(): void {
    this.readable.clear();
    this.writable.clear();
    this.#buffers.clear();
    if (this.#mapped > 0) {
      this.#memory.meter?.mapped(-this.#mapped);
      this.#unmap(this.#writablePages);
      this.#unmap(this.#readablePages);
    }
    this.#mapped = 0;
    this.#readablePages.clear();
    this.#writablePages.clear();
  }

  #unmap(pages: GrantPages): void {
    const status = this.#memory.mapper.unmapPages(pages);
    assert(status === GNTST_OKAY, 'unmap of our own handles', status, GNTST_OKAY);
  }

  readonly #traceTouch = (index: number, from: number, length: number): void => {
    const { tracer, mapperId, owner } = this.#memory;
    const { refs, offsets, writable } = this.#buffers;
    const start = offsets[index] + from;
    const ref = refs[index] + Math.floor(start / XEN_PAGE_SIZE);
    tracer.touch(mapperId, owner, ref, start % XEN_PAGE_SIZE, length, writable[index]);
  };
}

/** What one guest granted to this backend. */
export class GrantMemory implements DeviceMemory {
  readonly mapper: GrantMapper;
  readonly mapperId: DomainId;
  readonly owner: DomainId;
  readonly tracer: Tracer;
  readonly meter: MapMeter | undefined;

  /**
   * @param owner the guest; @param mapperId the domain that this backend runs in
   * @param meter counts what is mapped
   */
  constructor(mapper: GrantMapper, mapperId: DomainId, owner: DomainId, tracer: Tracer, meter?: MapMeter) {
    this.mapper = mapper;
    this.mapperId = mapperId;
    this.owner = owner;
    this.tracer = tracer;
    this.meter = meter;
  }

  newChainAccess(): ChainAccess {
    return new GrantChainAccess(this);
  }

  mapRing(low: number, high: number, length: number): MappedRing {
    const access = new GrantChainAccess(this);
    const status = access.map(low, high, length, true) || access.ready();
    const where = `ring at ${formatAddress(low, high)}, ${length} bytes`;
    if (status !== GNTST_OKAY)
      throw new ProtocolViolation(
        '§2.7',
        `${where}: mapping its grants failed with ${grantStatusName(status)}`,
      );
    if (access.writable.count !== 1) {
      access.release(0, 0, 0);
      throw new ProtocolViolation('§2.7', `${where}: its pages are not contiguous in machine memory`);
    }
    const region = access.writable.regions[0];
    const offset = access.writable.offsets[0];
    return { region, offset, release: () => access.release(0, 0, 0) };
  }
}
