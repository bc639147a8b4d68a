// Port: the peer's side of grants: mapping pages that another domain has granted, all pages of a request at once. Used by
// memory/, implemented in hosts/ (hypercalls of the embedded Xen, /dev/xen/gntdev on a real host).

import type { Region } from '../abi/region.ts';
import type { DomainId } from './ids.ts';

/** Pages that are mapped together, and let go together. A list is made once and reused. */
export class GrantPages {
  count = 0;
  /** The owner's references. The same one may come more than once. */
  readonly refs: number[] = [];
  /** What each is mapped by, while the list is mapped: small numbers from 0. */
  readonly handles: number[] = [];

  clear(): void {
    this.count = 0;
  }

  add(ref: number): void {
    this.refs[this.count++] = ref;
  }
}

/** A domain's ability to map what others granted to it. */
export interface GrantMapper {
  /**
   * Maps all pages of a list, for reading only or for writing, too.
   *
   * @returns GNTST_OKAY, or the negative status of the first reference that is refused: nothing of the list is mapped
   *   then
   */
  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number;
  /**
   * Ends the mappings of a list: of all that `mapPages` has mapped with it.
   *
   * @returns GNTST_OKAY, or GNTST_BAD_HANDLE when it was not mapped, or not all of it
   */
  unmapPages(pages: GrantPages): number;
  /** The memory in which a live mapping's page lies. */
  region(handle: number): Region;
  /** Where in that memory the page starts. */
  offset(handle: number): number;
}
