// Pages of this process granted to other domains through /dev/xen/gntalloc (Linux, drivers/xen/gntalloc.c): what a
// frontend in a program needs, and what lets one domain be both sides of a test. Whole pages only.

import {
  GNTALLOC_FLAG_WRITABLE,
  IOCTL_GNTALLOC_ALLOC_GREF,
  IOCTL_GNTALLOC_DEALLOC_GREF,
  ioctlGntallocAllocGref,
  ioctlGntallocDeallocGref,
} from '../../../abi/gntdev.ts';
import { type Region, regionOver } from '../../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainId, GrantRef } from '../../../xen/ids.ts';
import type { Arena, Scratch } from '../arena.ts';
import { checked, type Libc } from '../libc.ts';
import { openXenDevice } from './device-files.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** A page that a peer can reach. */
export interface GrantedPage {
  readonly ref: GrantRef;
  readonly region: Region;
  /** Ends the grant and gives the page back. Where the peer still maps it, Linux does both when it does no longer. */
  revoke(): void;
}

/** The device, opened once. */
export class Gntalloc {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #argument: Scratch;

  /** Throws XenUnavailable. */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#argument = arena.take(ioctlGntallocAllocGref.size);
    this.#fd = openXenDevice(libc, '/dev/xen/gntalloc');
  }

  /** Grants a fresh page of zeroes to `peer`. Throws SystemError when the domain has no references or pages left. */
  grant(peer: DomainId, readonly: boolean): GrantedPage {
    const argument = ioctlGntallocAllocGref.over(this.#argument.u8);
    argument.domid = peer;
    argument.flags = readonly ? 0 : GNTALLOC_FLAG_WRITABLE;
    argument.count = 1;
    this.#call(IOCTL_GNTALLOC_ALLOC_GREF, 'a page to grant');
    const { index, gref_ids } = argument;
    const address = this.#libc.mmap(0, XEN_PAGE_SIZE, PROT_READ_WRITE, MAP_SHARED, this.#fd, index);
    if (address < 0) this.#forget(index);
    checked(this.#libc, 'mmap', address, 'a page to grant');
    const revoke = () => {
      this.#libc.munmap(address, XEN_PAGE_SIZE);
      this.#forget(index);
    };
    const region = regionOver(this.#libc.view(address, XEN_PAGE_SIZE), 0, XEN_PAGE_SIZE, address);
    return { ref: gref_ids as GrantRef, region, revoke };
  }

  close(): void {
    this.#libc.close(this.#fd);
  }

  #forget(index: number): void {
    const argument = ioctlGntallocDeallocGref.over(this.#argument.u8);
    argument.index = index;
    argument.count = 1;
    this.#call(IOCTL_GNTALLOC_DEALLOC_GREF, 'a page that was granted');
  }

  #call(request: number, about: string): void {
    checked(this.#libc, 'ioctl', this.#libc.ioctl(this.#fd, request, this.#argument.address), about);
  }
}
