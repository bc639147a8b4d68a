// Small objects of the guest's kernel: what kmalloc is to Linux. Objects of one size class share pages,
// whoever they belong to, which is why granting a page for one of them exposes its neighbours (XSA-403).

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import type { GuestMemory } from './guest-memory.ts';

const SMALLEST_SHIFT = 5;

/** Objects of 1 byte to a page of the kernel, rounded up to a power of two from 32. */
export class GuestHeap {
  readonly #memory: GuestMemory;
  /** Free objects' addresses, by size class. */
  readonly #free: number[][] = [];
  #live = 0;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Objects handed out and not given back. */
  get live(): number {
    return this.#live;
  }

  /** Address of `size` bytes, which are not zeroed; undefined when memory is exhausted. */
  allocate(size: number): number | undefined {
    const { pageSize } = this.#memory;
    assert(size > 0 && size <= pageSize, 'bytes of a heap object', size, pageSize);
    const shift = this.#classOf(size);
    this.#free[shift] ??= [];
    const free = this.#free[shift];
    if (free.length === 0 && !this.#addPage(shift, free)) return undefined;
    this.#live++;
    return free.pop();
  }

  /** Gives an object of `size` bytes back. */
  free(address: number, size: number): void {
    this.#live--;
    this.#free[this.#classOf(size)].push(address);
  }

  #classOf(size: number): number {
    return Math.max(SMALLEST_SHIFT, 32 - Math.clz32(size - 1));
  }

  #addPage(shift: number, free: number[]): boolean {
    const { pageSize } = this.#memory;
    const page = this.#memory.allocatePages(pageSize / XEN_PAGE_SIZE);
    if (page === undefined) return false;
    for (let at = pageSize - (1 << shift); at >= 0; at -= 1 << shift) free.push(page + at);
    return true;
  }
}
