// DMA without grants: the address is the guest-physical one and the backend may reach all of the memory.
// What virtio is without restricted memory access; and what rings are tested with on their own.

import { XEN_PAGE_SHIFT, XEN_PAGE_SIZE } from '../abi/xen.ts';
import {
  assertMappable,
  type CoherentBuffer,
  type DmaAddress,
  type DmaOperations,
  MAX_MAPPING_SIZE,
} from './dma.ts';
import type { GuestMemory } from './guest-memory.ts';
import { NO_QUARANTINE } from './quarantine.ts';

const HIGH = 0x1_0000_0000;

/** Identity addresses, nothing to revoke. */
export class PlainDma implements DmaOperations {
  readonly maxMappingSize = MAX_MAPPING_SIZE;
  readonly live = 0;
  readonly quarantined = 0;
  readonly quarantine = NO_QUARANTINE;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Addresses are as long as the guest's memory; every device that virtio 1 knows gives 64 bits. */
  supportsMask(bits: number): boolean {
    return 2 ** bits >= this.#memory.base + this.#memory.region.byteLength;
  }

  allocatePages(count: number): CoherentBuffer | undefined {
    return this.allocate(count * XEN_PAGE_SIZE);
  }

  allocate(size: number): CoherentBuffer | undefined {
    const address = this.#memory.allocatePages((size + 0xfff) >>> XEN_PAGE_SHIFT);
    if (address === undefined) return undefined;
    return { address, size, low: address >>> 0, high: Math.floor(address / HIGH) };
  }

  free(buffer: CoherentBuffer): boolean {
    this.#memory.freePages(buffer.address, (buffer.size + 0xfff) >>> XEN_PAGE_SHIFT);
    return true;
  }

  view(buffer: CoherentBuffer): Uint8Array {
    return this.#memory.bytes(buffer.address, buffer.size);
  }

  pagesOf(buffer: CoherentBuffer): DmaAddress[] {
    return Array.from({ length: (buffer.size + 0xfff) >>> XEN_PAGE_SHIFT }, (_, page) => {
      const address = buffer.address + page * XEN_PAGE_SIZE;
      return { low: address >>> 0, high: Math.floor(address / HIGH) };
    });
  }

  map(address: number, size: number, direction: number, out: DmaAddress): boolean {
    assertMappable(size, direction);
    out.low = address >>> 0;
    out.high = Math.floor(address / HIGH);
    return true;
  }

  unmap(): boolean {
    return true;
  }

  /** Driver and device see the same bytes. */
  syncForCpu(): void {
    // Nothing is copied.
  }

  syncForDevice(): void {
    // Nothing is copied.
  }

  /** Nothing is granted. */
  revokeIdle(): void {
    // Nothing stays granted.
  }

  tick(): number {
    return Number.POSITIVE_INFINITY;
  }

  recover(): number {
    return 0;
  }

  forget(): void {
    // Nothing is in quarantine.
  }

  close(): void {
    // Nothing is held.
  }
}
