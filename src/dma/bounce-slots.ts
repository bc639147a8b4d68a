// The part of the bounce pool for short buffers: slots of 128, 512 or 2048 bytes in pages private to the
// device. A page is granted when its first slot is taken and revoked when its last one is given back, and
// holds slots of one direction only, so that what the device may only read is granted read-only.
// Used by bounce-sharing.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { mappingShape, NOT_MAPPED } from './dma.ts';
import type { Grants } from './grants.ts';

/** Longest buffer that takes a slot rather than pages of its own. */
export const MAX_SLOT_SIZE = 2048;

/** A page cut into slots. */
interface SlotPage {
  readonly frame: number;
  readonly slotShift: number;
  readonly readonly: boolean;
  /** The list of pages of its kind that have a free slot. */
  readonly open: SlotPage[];
  /** A set bit is a free slot. */
  free: number;
  readonly allFree: number;
  /** Its reference while it is granted. */
  ref: number;
  /** The caller's buffer behind each slot in use. */
  readonly origins: Float64Array;
  /** How it was mapped; 0 where the slot is free. */
  readonly shapes: Float64Array;
}

/** Sizes of slots as powers of two, smallest first. */
const SLOT_SHIFTS = [7, 9, 11];

function sizeClass(size: number): number {
  return size <= 128 ? 0 : size <= 512 ? 1 : 2;
}

export class BounceSlots {
  readonly #grants: Grants;
  readonly #device: number;
  readonly #takePages: (count: number) => number | undefined;
  /** Pages with a free slot, by size class: those that the device may write, those that it only reads. */
  readonly #writable: SlotPage[][] = [[], [], []];
  readonly #readonly: SlotPage[][] = [[], [], []];
  /** The page behind each granted reference. */
  readonly #byRef: (SlotPage | undefined)[] = [];

  /** @param takePages allocates contiguous zeroed pages: the address of the first, or undefined */
  constructor(grants: Grants, device: number, takePages: (count: number) => number | undefined) {
    this.#grants = grants;
    this.#device = device;
    this.#takePages = takePages;
  }

  /**
   * Copies the buffer into a slot as `direction` asks and sees that the slot's page is granted.
   *
   * @returns reference * 4096 + offset of the slot, or -1 when pages or references are exhausted
   */
  share(address: number, size: number, direction: number, copies: boolean): number {
    const page = this.#pageWithSlot(sizeClass(size), direction === DMA_TO_DEVICE);
    if (page === undefined) return -1;
    const slot = 31 - Math.clz32(page.free & -page.free);
    const place = page.frame * XEN_PAGE_SIZE + (slot << page.slotShift);
    const { memory } = this.#grants.domain;
    if (copies && direction !== DMA_FROM_DEVICE) memory.copy(place, address, size);
    // The device may have written into the free slot, beside the ones it was given.
    else if (page.ref >= 0) memory.wipe(place, size);
    if (page.ref < 0 && !this.#grant(page)) {
      memory.wipe(place, size);
      return -1;
    }
    page.free &= ~(1 << slot);
    if (page.free === 0) page.open.pop();
    page.origins[slot] = address;
    page.shapes[slot] = mappingShape(slot << page.slotShift, size, direction);
    return page.ref * XEN_PAGE_SIZE + (slot << page.slotShift);
  }

  /** Copies what the device wrote to the caller's buffer and gives the slot back, wiped. */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): void {
    const page = this.#pageOf(ref, offset, size, direction);
    const slot = offset >>> page.slotShift;
    page.shapes[slot] = 0;
    const place = page.frame * XEN_PAGE_SIZE + offset;
    const { memory } = this.#grants.domain;
    if (copies && direction !== DMA_TO_DEVICE) memory.copy(page.origins[slot], place, size);
    memory.wipe(place, size);
    if (page.free === 0) page.open.push(page);
    page.free |= 1 << slot;
    if (page.free === page.allFree) this.#revoke(page);
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    const page = this.#pageOf(ref, offset, size, direction);
    const place = page.frame * XEN_PAGE_SIZE + offset;
    const origin = page.origins[offset >>> page.slotShift];
    if (direction !== DMA_TO_DEVICE) this.#grants.domain.memory.copy(origin + at, place + at, length);
  }

  syncForDevice(
    ref: number,
    offset: number,
    size: number,
    direction: number,
    at: number,
    length: number,
  ): void {
    const page = this.#pageOf(ref, offset, size, direction);
    const place = page.frame * XEN_PAGE_SIZE + offset;
    const origin = page.origins[offset >>> page.slotShift];
    if (direction !== DMA_FROM_DEVICE) this.#grants.domain.memory.copy(place + at, origin + at, length);
  }

  /** Gives the idle pages back to the guest. Returns whether there were any. */
  releaseIdle(): boolean {
    let any = false;
    for (const open of [...this.#writable, ...this.#readonly]) {
      for (const page of open.filter(({ free, allFree }) => free === allFree)) {
        open.splice(open.indexOf(page), 1);
        this.#abandon(page);
        any = true;
      }
    }
    return any;
  }

  /** The page of a buffer that is mapped so. */
  #pageOf(ref: number, offset: number, size: number, direction: number): SlotPage {
    const page = this.#byRef[ref];
    const isMapped =
      page !== undefined && page.shapes[offset >>> page.slotShift] === mappingShape(offset, size, direction);
    assert(isMapped, NOT_MAPPED, size);
    return page;
  }

  #pageWithSlot(sizeClass: number, readonly: boolean): SlotPage | undefined {
    const open = (readonly ? this.#readonly : this.#writable)[sizeClass];
    if (open.length === 0) {
      const page = this.#newPage(SLOT_SHIFTS[sizeClass], readonly, open);
      if (page === undefined) return undefined;
      open.push(page);
    }
    return open[open.length - 1];
  }

  #newPage(slotShift: number, readonly: boolean, open: SlotPage[]): SlotPage | undefined {
    const { tracer, id } = this.#grants.domain;
    const address = this.#takePages(1);
    if (address === undefined) return undefined;
    const frame = address / XEN_PAGE_SIZE;
    if (tracer.enabled) tracer.privatePages(id, this.#device, frame, 1);
    const slots = XEN_PAGE_SIZE >>> slotShift;
    const allFree = slots === 32 ? -1 : (1 << slots) - 1;
    const [origins, shapes] = [new Float64Array(slots), new Float64Array(slots)];
    return { frame, slotShift, readonly, open, free: allFree, allFree, ref: -1, origins, shapes };
  }

  #grant(page: SlotPage): boolean {
    page.ref = this.#grants.share(page.frame, 1, page.readonly);
    if (page.ref >= 0) this.#byRef[page.ref] = page;
    return page.ref >= 0;
  }

  #revoke(page: SlotPage): void {
    this.#byRef[page.ref] = undefined;
    const released = this.#grants.unshare(page.ref, 1);
    page.ref = -1;
    if (released) {
      // What the device wrote beside the slots must not be there when the page is granted again.
      if (!page.readonly) this.#grants.domain.memory.wipe(page.frame * XEN_PAGE_SIZE, XEN_PAGE_SIZE);
      return;
    }
    page.open.splice(page.open.indexOf(page), 1);
    this.#abandon(page);
  }

  /** Lets go of a page; while the backend still maps it, it stays in quarantine. */
  #abandon(page: SlotPage): void {
    const { memory, tracer, id } = this.#grants.domain;
    if (tracer.enabled) tracer.privatePagesEnd(id, page.frame, 1);
    memory.freePages(page.frame * XEN_PAGE_SIZE, 1);
  }
}
