// What the guest's IOMMU maps, as far as the monitor has told us: translations from the guest's I/O addresses to
// the monitor's own, each with a right (QEMU, docs/interop/vhost-user.rst, "IOMMU support").
// After transports/vhost-user/, before iotlb-memory.ts.

import { ProtocolViolation } from '../errors.ts';

/** Translations kept; the oldest makes room, and is asked for again when it is needed. */
const MOST_ENTRIES = 2048;
/** Misses that have been asked for and not been answered. */
const MOST_MISSES = 1024;
const PAGE = 4096;

/** A right, as bits: VHOST_ACCESS_RO, VHOST_ACCESS_WO or both. */
export type IotlbRight = number;

/** One translation. */
export interface Translation {
  /** The guest's I/O address of its first byte. */
  readonly iova: number;
  /** The same byte's address in the monitor. */
  readonly user: number;
  /** Bytes. */
  readonly size: number;
  readonly right: IotlbRight;
}

/** Told which translations there are, one by one. */
export interface IotlbWatcher {
  held(entry: Translation): void;
  dropped(entry: Translation): void;
}

/** The translations of one device. */
export class Iotlb {
  readonly #ask: (iova: number, right: IotlbRight) => void;
  readonly #watcher: IotlbWatcher | undefined;
  /** By their first byte. They do not overlap. */
  #entries: Translation[] = [];
  /** The same, the oldest first. */
  readonly #byAge = new Set<Translation>();
  /** The one that was found last: buffers lie beside each other. */
  #recent: Translation | undefined;
  /** Pages that have been asked for and not been answered, with the rights. */
  readonly #asked = new Map<number, IotlbRight>();
  /** Pages of which the monitor has answered that there is no translation, until somebody has learnt it. */
  readonly #refused = new Set<number>();

  /** @param ask asks the monitor for the translation of an address; the answer comes as `update`, or never */
  constructor(ask: (iova: number, right: IotlbRight) => void, watcher?: IotlbWatcher) {
    this.#ask = ask;
    this.#watcher = watcher;
  }

  get count(): number {
    return this.#entries.length;
  }

  /** Bytes that it maps. */
  get byteLength(): number {
    return this.#entries.reduce((sum, { size }) => sum + size, 0);
  }

  /** Takes a translation, in place of whatever it overlaps. Throws ProtocolViolation for one that cannot be. */
  update(entry: Translation): void {
    const { iova, user, size, right } = entry;
    if (size <= 0 || iova + size > Number.MAX_SAFE_INTEGER || user + size > Number.MAX_SAFE_INTEGER)
      throw new ProtocolViolation(
        'vhost-user IOTLB',
        `${size} bytes at 0x${iova.toString(16)}: empty, or past the end of the address space`,
      );
    if (right < 1 || right > 3)
      throw new ProtocolViolation('vhost-user IOTLB', `access ${right}, expected 1 to 3`);
    for (const page of this.#asked.keys()) if (overlaps(page, iova, size)) this.#asked.delete(page);
    this.invalidate(iova, size);
    if (this.#entries.length === MOST_ENTRIES) this.#forgetOldest();
    this.#entries.splice(this.#indexFrom(iova), 0, entry);
    this.#byAge.add(entry);
    this.#watcher?.held(entry);
  }

  /**
   * Forgets every translation that has a byte of [iova, iova + size). Of pages that were asked for the answer is still
   * to come: guests take away a power of two of pages, with others in use between them. Were they asked for once more,
   * the second answer would come when the guest has taken them away, and say that there is none to whoever has asked
   * then, for another page at the same address.
   */
  invalidate(iova: number, size: number): void {
    for (const page of this.#refused) if (overlaps(page, iova, size)) this.#refused.delete(page);
    let first = this.#indexFrom(iova);
    const before = this.#entries[first - 1];
    if (before !== undefined && before.iova + before.size > iova) first--;
    let end = first;
    while (end < this.#entries.length && this.#entries[end].iova < iova + size) end++;
    for (const gone of this.#entries.splice(first, end - first)) {
      this.#byAge.delete(gone);
      this.#watcher?.dropped(gone);
    }
    this.#recent = undefined;
  }

  /** The translation of the byte at `iova`. */
  at(iova: number): Translation | undefined {
    const recent = this.#recent;
    if (recent !== undefined && iova >= recent.iova && iova < recent.iova + recent.size) return recent;
    const entry = this.#entries[this.#indexFrom(iova + 1) - 1];
    if (entry === undefined || iova >= entry.iova + entry.size) return undefined;
    this.#recent = entry;
    return entry;
  }

  /** Index of the first translation that begins at `iova` or after it. */
  #indexFrom(iova: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle].iova < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #forgetOldest(): void {
    const [oldest] = this.#byAge;
    this.invalidate(oldest.iova, 1);
  }

  /**
   * Asks the monitor for the page of `iova`, unless that has been asked and not been answered: an answer that comes
   * when the guest has taken the page away again is a fault of ours in the eyes of its IOMMU.
   *
   * @returns false when it has been asked and there is none; the next time it is asked anew
   */
  miss(iova: number, right: IotlbRight): boolean {
    const page = pageOf(iova);
    if (this.#refused.delete(page)) return false;
    const asked = this.#asked.get(page) ?? 0;
    if ((asked & right) === right || (asked === 0 && this.#asked.size === MOST_MISSES)) return true;
    this.#asked.set(page, asked | right);
    this.#ask(page, right);
    return true;
  }

  /** The monitor answers that the page of `iova`, if it has been asked for that, has no translation. */
  refuse(iova: number): void {
    const page = pageOf(iova);
    if (this.#asked.delete(page)) this.#refused.add(page);
  }

  /** Nobody waits for answers any more: what the IOMMU never answers is asked anew. */
  forgetMisses(): void {
    this.#asked.clear();
    this.#refused.clear();
  }
}

/** Whether the page has a byte of [iova, iova + size). */
function overlaps(page: number, iova: number, size: number): boolean {
  return page + PAGE > iova && page < iova + size;
}

/** The first address of the page of `iova`. */
function pageOf(iova: number): number {
  return iova - (iova % PAGE);
}
