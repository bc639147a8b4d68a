// Copies from and to granted pages through /dev/xen/gntdev, many with one call. Implements the port of
// xen/grant-copier.ts; its counterpart in the embedded Xen is hosts/model/domain-grant-copier.ts. After gntdev.ts.

import { GNTST_BAD_COPY_ARG, GNTST_OKAY } from '../../../abi/grant.ts';
import { type Region, regionOver } from '../../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { GuestMemory } from '../../../dma/guest-memory.ts';
import { assert } from '../../../errors.ts';
import type { GrantCopier, GrantCopies } from '../../../xen/grant-copier.ts';
import type { DomainId } from '../../../xen/ids.ts';
import { checked } from '../libc.ts';
import { MOST_COPIES } from './gntdev.ts';
import type { MapperParts } from './gntdev-mapper.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
/** Memory for copies: what is never used of it costs nothing. */
const LENGTH = 2 ** 26;

/** Copies between grants and memory of this process. */
export class GntdevCopier implements GrantCopier {
  readonly region: Region;
  readonly #parts: Omit<MapperParts, 'arena'>;
  readonly #pages: GuestMemory;
  /** The element that each copy of the call belongs to. */
  readonly #elements: number[] = [];

  /** Throws SystemError when there is no memory left. */
  constructor(parts: Omit<MapperParts, 'arena'>) {
    const { libc } = parts;
    this.#parts = parts;
    const address = libc.mmap(0, LENGTH, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    checked(libc, 'mmap', address, 'memory for copies of granted pages');
    this.region = regionOver(libc.view(address, LENGTH), 0, LENGTH, address);
    this.#pages = new GuestMemory(this.region);
  }

  takePages(count: number): number {
    return this.#pages.allocatePages(count) ?? -1;
  }

  givePages(offset: number, count: number): void {
    this.#pages.freePages(offset, count);
  }

  copyIn(owner: DomainId, copies: GrantCopies): number {
    return this.#copyAll(owner, copies, true);
  }

  copyOut(owner: DomainId, copies: GrantCopies): number {
    return this.#copyAll(owner, copies, false);
  }

  /** Gives the memory back: nothing of the region may be looked at any more. */
  close(): void {
    const { libc } = this.#parts;
    const { address, byteLength } = this.region;
    checked(libc, 'munmap', libc.munmap(address, byteLength), 'memory for copies of granted pages');
  }

  #copyAll(owner: DomainId, copies: GrantCopies, inward: boolean): number {
    let prepared = 0;
    for (let i = 0; i < copies.count; i++) {
      if (!this.#prepare(prepared, owner, copies, i, inward)) continue;
      this.#elements[prepared++] = i;
      if (prepared === MOST_COPIES) {
        this.#copy(prepared, copies);
        prepared = 0;
      }
    }
    if (prepared > 0) this.#copy(prepared, copies);
    return this.#firstRefusal(owner, copies);
  }

  /** Returns false for an element that is not to be asked for, which has its status then. */
  #prepare(at: number, owner: DomainId, copies: GrantCopies, i: number, inward: boolean): boolean {
    const [offset, length, place] = [copies.offsets[i], copies.lengths[i], copies.places[i]];
    assert(place >= 0 && place + length <= this.region.byteLength, 'a place for a copy', place);
    // The device would refuse the whole call for it.
    if (!(offset >= 0 && length >= 0 && offset + length <= XEN_PAGE_SIZE)) {
      copies.statuses[i] = GNTST_BAD_COPY_ARG;
      return false;
    }
    const address = this.region.address + place;
    this.#parts.gntdev.putCopy(at, inward, owner, copies.refs[i], offset, length, address);
    return true;
  }

  #copy(prepared: number, copies: GrantCopies): void {
    const { gntdev } = this.#parts;
    const failed = gntdev.copy(prepared);
    for (let at = 0; at < prepared; at++)
      copies.statuses[this.#elements[at]] = failed === GNTST_OKAY ? gntdev.copyStatus(at) : failed;
  }

  #firstRefusal(owner: DomainId, { refs, statuses, count }: GrantCopies): number {
    const { id, tracer } = this.#parts;
    let result: number = GNTST_OKAY;
    for (let i = 0; i < count; i++) {
      if (statuses[i] === GNTST_OKAY) continue;
      if (tracer.enabled) tracer.mapRefused(id, owner, refs[i], statuses[i]);
      if (result === GNTST_OKAY) result = statuses[i];
    }
    return result;
  }
}
