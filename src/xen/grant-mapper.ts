// Port: the peer's side of grants: mapping pages that another domain has granted. Used by memory/,
// implemented in hosts/ (a hypercall of the embedded Xen, /dev/xen/gntdev on a real host).

import type { Region } from '../abi/region.ts';
import type { DomainId } from './ids.ts';

/** A domain's ability to map what others granted to it. Handles are small numbers from 0. */
export interface GrantMapper {
  /**
   * Maps the page behind one reference.
   *
   * @returns a handle (0 and up), or a negative GNTST status, and then nothing is mapped
   */
  map(owner: DomainId, ref: number, readonly: boolean): number;
  /** Ends a mapping. Returns GNTST_OKAY or a negative status. */
  unmap(handle: number): number;
  /** The memory in which a live mapping's page lies. */
  region(handle: number): Region;
  /** Where in that memory the page starts. */
  offset(handle: number): number;
}
