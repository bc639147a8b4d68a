// What DMA debugging knows of one device: its live mappings and allocations by address, a few that have ended,
// and the mappings that failed; and which mappings of a guest overlap. Used by dma-debug.ts.

import { isGrantAddress } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_TO_DEVICE } from '../trace.ts';

/** Of those that have ended or failed, the last so many are remembered, to tell where they were made. */
const REMEMBERED = 256;
const REFERENCE_HIGH_MASK = 0xfff;
const HIGH = 0x1_0000_0000;

/** What was called, in Linux's words: `map` or `allocate`; a register (DMA_ATTR_MMIO) is never mapped. */
type DebugKind = 'single' | 'coherent' | 'resource';

/** A live mapping or allocation. */
export interface DebugEntry {
  readonly kind: DebugKind;
  readonly low: number;
  readonly high: number;
  /** Guest-physical address. */
  readonly address: number;
  readonly size: number;
  readonly direction: number;
  /** Number of the stack of calls that made it. */
  readonly stack: number;
}

/** What a call says of the mapping that it is about. The direction of an allocation it does not say. */
export type DebugCall = Omit<DebugEntry, 'address' | 'stack'>;

/** One number for an address; a grant's never equals a plain one's. */
function keyOf({ low, high }: Pick<DebugEntry, 'low' | 'high'>): number {
  return isGrantAddress(high) ? -1 - (high & REFERENCE_HIGH_MASK) * HIGH - low : high * HIGH + low;
}

/** The entries of one device. */
export class DebugEntries {
  readonly #live = new Map<number, DebugEntry[]>();
  readonly #ended = new Map<number, DebugEntry>();
  readonly #failed: DebugEntry[] = [];

  add(entry: DebugEntry): void {
    const key = keyOf(entry);
    const others = this.#live.get(key);
    if (others === undefined) this.#live.set(key, [entry]);
    else others.push(entry);
  }

  /**
   * The entry at an address. Without grants a buffer that is mapped twice is twice at the same address: then
   * the one that fits in everything, or none.
   */
  find(call: DebugCall): DebugEntry | undefined {
    const entries = this.#live.get(keyOf(call));
    if (entries === undefined || entries.length === 1) return entries?.[0];
    return entries.find(
      ({ kind, size, direction }) =>
        kind === call.kind && size === call.size && (kind === 'coherent' || direction === call.direction),
    );
  }

  remove(entry: DebugEntry): void {
    const key = keyOf(entry);
    const entries = this.#live.get(key)!;
    if (entries.length === 1) this.#live.delete(key);
    else entries.splice(entries.indexOf(entry), 1);
    this.#ended.delete(key);
    this.#ended.set(key, entry);
    if (this.#ended.size > REMEMBERED) this.#ended.delete(this.#ended.keys().next().value!);
  }

  /** What was at an address last, if that is not long ago. */
  lastAt(call: DebugCall): DebugEntry | undefined {
    return this.#ended.get(keyOf(call));
  }

  /** Remembers a mapping that could not be made. */
  fail(entry: DebugEntry): void {
    this.#failed.push(entry);
    if (this.#failed.length > REMEMBERED) this.#failed.shift();
  }

  /** The last mapping of this size and direction that could not be made. */
  lastFailed({ size, direction }: DebugCall): DebugEntry | undefined {
    return this.#failed.findLast((entry) => entry.size === size && entry.direction === direction);
  }

  /** Takes out all that is live. */
  takeAll(): DebugEntry[] {
    const entries = [...this.#live.values()].flat();
    this.#live.clear();
    return entries;
  }
}

/** The live mappings of a guest by the pages they touch. */
export class Overlaps {
  readonly #byPage = new Map<number, DebugEntry[]>();

  add(entry: DebugEntry): void {
    for (let page = firstPage(entry); page <= lastPage(entry); page++) {
      const entries = this.#byPage.get(page);
      if (entries === undefined) this.#byPage.set(page, [entry]);
      else entries.push(entry);
    }
  }

  remove(entry: DebugEntry): void {
    for (let page = firstPage(entry); page <= lastPage(entry); page++) {
      const entries = this.#byPage.get(page);
      if (entries === undefined) continue;
      if (entries.length > 1) entries.splice(entries.indexOf(entry), 1);
      else this.#byPage.delete(page);
    }
  }

  /** A mapping with bytes of `entry`, one of which the device may write through either; undefined: none. */
  conflictOf(entry: DebugEntry): DebugEntry | undefined {
    for (let page = firstPage(entry); page <= lastPage(entry); page++) {
      const other = this.#byPage.get(page)?.find((each) => conflicts(each, entry));
      if (other !== undefined) return other;
    }
    return undefined;
  }

  clear(): void {
    this.#byPage.clear();
  }
}

function firstPage({ address }: DebugEntry): number {
  return Math.floor(address / XEN_PAGE_SIZE);
}

function lastPage({ address, size }: DebugEntry): number {
  return Math.floor((address + size - 1) / XEN_PAGE_SIZE);
}

function conflicts(one: DebugEntry, two: DebugEntry): boolean {
  if (one.direction === DMA_TO_DEVICE && two.direction === DMA_TO_DEVICE) return false;
  return one.address < two.address + two.size && two.address < one.address + one.size;
}
