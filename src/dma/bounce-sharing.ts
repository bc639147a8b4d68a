// Exposure mode `bounce`: data is copied through pages of a pool that hold only this device's live bytes and
// zeroes, and that are granted while a buffer in them is mapped. Foreign bytes exposed: none.
// After grant-dma.ts, before grants.ts.
//
// A short buffer takes a slot of a page that it may share with others of the same device and direction
// (bounce-slots.ts); a longer one takes a run of whole pages (bounce-runs.ts).

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { BounceRuns } from './bounce-runs.ts';
import { BounceSlots, MAX_SLOT_SIZE } from './bounce-slots.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import type { Grants } from './grants.ts';

/** Copies through private pages. */
export class BounceSharing implements BufferSharing {
  readonly #grants: Grants;
  readonly #runs: BounceRuns;
  readonly #slots: BounceSlots;

  /** @param device the device's number in trace events */
  constructor(grants: Grants, device: number) {
    this.#grants = grants;
    const takePages = (count: number) => this.#takePages(count);
    this.#runs = new BounceRuns(grants, device, takePages);
    this.#slots = new BounceSlots(grants, device, takePages);
  }

  share(address: number, size: number, direction: number, copies: boolean): number {
    if (size <= MAX_SLOT_SIZE) return this.#slots.share(address, size, direction, copies);
    const ref = this.#runs.share(address, size, direction, copies);
    return ref < 0 ? -1 : ref * XEN_PAGE_SIZE;
  }

  /** Always true: whatever the backend still maps is the pool's, never the caller's. */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): boolean {
    if (size <= MAX_SLOT_SIZE) this.#slots.unshare(ref, offset, size, direction, copies);
    else this.#runs.unshare(ref, offset, size, direction, copies);
    return true;
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    if (size <= MAX_SLOT_SIZE) this.#slots.syncForCpu(ref, offset, size, direction, at, length);
    else this.#runs.syncForCpu(ref, offset, size, direction, at, length);
  }

  syncForDevice(
    ref: number,
    offset: number,
    size: number,
    direction: number,
    at: number,
    length: number,
  ): void {
    if (size <= MAX_SLOT_SIZE) this.#slots.syncForDevice(ref, offset, size, direction, at, length);
    else this.#runs.syncForDevice(ref, offset, size, direction, at, length);
  }

  /** Pages are granted only while something in them is mapped. */
  revokeIdle(): void {
    // Nothing stays granted.
  }

  releaseIdle(): boolean {
    const runs = this.#runs.releaseIdle();
    return this.#slots.releaseIdle() || runs;
  }

  tick(): number {
    return Number.POSITIVE_INFINITY;
  }

  /** Pages for the pool. When the guest has none left, those that lie idle for other lengths may be enough. */
  #takePages(count: number): number | undefined {
    const { memory } = this.#grants.domain;
    return memory.allocatePages(count) ?? (this.releaseIdle() ? memory.allocatePages(count) : undefined);
  }
}
