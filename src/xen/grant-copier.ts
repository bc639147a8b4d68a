// Port: the peer's other way to use grants: bytes are copied between what another domain granted and memory of this
// domain's own, many at once, and nothing is mapped. Parts of pages can be reached only so. Used by memory/, implemented
// in hosts/ (GNTTABOP_copy of the embedded Xen, IOCTL_GNTDEV_GRANT_COPY of /dev/xen/gntdev on a real host).

import type { Region } from '../abi/region.ts';
import type { DomainId } from './ids.ts';

/** What one call copies, element by element. A list is made once and reused. */
export class GrantCopies {
  count = 0;
  /** The owner's reference of each element, and the first byte in its page. */
  readonly refs: number[] = [];
  readonly offsets: number[] = [];
  /** Bytes; none go past the end of the granted page. */
  readonly lengths: number[] = [];
  /** The first byte in the copier's region. */
  readonly places: number[] = [];
  /** What became of each: GNTST_OKAY, or the negative status with which it was refused. */
  readonly statuses: number[] = [];

  clear(): void {
    this.count = 0;
  }

  add(ref: number, offset: number, length: number, place: number): void {
    this.refs[this.count] = ref;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.places[this.count] = place;
    this.count++;
  }
}

/** A domain's ability to copy from and to what others granted to it. */
export interface GrantCopier {
  /** Memory of this domain's own; copies end and begin in pages that were taken of it. */
  readonly region: Region;
  /** Takes `count` pages in a row, zeroed. Returns where in `region` they start, or -1 when there are none left. */
  takePages(count: number): number;
  /** Gives back what `takePages` returned. */
  givePages(offset: number, count: number): void;
  /**
   * Copies what `owner` granted into `region`, each element by itself: a refused one does not keep the others
   * from being copied.
   *
   * @returns GNTST_OKAY, or the status of the first element that was refused
   */
  copyIn(owner: DomainId, copies: GrantCopies): number;
  /** The other way round. What is granted for reading only is refused. */
  copyOut(owner: DomainId, copies: GrantCopies): number;
}
