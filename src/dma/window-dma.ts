// DMA operations over a window of memory that is shared with the backend as a whole: rings lie in it, buffers are
// copied through it, and addresses are plain ones within it. Restricted memory access without grants.
// After virtqueue/driver-queue.ts, before bounce-sharing.ts and shared-window.ts.

import { XEN_PAGE_SHIFT, XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_BIDIRECTIONAL } from '../trace.ts';
import { KEEP_NOTHING } from './bounce-pages.ts';
import { BounceSharing } from './bounce-sharing.ts';
import type { CoherentBuffer, DmaAddress, DmaOperations } from './dma.ts';
import { MappedBuffers } from './mapped-buffers.ts';
import { NO_QUARANTINE } from './quarantine.ts';
import type { SharedWindow } from './shared-window.ts';

const HIGH = 0x1_0000_0000;

function pagesOf(size: number): number {
  return (size + XEN_PAGE_SIZE - 1) >>> XEN_PAGE_SHIFT;
}

/** The operations of the one device that the window is for. */
export class WindowDma extends MappedBuffers implements DmaOperations {
  readonly quarantined = 0;
  readonly quarantine = NO_QUARANTINE;
  /** Pages of coherent memory, and buffers that are mapped. */
  live = 0;
  readonly #window: SharedWindow;
  readonly #sharing: BounceSharing;

  constructor(window: SharedWindow) {
    // What is over is wiped at once: the backend never stops seeing the page.
    const sharing = new BounceSharing(window, window.owner.device, KEEP_NOTHING);
    super(sharing, window.owner);
    this.#window = window;
    this.#sharing = sharing;
  }

  supportsMask(bits: number): boolean {
    return 2 ** bits >= this.#window.address + this.#window.size;
  }

  allocatePages(count: number, direction: number): CoherentBuffer | undefined {
    return this.#allocate(count * XEN_PAGE_SIZE, direction);
  }

  allocate(size: number): CoherentBuffer | undefined {
    return this.#allocate(size, DMA_BIDIRECTIONAL);
  }

  free(buffer: CoherentBuffer): boolean {
    const { domain, owner } = this.#window;
    const pages = pagesOf(buffer.size);
    const ref = this.refOf(buffer.low, buffer.high);
    if (owner.tracer.enabled) owner.tracer.needEnd(domain.id, owner.device, ref, 0, buffer.size);
    domain.memory.wipe(buffer.address, pages * XEN_PAGE_SIZE);
    domain.memory.freePages(buffer.address, pages);
    this.live -= pages;
    return true;
  }

  view(buffer: CoherentBuffer): Uint8Array {
    return this.#window.domain.memory.bytes(buffer.address, buffer.size);
  }

  pagesOf(buffer: CoherentBuffer): DmaAddress[] {
    return Array.from({ length: pagesOf(buffer.size) }, (_, page) => {
      const address = buffer.address + page * XEN_PAGE_SIZE;
      return { low: address >>> 0, high: Math.floor(address / HIGH) };
    });
  }

  override map(
    address: number,
    size: number,
    direction: number,
    out: DmaAddress,
    attributes?: number,
  ): boolean {
    if (!super.map(address, size, direction, out, attributes)) return false;
    this.live++;
    return true;
  }

  override unmap(low: number, high: number, size: number, direction: number, attributes?: number): boolean {
    const released = super.unmap(low, high, size, direction, attributes);
    this.live--;
    return released;
  }

  revokeIdle(): void {
    this.#sharing.revokeIdle();
  }

  /** Nothing is kept, so nothing is ever due. */
  tick(now: number): number {
    return this.#sharing.tick(now);
  }

  recover(): number {
    return 0;
  }

  forget(): void {
    // Nothing is in quarantine.
  }

  close(): void {
    assert(this.live === 0, 'buffers are still shared', this.live, 0);
    this.#sharing.close();
  }

  #allocate(size: number, direction: number): CoherentBuffer | undefined {
    const { domain, owner, address: start } = this.#window;
    const pages = pagesOf(size);
    const { memory, pools } = domain;
    const address =
      memory.allocatePages(pages) ?? (pools.reclaimPages() ? memory.allocatePages(pages) : undefined);
    if (address === undefined) return undefined;
    this.live += pages;
    const ref = (address - start) / XEN_PAGE_SIZE;
    if (owner.tracer.enabled) owner.tracer.need(domain.id, owner.device, ref, 0, size, direction);
    return { address, size, low: address >>> 0, high: Math.floor(address / HIGH) };
  }

  /** The window begins with a page. */
  protected override encode(ref: number, offset: number, out: DmaAddress): void {
    const address = this.#window.address + ref * XEN_PAGE_SIZE + offset;
    out.low = address >>> 0;
    out.high = Math.floor(address / HIGH);
  }

  protected override refOf(low: number, high: number): number {
    const place = high * HIGH + low - this.#window.address;
    assert(place >= 0 && place < this.#window.size, 'an address of the window', place, this.#window.size);
    return Math.floor(place / XEN_PAGE_SIZE);
  }
}
