// The memory of the guest in which drivers run: its bytes, where they stand in the guest's address space, and
// an allocator of whole pages.
//
// Frames are Xen's, of 4 KiB, and that is how pages are counted here. The guest's kernel may have longer ones (16
// or 64 KiB, on Arm): then it gives out whole pages of its own, but what it grants of them is still frames.
//
// A frame has a count of holders. The quarantine (grants.ts) holds those that a backend still maps, so that memory
// which its owner has freed is not used again before access to it has really ended.

import { assert } from '../errors.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { Region } from '../abi/region.ts';

/** The sizes that pages of a guest's kernel may have. Those above 4 KiB are Arm's. */
export const GUEST_PAGE_SIZES = [4096, 16384, 65536] as const;
export type GuestPageSize = (typeof GUEST_PAGE_SIZES)[number];

/** A page of zeroes to copy from: `set` wipes a page some eight times faster than `fill` on shared memory. */
const zeroPage = new Uint8Array(XEN_PAGE_SIZE);

/**
 * Guest memory. Addresses are guest-physical and frames are their page numbers; both may lie above 4 GiB, so
 * no 32-bit operator is used on an address but to take its lowest bits.
 */
export class GuestMemory {
  /** The bytes, indexed by `offset`. */
  region: Region;
  /** Guest-physical address of the first byte of `region`. */
  readonly base: number;
  /** Bytes of a page of the guest's kernel. */
  readonly pageSize: GuestPageSize;
  readonly #firstFrame: number;
  /** Frames in a page of the guest's kernel. */
  readonly #framesPerPage: number;
  /** How many hold each frame of `region`; 0 is free. */
  readonly #holders: Uint16Array;
  /** Frame at which the last search ended, so that the next goes on from there. */
  #next = 0;
  #pagesFree: number;

  /** @param base where the memory begins; a multiple of `pageSize` */
  constructor(region: Region, base = 0, pageSize: GuestPageSize = XEN_PAGE_SIZE) {
    assert(GUEST_PAGE_SIZES.includes(pageSize), 'a size that pages of a guest have', pageSize);
    assert(base % pageSize === 0, 'guest memory begins with a page', base);
    this.pageSize = pageSize;
    this.#framesPerPage = pageSize / XEN_PAGE_SIZE;
    this.region = region;
    this.base = base;
    this.#firstFrame = base / XEN_PAGE_SIZE;
    this.#holders = new Uint16Array(Math.floor(region.byteLength / XEN_PAGE_SIZE));
    this.#pagesFree = this.#holders.length;
  }

  /** Pages of 4 KiB that nobody holds. */
  get pagesFree(): number {
    return this.#pagesFree;
  }

  /** Goes on in the memory of another host, to which the bytes were carried; what is held stays held. */
  moveTo(other: GuestMemory): void {
    assert(other.base === this.base, 'the memory is where it was', other.base, this.base);
    const { byteLength } = other.region;
    assert(byteLength === this.region.byteLength, 'as much memory', byteLength, this.region.byteLength);
    this.region = other.region;
  }

  /** Where in `region` the `length` bytes at `address` are, which must be memory. */
  offset(address: number, length: number): number {
    const offset = address - this.base;
    assert(offset >= 0 && offset + length <= this.region.byteLength, 'no memory of the guest', address);
    return offset;
  }

  /** The `length` bytes at `address`. */
  bytes(address: number, length: number): Uint8Array {
    const offset = this.offset(address, length);
    return this.region.u8.subarray(offset, offset + length);
  }

  /** The address of what `bytes` has returned. */
  addressOf(bytes: Uint8Array): number {
    return this.base + bytes.byteOffset - this.region.byteOffset;
  }

  /** Copies `length` bytes from `source` to `target`; both are memory, which is not checked on this hot path. */
  copy(target: number, source: number, length: number): void {
    const from = source - this.base;
    this.region.u8.copyWithin(target - this.base, from, from + length);
  }

  /** Sets `length` bytes from `address` to zero; they are memory, which is not checked on this hot path. */
  wipe(address: number, length: number): void {
    const { u8 } = this.region;
    let at = address - this.base;
    const end = at + length;
    for (; at + XEN_PAGE_SIZE <= end; at += XEN_PAGE_SIZE) u8.set(zeroPage, at);
    if (at < end) u8.fill(0, at, end);
  }

  /**
   * Allocates `count` contiguous pages of 4 KiB, zeroed: as many whole pages of the kernel as hold them.
   *
   * @returns the address of the first, or undefined when no such run is free
   */
  allocatePages(count: number): number | undefined {
    assert(count > 0, 'an allocation has at least one page', count);
    const frames = this.#inWholePages(count);
    const first = this.#findRun(frames);
    if (first === undefined) return undefined;
    this.#next = first + frames;
    const address = this.base + first * XEN_PAGE_SIZE;
    this.hold(address / XEN_PAGE_SIZE, frames);
    this.wipe(address, frames * XEN_PAGE_SIZE);
    return address;
  }

  /** Gives back what `allocatePages(count)` returned; each frame becomes free when nobody else holds it. */
  freePages(address: number, count: number): void {
    this.release(address / XEN_PAGE_SIZE, this.#inWholePages(count));
  }

  /** Whether a frame of these bytes, which their owner holds, is held by someone else as well: the quarantine. */
  heldByOthers(address: number, length: number): boolean {
    const first = Math.floor(address / XEN_PAGE_SIZE) - this.#firstFrame;
    const last = Math.floor((address + length - 1) / XEN_PAGE_SIZE) - this.#firstFrame;
    for (let frame = first; frame <= last; frame++) if (this.#holders[frame] > 1) return true;
    return false;
  }

  /** Adds a holder to `count` frames from `frame`. */
  hold(frame: number, count: number): void {
    const first = frame - this.#firstFrame;
    for (let page = first; page < first + count; page++) {
      if (this.#holders[page]++ === 0) this.#pagesFree--;
    }
  }

  /** Takes a holder away from each frame; the last one makes it free. */
  release(frame: number, count: number): void {
    const first = frame - this.#firstFrame;
    for (let page = first; page < first + count; page++) {
      assert(this.#holders[page] > 0, 'a page is released as often as it is held', page);
      if (--this.#holders[page] === 0) this.#pagesFree++;
    }
  }

  #findRun(count: number): number | undefined {
    return this.#searchRun(count, this.#next) ?? this.#searchRun(count, 0);
  }

  /** Where `count` free frames begin with a page of the kernel. A page is not free while one of its frames is held. */
  #searchRun(count: number, from: number): number | undefined {
    let run = 0;
    for (let frame = from; frame < this.#holders.length; frame++) {
      const mayBegin = run > 0 || frame % this.#framesPerPage === 0;
      run = mayBegin && this.#holders[frame] === 0 ? run + 1 : 0;
      if (run === count) return frame - count + 1;
    }
    return undefined;
  }

  /** `count` frames, rounded up to whole pages of the kernel. */
  #inWholePages(count: number): number {
    return Math.ceil(count / this.#framesPerPage) * this.#framesPerPage;
  }
}
