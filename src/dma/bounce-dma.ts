// Exposure mode `bounce`: data is copied through pages of a pool that hold only this device's live bytes and
// zeroes, and that are granted while a buffer in them is mapped. Foreign bytes exposed: none.
// After drivers/ and virtqueue/driver-queue.ts, before dma/grants.ts.
//
// A short buffer takes a slot of a page that it may share with others of the same device and direction
// (bounce-slots.ts); a longer one takes a run of whole pages (bounce-runs.ts).

import {
  DMA_MAPPING_ERROR_HALF,
  grantAddressHigh,
  grantAddressLow,
  grantAddressOffset,
  grantAddressRef,
  isGrantAddress,
} from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { BounceRuns } from './bounce-runs.ts';
import { BounceSlots, MAX_SLOT_SIZE } from './bounce-slots.ts';
import { CoherentMemory } from './coherent.ts';
import {
  assertMappable,
  type CoherentBuffer,
  type DmaAddress,
  type DmaOperations,
  MAX_MAPPING_SIZE,
} from './dma.ts';
import type { Grants } from './grants.ts';

/** Copies through private pages. */
export class BounceDma implements DmaOperations {
  readonly maxMappingSize = MAX_MAPPING_SIZE;
  readonly #grants: Grants;
  readonly #device: number;
  readonly #coherent: CoherentMemory;
  readonly #runs: BounceRuns;
  readonly #slots: BounceSlots;

  /** @param device the device's number in trace events */
  constructor(grants: Grants, device: number) {
    this.#grants = grants;
    this.#device = device;
    this.#coherent = new CoherentMemory(grants, device);
    const takePages = (count: number) => this.#takePages(count);
    this.#runs = new BounceRuns(grants, device, takePages);
    this.#slots = new BounceSlots(grants, device, takePages);
  }

  get live(): number {
    return this.#grants.live;
  }

  get quarantined(): number {
    return this.#grants.quarantined;
  }

  allocate(size: number): CoherentBuffer | undefined {
    return this.#coherent.allocate(size) ?? (this.#releaseIdle() ? this.#coherent.allocate(size) : undefined);
  }

  free(buffer: CoherentBuffer): boolean {
    return this.#coherent.free(buffer);
  }

  map(address: number, size: number, direction: number, out: DmaAddress): boolean {
    assertMappable(size, direction);
    const place =
      size <= MAX_SLOT_SIZE
        ? this.#slots.share(address, size, direction)
        : this.#runs.share(address, size, direction) * XEN_PAGE_SIZE;
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

  /** Always true: whatever the backend still maps is the pool's, never the caller's. */
  unmap(low: number, high: number, size: number, direction: number): boolean {
    assert(isGrantAddress(high), 'unmap of an address that is no grant', high);
    const ref = grantAddressRef(low, high);
    const offset = grantAddressOffset(low);
    if (size <= MAX_SLOT_SIZE) this.#slots.unshare(ref, offset, size, direction);
    else this.#runs.unshare(ref, offset, size, direction);
    const { tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.needEnd(id, this.#device, ref, offset, size);
    return true;
  }

  recover(): number {
    return this.#grants.retry();
  }

  close(): void {
    assert(this.#grants.live === 0, 'pages are still shared', this.#grants.live, 0);
    this.#releaseIdle();
  }

  /** Pages for the pool. When the guest has none left, those that lie idle for other lengths may be enough. */
  #takePages(count: number): number | undefined {
    const { memory } = this.#grants.domain;
    return memory.allocatePages(count) ?? (this.#releaseIdle() ? memory.allocatePages(count) : undefined);
  }

  /** Gives the idle part of the pool back to the guest. Returns whether there was any. */
  #releaseIdle(): boolean {
    const runs = this.#runs.releaseIdle();
    return this.#slots.releaseIdle() || runs;
  }
}
