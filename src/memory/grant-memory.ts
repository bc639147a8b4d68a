// A device that reaches exactly what the guest granted: every descriptor's address names a grant, is mapped
// for the time of its chain, read-only when the device only reads, and unmapped before completion.
// After virtqueue/device-queue.ts, before xen/grant-mapper.ts (hosts/model/grant-mapper.ts).

import { formatAddress, grantAddressOffset, grantAddressRef, pagesTouched } from '../abi/grant-address.ts';
import { GNTST_OKAY, grantStatusName } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import type { Tracer } from '../trace.ts';
import type { GrantMapper } from '../xen/grant-mapper.ts';
import type { DomainId } from '../xen/ids.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import { checkGrantRange, GrantedBuffers } from './granted-buffers.ts';
import { Segments } from './segments.ts';

/** Port: told of pages of the guest's that are mapped, with a negative number when they no longer are. */
export interface MapMeter {
  mapped(pages: number): void;
}

class GrantChainAccess implements ChainAccess {
  readonly readable = new Segments();
  readonly writable = new Segments();
  readonly #memory: GrantMemory;
  /** Handles of the pages mapped for this chain, and what the trace says of them. */
  readonly #handles: number[] = [];
  #handleCount = 0;
  /** The same buffer by buffer, for `touch` events. */
  readonly #buffers = new GrantedBuffers();

  constructor(memory: GrantMemory) {
    this.#memory = memory;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    checkGrantRange(low, high, length);
    const { mapper, owner, tracer, meter } = this.#memory;
    const first = this.#handleCount;
    const pages = pagesTouched(low, length);
    const ref = grantAddressRef(low, high);
    for (let page = 0; page < pages; page++) {
      const handle = mapper.map(owner, ref + page, !writable);
      if (handle < 0) {
        this.#unmapFrom(first);
        return handle;
      }
      this.#handles[this.#handleCount++] = handle;
      meter?.mapped(1);
    }
    this.#push(first, grantAddressOffset(low), length, writable ? this.writable : this.readable);
    if (tracer.enabled) this.#buffers.add(low, high, length, writable);
    return GNTST_OKAY;
  }

  ready(): number {
    return GNTST_OKAY;
  }

  release(bytesRead: number, bytesWritten: number, bytesAtEnd: number): number {
    this.readable.clear();
    this.writable.clear();
    this.#buffers.eachRead(bytesRead, this.#traceTouch);
    this.#buffers.eachWritten(bytesWritten, bytesAtEnd, this.#traceTouch);
    this.#buffers.clear();
    this.#unmapFrom(0);
    return GNTST_OKAY;
  }

  #push(firstHandle: number, offset: number, length: number, segments: Segments): void {
    const { mapper } = this.#memory;
    let start = offset;
    let left = length;
    for (let index = firstHandle; left > 0; index++) {
      const handle = this.#handles[index];
      const piece = Math.min(left, XEN_PAGE_SIZE - start);
      segments.push(mapper.region(handle), mapper.offset(handle) + start, piece);
      left -= piece;
      start = 0;
    }
  }

  /** Unmaps the handles from index `first` on, last one first. */
  #unmapFrom(first: number): void {
    const { mapper, meter } = this.#memory;
    while (this.#handleCount > first) {
      meter?.mapped(-1);
      const status = mapper.unmap(this.#handles[--this.#handleCount]);
      assert(status === GNTST_OKAY, 'unmap of our own handle', status, GNTST_OKAY);
    }
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
    const status = access.map(low, high, length, true);
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
