// Memory whose use is reported: which bytes each request has in hand, from when all of its buffers are mapped until it
// lets go of them. How the accounting learns what a backend needs where nobody but the backend can say so.
// Wraps the other memories; it costs nothing where it is not there.

import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import type { Segments } from './segments.ts';

/** Bits of an address within its page, and how many pages its high half counts for. */
const PAGE_SHIFT = 12;
const PAGE_MASK = 0xfff;
const PAGES_OF_HIGH = 2 ** 20;
/** Bit 63, which marks a grant (abi/grant-address.ts). */
const LOW_BITS = 0x7fff_ffff;

/** Port: told of needs, as trace.ts has them, of one device. Arguments are numbers, so that a call allocates nothing. */
export interface NeedTracer {
  /**
   * The device has `size` bytes in hand, from `offset` in page `page` on: of its addresses, or the reference of a
   * grant.
   *
   * @returns whether it was reported: then its end is to be, too
   */
  need(page: number, offset: number, size: number, direction: number): boolean;
  /** It has let go of the bytes that `need` named, which returned true. */
  needEnd(page: number, offset: number, size: number): void;
}

/** Buffers of one chain, and which of them were reported. */
class TracedAccess implements ChainAccess {
  readonly #inner: ChainAccess;
  readonly #needs: NeedTracer;
  #count = 0;
  /** Those before it have been offered to the tracer. */
  #offered = 0;
  readonly #pages: number[] = [];
  readonly #offsets: number[] = [];
  readonly #lengths: number[] = [];
  readonly #directions: number[] = [];
  readonly #reported: boolean[] = [];

  constructor(inner: ChainAccess, needs: NeedTracer) {
    this.#inner = inner;
    this.#needs = needs;
  }

  get readable(): Segments {
    return this.#inner.readable;
  }

  get writable(): Segments {
    return this.#inner.writable;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    const status = this.#inner.map(low, high, length, writable);
    if (status !== 0) return status;
    const index = this.#count++;
    this.#pages[index] = pageOf(low, high);
    this.#offsets[index] = low & PAGE_MASK;
    this.#lengths[index] = length;
    this.#directions[index] = writable ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
    return 0;
  }

  /** Only now: a chain of which a buffer is refused, or has to wait, uses none of the others. */
  ready(): number {
    const status = this.#inner.ready();
    if (status !== 0) {
      this.#end();
      return status;
    }
    while (this.#offered < this.#count) this.#offer(this.#offered++);
    return 0;
  }

  /** The need ends last: what is unmapped with its chain was never there without need. */
  release(bytesRead: number, bytesWritten: number, bytesAtEnd: number): number {
    const status = this.#inner.release(bytesRead, bytesWritten, bytesAtEnd);
    this.#end();
    return status;
  }

  #offer(index: number): void {
    this.#reported[index] = this.#needs.need(
      this.#pages[index],
      this.#offsets[index],
      this.#lengths[index],
      this.#directions[index],
    );
  }

  #end(): void {
    for (let index = 0; index < this.#offered; index++)
      if (this.#reported[index])
        this.#needs.needEnd(this.#pages[index], this.#offsets[index], this.#lengths[index]);
    this.#count = this.#offered = 0;
  }
}

/** A guest's memory, and who is told what of it is used. */
export class TracedMemory implements DeviceMemory {
  readonly #inner: DeviceMemory;
  readonly #needs: NeedTracer;

  constructor(inner: DeviceMemory, needs: NeedTracer) {
    this.#inner = inner;
    this.#needs = needs;
  }

  newChainAccess(): ChainAccess {
    return new TracedAccess(this.#inner.newChainAccess(), this.#needs);
  }

  /** A ring is needed for as long as it is mapped. */
  mapRing(low: number, high: number, length: number): MappedRing {
    const ring = this.#inner.mapRing(low, high, length);
    const [page, offset] = [pageOf(low, high), low & PAGE_MASK];
    if (!this.#needs.need(page, offset, length, DMA_BIDIRECTIONAL)) return ring;
    const release = (): void => {
      ring.release();
      this.#needs.needEnd(page, offset, length);
    };
    return { region: ring.region, offset: ring.offset, release };
  }
}

/** The page of an address, or the reference of one that names a grant. */
function pageOf(low: number, high: number): number {
  return (high & LOW_BITS) * PAGES_OF_HIGH + (low >>> PAGE_SHIFT);
}
