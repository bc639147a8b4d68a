// DMA operations over grants: every address that leaves here names references, in whatever exposure mode.
// After drivers/ and virtqueue/driver-queue.ts; on mapped-buffers.ts, before coherent.ts and buffer-sharing.ts.

import {
  grantAddressHigh,
  grantAddressLow,
  grantAddressRef,
  isGrantAddress,
  pagesTouched,
} from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import { CoherentMemory } from './coherent.ts';
import type { CoherentBuffer, DmaAddress, DmaOperations } from './dma.ts';
import type { Grants } from './grants.ts';
import { MappedBuffers } from './mapped-buffers.ts';
import type { QuarantineCounts } from './quarantine.ts';

/** Bit 63 of a DMA address is set, so a device must be able to give all 64 bits (defect R7 of the RFC). */
const ADDRESS_BITS = 64;

/** The operations of one device, whose buffers are shared as `sharing` does it. */
export class GrantDma extends MappedBuffers implements DmaOperations {
  readonly #grants: Grants;
  readonly #coherent: CoherentMemory;
  readonly #sharing: BufferSharing;

  /** @param device the device's number in trace events */
  constructor(grants: Grants, device: number, sharing: BufferSharing) {
    const { id, tracer } = grants.domain;
    super(sharing, { domain: id, device, tracer });
    this.#grants = grants;
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

  protected override encode(ref: number, offset: number, out: DmaAddress): void {
    out.low = grantAddressLow(ref, offset);
    out.high = grantAddressHigh(ref);
  }

  protected override refOf(low: number, high: number): number {
    assert(isGrantAddress(high), 'an address that is no grant', high);
    return grantAddressRef(low, high);
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
