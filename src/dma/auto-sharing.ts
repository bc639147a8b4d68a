// Exposure mode `auto`: long buffers of whole pages are granted themselves, since nothing else lies in them;
// everything else goes through the pool, as in mode `persistent`. Foreign bytes exposed: none.
// After grant-dma.ts, before direct-sharing.ts and bounce-sharing.ts. Which buffers are long enough,
// calibrate.ts finds out.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE } from '../trace.ts';
import type { Retention } from './bounce-pages.ts';
import { BounceSharing } from './bounce-sharing.ts';
import type { BufferSharing } from './buffer-sharing.ts';
import { DirectSharing } from './direct-sharing.ts';
import type { Grants } from './grants.ts';

/** Bytes from which on whole pages are granted themselves where nobody has measured. */
export const DIRECT_FROM = 4 * XEN_PAGE_SIZE;

/** Direct or pool, whichever costs less and shows nothing foreign. */
export class AutoSharing implements BufferSharing {
  readonly #grants: Grants;
  readonly #directFrom: number;
  readonly #direct: DirectSharing;
  readonly #pool: BounceSharing;
  /** 1 at the first reference of each buffer that is granted itself. */
  readonly #isDirect: Uint8Array;

  /**
   * @param device the device's number in trace events
   * @param directFrom bytes; Infinity when no buffer is to be granted itself
   */
  constructor(grants: Grants, device: number, retention: Retention, directFrom: number) {
    this.#grants = grants;
    this.#directFrom = directFrom;
    this.#direct = new DirectSharing(grants);
    this.#pool = new BounceSharing(grants, device, retention);
    this.#isDirect = new Uint8Array(grants.domain.table.maxEntries);
  }

  /** A from-device buffer may be zeroes afterwards even when it could not be shared. */
  share(address: number, size: number, direction: number, copies: boolean): number {
    const isWhole = ((address | size) & (XEN_PAGE_SIZE - 1)) === 0;
    if (size >= this.#directFrom && isWhole) {
      // Before the grant: what lay there is not the device's to read, nor what it leaves unwritten a result.
      if (direction === DMA_FROM_DEVICE) this.#grants.domain.memory.wipe(address, size);
      const place = this.#direct.share(address, size, direction);
      if (place >= 0) this.#isDirect[place / XEN_PAGE_SIZE] = 1;
      // In pieces, or in a shorter run, it may still go through the pool.
      if (place >= 0) return place;
    }
    return this.#pool.share(address, size, direction, copies);
  }

  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): boolean {
    if (this.#isDirect[ref] !== 1) return this.#pool.unshare(ref, offset, size, direction, copies);
    const released = this.#direct.unshare(ref, offset, size, direction);
    this.#isDirect[ref] = 0;
    return released;
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    if (this.#isDirect[ref] === 1) this.#direct.syncForCpu(ref, offset, size, direction);
    else this.#pool.syncForCpu(ref, offset, size, direction, at, length);
  }

  syncForDevice(
    ref: number,
    offset: number,
    size: number,
    direction: number,
    at: number,
    length: number,
  ): void {
    if (this.#isDirect[ref] === 1) this.#direct.syncForDevice(ref, offset, size, direction);
    else this.#pool.syncForDevice(ref, offset, size, direction, at, length);
  }

  revokeIdle(): void {
    this.#pool.revokeIdle();
  }

  close(): void {
    this.#pool.close();
  }

  tick(now: number): number {
    return this.#pool.tick(now);
  }
}
