// DMA operations on buffers, whatever their addresses are made of: mapping, unmapping, syncs, and the trace of these.
// Beneath grant-dma.ts and window-dma.ts, before an exposure mode (buffer-sharing.ts).

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_MAPPING_ERROR_HALF } from '../abi/grant-address.ts';
import { assert } from '../errors.ts';
import type { Tracer } from '../trace.ts';
import type { DomainId } from '../xen/ids.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import {
  assertMappable,
  DMA_ATTR_MMIO,
  DMA_ATTR_SKIP_CPU_SYNC,
  type DmaAddress,
  type DmaOperations,
  MAX_MAPPING_SIZE,
} from './dma.ts';

const OFFSET_MASK = XEN_PAGE_SIZE - 1;

/** Whose buffers they are, in the words of the trace. */
export interface BufferOwner {
  readonly domain: DomainId;
  readonly device: number;
  readonly tracer: Tracer;
}

/** The buffers of one device, shared as `sharing` does it. A page of shared memory has a reference. */
export abstract class MappedBuffers
  implements Pick<DmaOperations, 'maxMappingSize' | 'map' | 'unmap' | 'syncForCpu' | 'syncForDevice'>
{
  readonly maxMappingSize = MAX_MAPPING_SIZE;
  readonly #sharing: BufferSharing;
  readonly #owner: BufferOwner;

  constructor(sharing: BufferSharing, owner: BufferOwner) {
    this.#sharing = sharing;
    this.#owner = owner;
  }

  /** Writes the address of byte `offset` in the page of `ref`, whose lowest bits are the offset. */
  protected abstract encode(ref: number, offset: number, out: DmaAddress): void;

  /** The reference of the page that an address is in, which `encode` has made. */
  protected abstract refOf(low: number, high: number): number;

  map(address: number, size: number, direction: number, out: DmaAddress, attributes = 0): boolean {
    assertMappable(size, direction);
    const copies = (attributes & DMA_ATTR_SKIP_CPU_SYNC) === 0;
    const place = attributes & DMA_ATTR_MMIO ? -1 : this.#sharing.share(address, size, direction, copies);
    if (place < 0) {
      out.low = out.high = DMA_MAPPING_ERROR_HALF;
      return false;
    }
    const ref = Math.floor(place / XEN_PAGE_SIZE);
    const offset = place & OFFSET_MASK;
    this.encode(ref, offset, out);
    const { tracer, domain, device } = this.#owner;
    if (tracer.enabled) tracer.need(domain, device, ref, offset, size, direction);
    return true;
  }

  unmap(low: number, high: number, size: number, direction: number, attributes = 0): boolean {
    const ref = this.refOf(low, high);
    const offset = low & OFFSET_MASK;
    const copies = (attributes & DMA_ATTR_SKIP_CPU_SYNC) === 0;
    const released = this.#sharing.unshare(ref, offset, size, direction, copies);
    const { tracer, domain, device } = this.#owner;
    if (tracer.enabled) tracer.needEnd(domain, device, ref, offset, size);
    return released;
  }

  syncForCpu(low: number, high: number, size: number, direction: number, at = 0, length = size - at): void {
    assert(at >= 0 && at + length <= size, 'bytes to sync', at + length, size);
    this.#sharing.syncForCpu(this.refOf(low, high), low & OFFSET_MASK, size, direction, at, length);
  }

  syncForDevice(
    low: number,
    high: number,
    size: number,
    direction: number,
    at = 0,
    length = size - at,
  ): void {
    assert(at >= 0 && at + length <= size, 'bytes to sync', at + length, size);
    this.#sharing.syncForDevice(this.refOf(low, high), low & OFFSET_MASK, size, direction, at, length);
  }
}
