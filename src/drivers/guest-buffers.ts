// Buffers in guest memory for data on its way to or from a disk, handed out to whoever waits longest.
// Used by blk.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { GuestMemory } from '../dma/guest-memory.ts';
import { DiskError, type GuestBuffer } from './disk.ts';

/** A buffer, and where it lies for the driver. */
export interface AddressedBuffer extends GuestBuffer {
  /** Guest-physical address. */
  readonly address: number;
}

/** Somebody who waits for memory. */
interface Waiter {
  readonly pages: number;
  resolve(address: number): void;
  reject(reason: DiskError): void;
}

/** Whole pages, given back and out again without being wiped: they never leave this guest. */
export class GuestBuffers {
  readonly #memory: GuestMemory;
  /** Idle buffers' addresses, by pages. */
  readonly #idle = new Map<number, number[]>();
  readonly #waiting: Waiter[] = [];
  /** Why none are handed out any more. */
  #closed: string | undefined;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /**
   * A buffer of at least `length` bytes; waits while the guest has no memory for it. Rejects with ENODEV once the
   * disk has gone.
   */
  async take(length: number): Promise<AddressedBuffer> {
    if (this.#closed !== undefined) throw new DiskError('ENODEV', this.#closed);
    const pages = Math.max(Math.ceil(length / XEN_PAGE_SIZE), 1);
    const address = this.#waiting.length === 0 ? this.#find(pages) : undefined;
    const got =
      address ??
      (await new Promise<number>((resolve, reject) => this.#waiting.push({ pages, resolve, reject })));
    const memory = this.#memory;
    let released = false;
    return {
      address: got,
      get bytes() {
        return memory.bytes(got, pages * XEN_PAGE_SIZE);
      },
      release: () => {
        if (released) return;
        released = true;
        this.#give(got, pages);
      },
    };
  }

  /** Gives all buffers back to the guest: the idle ones now, the others as soon as they are released. */
  close(reason: string): void {
    this.#closed ??= reason;
    for (const { reject } of this.#waiting.splice(0)) reject(new DiskError('ENODEV', this.#closed));
    this.#releaseIdle();
  }

  #releaseIdle(): void {
    for (const [pages, addresses] of this.#idle) {
      for (const address of addresses) this.#memory.freePages(address, pages);
    }
    this.#idle.clear();
  }

  #find(pages: number): number | undefined {
    const idle = this.#idle.get(pages)?.pop();
    if (idle !== undefined) return idle;
    const fresh = this.#memory.allocatePages(pages);
    if (fresh !== undefined) return fresh;
    // Buffers of other sizes may lie idle.
    this.#releaseIdle();
    return this.#memory.allocatePages(pages);
  }

  #give(address: number, pages: number): void {
    // What a backend still reaches is the quarantine's until it does not, and nobody's buffer (case G13).
    if (this.#closed !== undefined || this.#memory.heldByOthers(address, pages * XEN_PAGE_SIZE))
      this.#memory.freePages(address, pages);
    else this.#keep(address, pages);
    this.#serveWaiting();
  }

  #keep(address: number, pages: number): void {
    const idle = this.#idle.get(pages);
    if (idle) idle.push(address);
    else this.#idle.set(pages, [address]);
  }

  #serveWaiting(): void {
    while (this.#waiting.length > 0) {
      const found = this.#find(this.#waiting[0].pages);
      if (found === undefined) return;
      this.#waiting.shift()!.resolve(found);
    }
  }
}
