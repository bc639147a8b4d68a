// DMA operations over grants: every address that leaves here names references, in whatever exposure mode. What
// all modes have in common: coherent memory, addresses, the trace.
// After drivers/ and virtqueue/driver-queue.ts, before coherent.ts and an exposure mode (buffer-sharing.ts).

import {
  DMA_MAPPING_ERROR_HALF,
  grantAddressHigh,
  grantAddressLow,
  grantAddressOffset,
  grantAddressRef,
  isGrantAddress,
  pagesTouched,
} from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import { CoherentMemory } from './coherent.ts';
import {
  assertMappable,
  type CoherentBuffer,
  DMA_ATTR_MMIO,
  DMA_ATTR_SKIP_CPU_SYNC,
  type DmaAddress,
  type DmaOperations,
  MAX_MAPPING_SIZE,
} from './dma.ts';
import type { Grants } from './grants.ts';
import type { QuarantineCounts } from './quarantine.ts';

/** Bit 63 of a DMA address is set, so a device must be able to give all 64 bits (defect R7 of the RFC). */
const ADDRESS_BITS = 64;

/** The operations of one device, whose buffers are shared as `sharing` does it. */
export class GrantDma implements DmaOperations {
  readonly maxMappingSize = MAX_MAPPING_SIZE;
  readonly #grants: Grants;
  readonly #device: number;
  readonly #coherent: CoherentMemory;
  readonly #sharing: BufferSharing;

  /** @param device the device's number in trace events */
  constructor(grants: Grants, device: number, sharing: BufferSharing) {
    this.#grants = grants;
    this.#device = device;
    this.#coherent = new CoherentMemory(grants, device);
    this.#sharing = sharing;
  }

  get live(): number {
    return this.#grants.live;
  }

  get quarantined(): number {
    return this.#grants.quarantined;
  }

  get quarantine(): QuarantineCounts {
    return this.#grants.quarantine.counts;
  }

  supportsMask(bits: number): boolean {
    return bits === ADDRESS_BITS;
  }

  allocate(size: number): CoherentBuffer | undefined {
    return this.#allocate(size);
  }

  allocatePages(count: number, direction: number): CoherentBuffer | undefined {
    return this.#allocate(count * XEN_PAGE_SIZE, direction);
  }

  free(buffer: CoherentBuffer): boolean {
    return this.#coherent.free(buffer);
  }

  view(buffer: CoherentBuffer): Uint8Array {
    return this.#grants.domain.memory.bytes(buffer.address, buffer.size);
  }

  pagesOf(buffer: CoherentBuffer): DmaAddress[] {
    const first = grantAddressRef(buffer.low, buffer.high);
    return Array.from({ length: pagesTouched(0, buffer.size) }, (_, page) => ({
      low: grantAddressLow(first + page, 0),
      high: grantAddressHigh(first + page),
    }));
  }

  map(address: number, size: number, direction: number, out: DmaAddress, attributes = 0): boolean {
    assertMappable(size, direction);
    const copies = (attributes & DMA_ATTR_SKIP_CPU_SYNC) === 0;
    const place = attributes & DMA_ATTR_MMIO ? -1 : this.#sharing.share(address, size, direction, copies);
    if (place < 0) {
      out.low = out.high = DMA_MAPPING_ERROR_HALF;
      return false;
    }
    const ref = Math.floor(place / XEN_PAGE_SIZE);
    const offset = place & (XEN_PAGE_SIZE - 1);
    out.low = grantAddressLow(ref, offset);
    out.high = grantAddressHigh(ref);
    const { tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.need(id, this.#device, ref, offset, size, direction);
    return true;
  }

  unmap(low: number, high: number, size: number, direction: number, attributes = 0): boolean {
    assert(isGrantAddress(high), 'unmap of an address that is no grant', high);
    const ref = grantAddressRef(low, high);
    const offset = grantAddressOffset(low);
    const copies = (attributes & DMA_ATTR_SKIP_CPU_SYNC) === 0;
    const released = this.#sharing.unshare(ref, offset, size, direction, copies);
    const { tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.needEnd(id, this.#device, ref, offset, size);
    return released;
  }

  syncForCpu(low: number, high: number, size: number, direction: number, at = 0, length = size - at): void {
    assert(at >= 0 && at + length <= size, 'bytes to sync', at + length, size);
    const ref = grantAddressRef(low, high);
    this.#sharing.syncForCpu(ref, grantAddressOffset(low), size, direction, at, length);
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
    const ref = grantAddressRef(low, high);
    this.#sharing.syncForDevice(ref, grantAddressOffset(low), size, direction, at, length);
  }

  revokeIdle(): void {
    this.#sharing.revokeIdle();
  }

  tick(now: number): number {
    const quarantine = this.#grants.quarantine.tick(now);
    return Math.min(quarantine, this.#sharing.tick(now));
  }

  recover(): number {
    return this.#grants.retry();
  }

  forget(): void {
    assert(this.#grants.live === 0, 'nothing is shared when its host is left', this.#grants.live, 0);
    this.#grants.quarantine.forget();
  }

  close(): void {
    this.#sharing.revokeIdle();
    assert(this.#grants.live === 0, 'pages are still shared', this.#grants.live, 0);
    this.#sharing.close();
  }

  #allocate(size: number, direction?: number): CoherentBuffer | undefined {
    const buffer = this.#coherent.allocate(size, direction);
    if (buffer !== undefined || !this.#grants.domain.pools.reclaimPages()) return buffer;
    return this.#coherent.allocate(size, direction);
  }
}
