// Exposure modes `bounce` and `persistent`: data is copied through pages of a pool that are private to the
// device. Foreign bytes exposed: none. In `bounce` a page is granted while a buffer in it is mapped, in
// `persistent` for a while longer, which spares most buffers the grant and the revoke.
// After grant-dma.ts, before grants.ts.
//
// A short buffer takes a slot of a page that it may share with others of the same device and direction
// (bounce-slots.ts); a longer one takes a run of whole pages (bounce-runs.ts). Both get their pages, and
// what those hold, from bounce-pages.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { BouncePages, type Retention } from './bounce-pages.ts';
import { BounceRuns } from './bounce-runs.ts';
import { BounceSlots, MAX_SLOT_SIZE } from './bounce-slots.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import type { PageSharing } from './page-sharing.ts';

/** Copies through private pages. */
export class BounceSharing implements BufferSharing {
  readonly #pages: BouncePages;
  readonly #runs: BounceRuns;
  readonly #slots: BounceSlots;

  /**
   * @param device the device's number in trace events
   * @param retention how long grants outlive their use
   */
  constructor(grants: PageSharing, device: number, retention: Retention) {
    this.#pages = new BouncePages(grants, device, retention);
    this.#runs = new BounceRuns(grants, this.#pages);
    this.#slots = new BounceSlots(grants, this.#pages);
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

  revokeIdle(): void {
    this.#pages.revokeIdle();
  }

  close(): void {
    this.#pages.close();
  }

  tick(now: number): number {
    return this.#pages.tick(now);
  }
}
