// The driver's private record of which buffers are shared with the device and how. The device may write to
// the descriptor table at any time, so nothing is ever unmapped from what a descriptor says (case B6).

import type { DmaAddress, DmaOperations } from '../dma/dma.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';

/** Mappings by slot; the queue decides what a slot stands for. */
export class SharedBuffers {
  readonly low: Uint32Array;
  readonly high: Uint32Array;
  readonly len: Uint32Array;
  readonly #writable: Uint8Array;
  readonly #dma: DmaOperations;
  readonly #mapped: DmaAddress = { low: 0, high: 0 };

  constructor(slots: number, dma: DmaOperations) {
    this.low = new Uint32Array(slots);
    this.high = new Uint32Array(slots);
    this.len = new Uint32Array(slots);
    this.#writable = new Uint8Array(slots);
    this.#dma = dma;
  }

  /** Shares a buffer. Returns false when it cannot be done now, and then nothing is shared. */
  share(slot: number, address: number, length: number, writable: boolean): boolean {
    if (!this.#dma.map(address, length, writable ? DMA_FROM_DEVICE : DMA_TO_DEVICE, this.#mapped))
      return false;
    this.low[slot] = this.#mapped.low;
    this.high[slot] = this.#mapped.high;
    this.len[slot] = length;
    this.#writable[slot] = writable ? 1 : 0;
    return true;
  }

  /** Ends it. Returns false when the device can still reach the caller's pages. */
  unshare(slot: number): boolean {
    const direction = this.#writable[slot] ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
    return this.#dma.unmap(this.low[slot], this.high[slot], this.len[slot], direction);
  }
}
