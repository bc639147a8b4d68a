// What one device may reach of its guest's memory, as events: the pages that the guest's IOMMU maps for it, each as a
// grant by its I/O address that is mapped for as long as it is there; or all of the memory where there is no IOMMU.
// After traced-rings.ts, before trace.ts.

import { MAX_EVENT_PAGES } from '../audit/events.ts';
import type { Translation } from '../memory/iotlb.ts';
import type { MemoryRegion } from '../memory/region-table.ts';
import type { Tracer } from '../trace.ts';
import { HOST } from './traced-numbers.ts';

const PAGE = 4096;
/** VHOST_ACCESS_WO. */
const WRITE = 2;
/** A translation of more pages is told of as a range, and so is what a device has beyond so many. */
const MOST_PAGES_OF_ONE = 512;
const MOST_PAGES = 65_536;

/** Numbers that name mappings of this process, all different. */
export class Handles {
  #next = 0;

  take(): number {
    return this.#next++;
  }
}

/** A page of the guest's I/O addresses that was given to the backend. */
interface Page {
  readonly frame: number;
  readonly readonly: boolean;
  readonly handle: number;
  /** Translations that have a byte of it. */
  holders: number;
}

/** Frames in a row. */
interface Frames {
  readonly frame: number;
  readonly count: number;
}

/** Guest memory in a row, as the device and as the guest sees it. */
interface Piece {
  readonly iova: number;
  readonly guest: number;
  readonly size: number;
}

/** Follows one device. What is over is reported by `settle`, when the backend has let go of it. */
export class DeviceReach {
  readonly #tracer: Tracer;
  readonly #handles: Handles;
  /** The guest. */
  readonly #domain: number;
  #regions: readonly MemoryRegion[] = [];
  #translated = false;
  readonly #held = new Set<Translation>();
  readonly #pages = new Map<number, Page>();
  /** Translations that were reported as ranges. */
  readonly #ranges = new Map<Translation, readonly Frames[]>();
  /** All memory, where no IOMMU restricts the backend. */
  #everything: readonly Frames[] = [];
  /** What is over and has not been reported. */
  readonly #leavingPages: number[] = [];
  readonly #leavingRanges: Frames[] = [];

  /** @param domain the guest, by its number in the trace */
  constructor(tracer: Tracer, handles: Handles, domain: number) {
    this.#tracer = tracer;
    this.#handles = handles;
    this.#domain = domain;
  }

  /** The guest's memory from now on; the backend reaches all of it unless its addresses are `translated`. */
  setMemory(regions: readonly MemoryRegion[], translated: boolean): void {
    for (const entry of this.#held) this.#take(entry);
    this.#leavingRanges.push(...this.#everything);
    this.#regions = regions;
    this.#translated = translated;
    this.#everything = translated ? [] : regions.flatMap(({ guest, size }) => framesOf(guest, size));
    for (const range of this.#everything) this.#reach(range);
    for (const entry of this.#held) this.#give(entry);
  }

  /** The backend is about to learn of a translation. */
  held(entry: Translation): void {
    this.#held.add(entry);
    this.#give(entry);
  }

  /** It is about to forget one. */
  dropped(entry: Translation): void {
    this.#held.delete(entry);
    this.#take(entry);
  }

  /** What was to go has gone. */
  settle(): void {
    for (const number of this.#leavingPages.splice(0)) {
      const page = this.#pages.get(number);
      if (page?.holders === 0) this.#end(number, page);
    }
    for (const { frame, count } of this.#leavingRanges.splice(0))
      this.#tracer.reachEnd(HOST, this.#domain, frame, count);
  }

  #give(entry: Translation): void {
    if (!this.#translated) return;
    const pieces = this.#piecesOf(entry);
    const pages = pieces.reduce((sum, { size }) => sum + size / PAGE, 0);
    if (pages > MOST_PAGES_OF_ONE || this.#pages.size + pages > MOST_PAGES) {
      const ranges = pieces.flatMap(({ guest, size }) => framesOf(guest, size));
      this.#ranges.set(entry, ranges);
      for (const range of ranges) this.#reach(range);
      return;
    }
    const readonly = (entry.right & WRITE) === 0;
    for (const { iova, guest, size } of pieces) {
      const ahead = pageOf(guest) - pageOf(iova);
      for (const page of pagesOf(iova, size)) this.#givePage(page, page + ahead, readonly);
    }
  }

  #take(entry: Translation): void {
    if (!this.#translated) return;
    const ranges = this.#ranges.get(entry);
    if (ranges !== undefined) {
      this.#ranges.delete(entry);
      this.#leavingRanges.push(...ranges);
      return;
    }
    for (const { iova, size } of this.#piecesOf(entry))
      for (const page of pagesOf(iova, size)) this.#takePage(page);
  }

  /** A page that is given again as it was goes on: frontends answer each worker's question. */
  #givePage(number: number, frame: number, readonly: boolean): void {
    const page = this.#pages.get(number);
    if (page?.frame === frame && page.readonly === readonly) {
      page.holders++;
      return;
    }
    if (page !== undefined) this.#end(number, page);
    const handle = this.#handles.take();
    this.#pages.set(number, { frame, readonly, handle, holders: (page?.holders ?? 0) + 1 });
    this.#tracer.grant(this.#domain, HOST, number, frame, 1, readonly);
    this.#tracer.map(HOST, this.#domain, number, handle, readonly);
  }

  #takePage(number: number): void {
    const page = this.#pages.get(number);
    if (page !== undefined && --page.holders === 0) this.#leavingPages.push(number);
  }

  #end(number: number, { handle }: Page): void {
    this.#pages.delete(number);
    this.#tracer.unmap(HOST, this.#domain, number, handle);
    this.#tracer.revoke(this.#domain, number, 1);
  }

  #reach({ frame, count }: Frames): void {
    this.#tracer.reach(HOST, this.#domain, frame, count);
  }

  /** The guest's memory behind a translation; what is behind none of its regions cannot be reached. */
  #piecesOf({ iova, user, size }: Translation): Piece[] {
    return this.#regions.flatMap((region) => {
      const start = Math.max(user, region.user);
      const end = Math.min(user + size, region.user + region.size);
      if (start >= end) return [];
      const guest = region.guest + (start - region.user);
      return [{ iova: iova + (start - user), guest, size: end - start }];
    });
  }
}

function pageOf(address: number): number {
  return Math.floor(address / PAGE);
}

/** Every page that has a byte of [address, address + size). */
function* pagesOf(address: number, size: number): Generator<number> {
  const last = pageOf(address + size - 1);
  for (let page = pageOf(address); page <= last; page++) yield page;
}

/** The frames that hold `size` bytes from `guest` on, in as many runs as events take. */
function framesOf(guest: number, size: number): Frames[] {
  const first = pageOf(guest);
  const count = pageOf(guest + size - 1) - first + 1;
  const runs: Frames[] = [];
  for (let done = 0; done < count; done += MAX_EVENT_PAGES)
    runs.push({ frame: first + done, count: Math.min(MAX_EVENT_PAGES, count - done) });
  return runs;
}
