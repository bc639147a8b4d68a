// The buffers of one request on its way into a queue; made once and refilled.

import { pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';

/** Guest-physical buffers in the order of the chain: those the device reads, then those it writes. */
export class BufferList {
  count = 0;
  /** How many of them the device only reads. */
  readable = 0;
  /** Bytes the device may write. */
  writableBytes = 0;
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];

  clear(): this {
    this.count = 0;
    this.readable = 0;
    this.writableBytes = 0;
    return this;
  }

  /** Adds a buffer that the device reads; all of them come before the first writable one (§2.7.4.2). */
  addReadable(address: number, length: number): this {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.readable++;
    return this;
  }

  /** Adds a buffer that the device writes. */
  addWritable(address: number, length: number): this {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.writableBytes += length;
    return this;
  }

  /**
   * Cuts buffer `index` in two, at the page boundary nearest to its middle.
   *
   * @returns false when it lies in one page: no cut would make it need fewer references in a row
   */
  split(index: number): boolean {
    const address = this.addresses[index];
    const length = this.lengths[index];
    const offset = address & (XEN_PAGE_SIZE - 1);
    const pages = pagesTouched(offset, length);
    if (pages === 1) return false;
    const first = Math.ceil(pages / 2) * XEN_PAGE_SIZE - offset;
    // What an earlier request has left beyond the end would be pushed on and on.
    this.addresses.length = this.lengths.length = this.count;
    this.addresses.splice(index, 1, address, address + first);
    this.lengths.splice(index, 1, first, length - first);
    this.count++;
    if (index < this.readable) this.readable++;
    return true;
  }
}
