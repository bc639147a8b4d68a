// Exposure mode `direct`: the caller's own pages are granted, whole, for as long as the buffer is mapped,
// as Linux does. What else lies in those pages is exposed with it (XSA-403).
// After drivers/ and virtqueue/driver-queue.ts, before dma/grants.ts.

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
import { DMA_TO_DEVICE } from '../trace.ts';
import { CoherentMemory } from './coherent.ts';
import {
  assertMappable,
  type CoherentBuffer,
  type DmaAddress,
  type DmaOperations,
  mappingShape,
  MAX_MAPPING_SIZE,
  NOT_MAPPED,
} from './dma.ts';
import type { Grants } from './grants.ts';

/** Direct grants of the caller's pages. */
export class DirectDma implements DmaOperations {
  readonly maxMappingSize = MAX_MAPPING_SIZE;
  readonly #grants: Grants;
  readonly #coherent: CoherentMemory;
  readonly #device: number;
  /** How each live mapping was made, by its first reference; 0 where there is none. */
  readonly #shapes: Float64Array;

  /** @param device the device's number in trace events */
  constructor(grants: Grants, device: number) {
    this.#grants = grants;
    this.#device = device;
    this.#coherent = new CoherentMemory(grants, device);
    this.#shapes = new Float64Array(grants.domain.table.maxEntries);
  }

  get live(): number {
    return this.#grants.live;
  }

  get quarantined(): number {
    return this.#grants.quarantined;
  }

  allocate(size: number): CoherentBuffer | undefined {
    return this.#coherent.allocate(size);
  }

  free(buffer: CoherentBuffer): boolean {
    return this.#coherent.free(buffer);
  }

  map(address: number, size: number, direction: number, out: DmaAddress): boolean {
    assertMappable(size, direction);
    const offset = address & (XEN_PAGE_SIZE - 1);
    const pages = pagesTouched(offset, size);
    const ref = this.#grants.share(Math.floor(address / XEN_PAGE_SIZE), pages, direction === DMA_TO_DEVICE);
    if (ref < 0) {
      out.low = out.high = DMA_MAPPING_ERROR_HALF;
      return false;
    }
    this.#shapes[ref] = mappingShape(offset, size, direction);
    out.low = grantAddressLow(ref, offset);
    out.high = grantAddressHigh(ref);
    const { tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.need(id, this.#device, ref, offset, size, direction);
    return true;
  }

  unmap(low: number, high: number, size: number, direction: number): boolean {
    const ref = grantAddressRef(low, high);
    const offset = grantAddressOffset(low);
    const isMapped = isGrantAddress(high) && this.#shapes[ref] === mappingShape(offset, size, direction);
    assert(isMapped, NOT_MAPPED, size);
    this.#shapes[ref] = 0;
    const { tracer, id } = this.#grants.domain;
    const released = this.#grants.unshare(ref, pagesTouched(offset, size));
    if (tracer.enabled) tracer.needEnd(id, this.#device, ref, offset, size);
    return released;
  }

  recover(): number {
    return this.#grants.retry();
  }

  /** There is no pool. */
  close(): void {
    assert(this.#grants.live === 0, 'pages are still shared', this.#grants.live, 0);
  }
}
