// Coherent memory for rings and tables: whole zeroed pages that hold nothing else, granted from allocation to
// release. The same in every exposure mode. After grant-dma.ts, before grants.ts.

import { grantAddressHigh, grantAddressLow, grantAddressRef, pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_BIDIRECTIONAL, DMA_TO_DEVICE } from '../trace.ts';
import type { CoherentBuffer } from './dma.ts';
import type { Grants } from './grants.ts';

export class CoherentMemory {
  readonly #grants: Grants;
  readonly #device: number;

  constructor(grants: Grants, device: number) {
    this.#grants = grants;
    this.#device = device;
  }

  /**
   * Exact pages for `size` bytes (no power of two: defect R10 of the RFC), zeroed to the end of the last page;
   * undefined when none are to be had.
   */
  allocate(size: number, direction = DMA_BIDIRECTIONAL): CoherentBuffer | undefined {
    assert(size > 0, 'an allocation has at least one byte');
    const { memory, tracer, id } = this.#grants.domain;
    const pages = pagesTouched(0, size);
    const address = memory.allocatePages(pages);
    if (address === undefined) return undefined;
    const frame = address / XEN_PAGE_SIZE;
    if (tracer.enabled) tracer.privatePages(id, this.#device, frame, pages);
    const ref = this.#grants.share(frame, pages, direction === DMA_TO_DEVICE);
    if (ref < 0) {
      if (tracer.enabled) tracer.privatePagesEnd(id, frame, pages);
      memory.freePages(address, pages);
      return undefined;
    }
    if (tracer.enabled) tracer.need(id, this.#device, ref, 0, size, direction);
    return { address, size, low: grantAddressLow(ref, 0), high: grantAddressHigh(ref) };
  }

  /** Ends access, wipes and frees; pages that the backend still maps stay in quarantine. */
  free(buffer: CoherentBuffer): boolean {
    const { memory, tracer, id } = this.#grants.domain;
    const pages = pagesTouched(0, buffer.size);
    const ref = grantAddressRef(buffer.low, buffer.high);
    const released = this.#grants.unshare(ref, pages);
    if (tracer.enabled) tracer.needEnd(id, this.#device, ref, 0, buffer.size);
    if (tracer.enabled) tracer.privatePagesEnd(id, buffer.address / XEN_PAGE_SIZE, pages);
    memory.wipe(buffer.address, pages * XEN_PAGE_SIZE);
    memory.freePages(buffer.address, pages);
    return released;
  }
}
