// The memory of the guest in which drivers run: its bytes, and an allocator of whole pages.
//
// A page has a count of holders. The quarantine (quarantine.ts) holds the pages that a backend still
// maps, so that a page its owner has freed is not used again before access to it has really ended.

import { assert } from '../errors.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { Region } from '../abi/region.ts';

/** A page of zeroes to copy from: `set` wipes a page some eight times faster than `fill` on shared memory. */
const zeroPage = new Uint8Array(XEN_PAGE_SIZE);

/** Sets `length` bytes from `offset` to zero. */
export function wipe(region: Region, offset: number, length: number): void {
  const end = offset + length;
  let at = offset;
  for (; at + XEN_PAGE_SIZE <= end; at += XEN_PAGE_SIZE) region.u8.set(zeroPage, at);
  region.u8.fill(0, at, end);
}

/** Guest memory. Addresses are guest-physical, which here are byte offsets into `region`. */
export class GuestMemory {
  readonly region: Region;
  /** First frame that the allocator may hand out; those below belong to the guest's platform. */
  readonly firstFrame: number;
  /** How many hold each page; 0 is free. */
  readonly #holders: Uint16Array;
  /** Where the last search ended, so that the next goes on from there. */
  #next: number;
  #pagesFree: number;

  /** @param reserved bytes at the start of `region` that are never handed out */
  constructor(region: Region, reserved = 0) {
    this.region = region;
    this.firstFrame = Math.ceil(reserved / XEN_PAGE_SIZE);
    this.#holders = new Uint16Array(Math.floor(region.byteLength / XEN_PAGE_SIZE));
    this.#next = this.firstFrame;
    this.#pagesFree = this.#holders.length - this.firstFrame;
  }

  /** Pages that nobody holds. */
  get pagesFree(): number {
    return this.#pagesFree;
  }

  /**
   * Allocates `count` contiguous pages, zeroed.
   *
   * @returns the address of the first, or undefined when no such run is free
   */
  allocatePages(count: number): number | undefined {
    assert(count > 0, 'an allocation has at least one page');
    const frame = this.#findRun(count);
    if (frame === undefined) return undefined;
    this.hold(frame, count);
    this.#next = frame + count;
    wipe(this.region, frame * XEN_PAGE_SIZE, count * XEN_PAGE_SIZE);
    return frame * XEN_PAGE_SIZE;
  }

  /** Gives back pages from `allocatePages`; each becomes free when nobody else holds it. */
  freePages(address: number, count: number): void {
    this.release(address / XEN_PAGE_SIZE, count);
  }

  /** Adds a holder to `count` pages from `frame`. */
  hold(frame: number, count: number): void {
    for (let page = frame; page < frame + count; page++) {
      if (this.#holders[page]++ === 0) this.#pagesFree--;
    }
  }

  /** Takes a holder away from each page; the last one makes it free. */
  release(frame: number, count: number): void {
    for (let page = frame; page < frame + count; page++) {
      assert(this.#holders[page] > 0, 'a page is released as often as it is held', page);
      if (--this.#holders[page] === 0) this.#pagesFree++;
    }
  }

  #findRun(count: number): number | undefined {
    return this.#searchRun(count, this.#next) ?? this.#searchRun(count, this.firstFrame);
  }

  #searchRun(count: number, from: number): number | undefined {
    let run = 0;
    for (let page = from; page < this.#holders.length; page++) {
      run = this.#holders[page] === 0 ? run + 1 : 0;
      if (run === count) return page - count + 1;
    }
    return undefined;
  }
}
