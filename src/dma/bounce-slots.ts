// The part of the bounce pool for short buffers: slots of 128, 512 or 2048 bytes in pages of the pool. A page
// is taken from the pool for its first slot and given back with its last one, and has slots of one
// direction only, so that what the device may only read is granted read-only.
// Used by bounce-sharing.ts, before bounce-pages.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { BouncePages, BounceRun } from './bounce-pages.ts';
import { mappingShape, NOT_MAPPED } from './dma.ts';
import type { PageSharing } from './page-sharing.ts';

/** Longest buffer that takes a slot rather than pages of its own. */
export const MAX_SLOT_SIZE = 2048;

/** A page cut into slots. */
interface SlotPage {
  run: BounceRun;
  readonly slotShift: number;
  /** The list of pages of its kind that have a free slot and one in use. */
  open: SlotPage[];
  /** A set bit is a free slot. */
  free: number;
  readonly allFree: number;
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

function newSlotPage(run: BounceRun, slotShift: number, open: SlotPage[]): SlotPage {
  const slots = XEN_PAGE_SIZE >>> slotShift;
  const allFree = slots === 32 ? -1 : (1 << slots) - 1;
  const [origins, shapes] = [new Float64Array(slots), new Float64Array(slots)];
  return { run, slotShift, open, free: allFree, allFree, origins, shapes };
}

export class BounceSlots {
  readonly #grants: PageSharing;
  readonly #pages: BouncePages;
  /** Pages with a free slot, by size class: those that the device may write, those that it only reads. */
  readonly #writable: SlotPage[][] = [[], [], []];
  readonly #readonly: SlotPage[][] = [[], [], []];
  /** Books of pages that went back to the pool, by size class, for the next ones. */
  readonly #spare: SlotPage[][] = [[], [], []];
  /** The page behind each reference. */
  readonly #byRef: (SlotPage | undefined)[] = [];

  constructor(grants: PageSharing, pages: BouncePages) {
    this.#grants = grants;
    this.#pages = pages;
  }

  /**
   * Puts the buffer into a slot as `direction` asks.
   *
   * @returns reference * 4096 + offset of the slot, or -1 when pages or references are exhausted
   */
  share(address: number, size: number, direction: number, copies: boolean): number {
    const page = this.#pageWithSlot(sizeClass(size), direction === DMA_TO_DEVICE);
    if (page === undefined) return -1;
    const slot = 31 - Math.clz32(page.free & -page.free);
    const offset = slot << page.slotShift;
    this.#pages.fill(page.run, offset, address, size, direction, copies);
    page.free &= ~(1 << slot);
    if (page.free === 0) page.open.pop();
    page.origins[slot] = address;
    page.shapes[slot] = mappingShape(offset, size, direction);
    return page.run.ref * XEN_PAGE_SIZE + offset;
  }

  /** Copies what the device wrote to the caller's buffer and gives the slot back. */
  unshare(ref: number, offset: number, size: number, direction: number, copies: boolean): void {
    const page = this.#pageOf(ref, offset, size, direction);
    const slot = offset >>> page.slotShift;
    page.shapes[slot] = 0;
    this.#pages.collect(page.run, offset, page.origins[slot], size, direction, copies);
    if (page.free === 0) page.open.push(page);
    page.free |= 1 << slot;
    if (page.free === page.allFree) this.#giveBack(page, sizeClass(size));
  }

  syncForCpu(ref: number, offset: number, size: number, direction: number, at: number, length: number): void {
    const page = this.#pageOf(ref, offset, size, direction);
    const place = page.run.frame * XEN_PAGE_SIZE + offset;
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
    const place = page.run.frame * XEN_PAGE_SIZE + offset;
    const origin = page.origins[offset >>> page.slotShift];
    if (direction !== DMA_FROM_DEVICE) this.#grants.domain.memory.copy(place + at, origin + at, length);
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
    if (open.length > 0) return open[open.length - 1];
    const run = this.#pages.take(1, readonly);
    if (run === undefined) return undefined;
    const page = this.#spare[sizeClass].pop() ?? newSlotPage(run, SLOT_SHIFTS[sizeClass], open);
    page.run = run;
    page.open = open;
    this.#byRef[run.ref] = page;
    open.push(page);
    return page;
  }

  #giveBack(page: SlotPage, sizeClass: number): void {
    const { run, open } = page;
    open.splice(open.lastIndexOf(page), 1);
    this.#byRef[run.ref] = undefined;
    this.#spare[sizeClass].push(page);
    this.#pages.put(run);
  }
}
