// The last part of a guest's memory, which is all of it that a backend can reach: always, for as long as it is
// connected, since there is no hypervisor that would take a page back. What Linux calls a restricted DMA pool.
// Before bounce-sharing.ts, whose pool it holds; after window-dma.ts.
//
// Nothing but the bytes of live requests, rings and zeroes is ever in it, because the pool wipes what is over.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { noTrace, type Tracer } from '../trace.ts';
import type { DomainId } from '../xen/ids.ts';
import { GuestMemory } from './guest-memory.ts';
import { IdlePools } from './idle-pools.ts';
import type { PageSharing } from './page-sharing.ts';

/** Whose window it is, in the words of the trace. */
export interface WindowOwner {
  readonly domain: DomainId;
  readonly device: number;
  readonly backend: number;
  readonly tracer: Tracer;
}

/** A window of pages; a reference is a page's number in it. */
export class SharedWindow implements PageSharing {
  readonly domain: PageSharing['domain'];
  /** Guest-physical address of its first byte. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly owner: WindowOwner;
  readonly #firstFrame: number;

  /**
   * Takes the last `size` bytes of a guest's memory, whole pages, away from its kernel.
   *
   * @param kernel the memory that drivers and their callers use; none of the window has been allocated
   */
  constructor(kernel: GuestMemory, size: number, owner: WindowOwner) {
    const { base, region } = kernel;
    const own = region.byteLength - size;
    assert(size % XEN_PAGE_SIZE === 0 && own >= 0, 'a window of whole pages in the memory', size);
    this.address = base + own;
    this.size = size;
    this.owner = owner;
    this.#firstFrame = this.address / XEN_PAGE_SIZE;
    kernel.hold(this.#firstFrame, size / XEN_PAGE_SIZE);
    const memory = new GuestMemory(region, base);
    memory.hold(base / XEN_PAGE_SIZE, own / XEN_PAGE_SIZE);
    this.domain = {
      id: owner.domain,
      memory,
      table: { maxEntries: size / XEN_PAGE_SIZE },
      pools: new IdlePools(),
      // What the pool would say of single pages holds for the whole window, and `open` says it.
      tracer: noTrace,
    };
  }

  /** A backend can reach the window from now on: to be called before it is told where that is. */
  open(): void {
    const { domain, device, backend, tracer } = this.owner;
    const pages = this.size / XEN_PAGE_SIZE;
    tracer.privatePages(domain, device, this.#firstFrame, pages);
    tracer.grant(domain, backend, 0, this.#firstFrame, pages, false);
    // Pages stay reachable after their last use for as long as the backend is connected.
    tracer.staleLimit(domain, device, Number.POSITIVE_INFINITY);
  }

  /** What the backend has reached is not used any more. */
  close(): void {
    const { domain, tracer } = this.owner;
    const pages = this.size / XEN_PAGE_SIZE;
    tracer.revoke(domain, 0, pages);
    tracer.privatePagesEnd(domain, this.#firstFrame, pages);
  }

  share(frame: number): number {
    return frame - this.#firstFrame;
  }

  /** Always true: the pages are the pool's, and hold nothing that the backend must not see. */
  unshare(): boolean {
    return true;
  }
}
