// The calls of /dev/xen/gntdev (Linux, drivers/xen/gntdev.c), one for each thing that it does. Before
// gntdev-mapper.ts and gntdev-copier.ts.

import { constants } from 'node:os';
import {
  IOCTL_GNTDEV_GRANT_COPY,
  IOCTL_GNTDEV_MAP_GRANT_REF,
  IOCTL_GNTDEV_UNMAP_GRANT_REF,
  gntdevCopyIn,
  gntdevCopyOut,
  ioctlGntdevGrantCopy,
  ioctlGntdevGrantRef,
  ioctlGntdevMapGrantRef,
  ioctlGntdevUnmapGrantRef,
} from '../../../abi/gntdev.ts';
import { GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import { GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { Arena, Scratch } from '../arena.ts';
import type { Libc } from '../libc.ts';
import { openXenDevice } from './device-files.ts';

/** Copies that one call makes at most. */
export const MOST_COPIES = 256;
/** Pages that one call names at most. The device takes 65536, if nobody has given it another `limit`. */
export const MOST_PAGES = 512;
/** Where the pages of a call are in its argument. */
const FIRST_PAGE = ioctlGntdevMapGrantRef.offsetOf('domid');

/** What the device answers when it has no memory is the only errno that has a status of its own. */
export function statusOfErrno(errno: number): number {
  return errno === constants.errno.ENOMEM ? GNTST_NO_SPACE : GNTST_GENERAL_ERROR;
}

/** The device, opened once. */
export class Gntdev {
  readonly fd: number;
  readonly #libc: Libc;
  readonly #argument: Scratch;
  readonly #segments: Scratch;
  readonly #map: ReturnType<typeof ioctlGntdevMapGrantRef.over>;
  readonly #page: ReturnType<typeof ioctlGntdevGrantRef.over>;
  readonly #unmap: ReturnType<typeof ioctlGntdevUnmapGrantRef.over>;
  readonly #copy: ReturnType<typeof ioctlGntdevGrantCopy.over>;
  readonly #in: ReturnType<typeof gntdevCopyIn.over>;
  readonly #out: ReturnType<typeof gntdevCopyOut.over>;
  #kept = 0;

  /** Throws XenUnavailable. */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#argument = arena.take(FIRST_PAGE + MOST_PAGES * ioctlGntdevGrantRef.size);
    this.#segments = arena.take(MOST_COPIES * gntdevCopyIn.size);
    this.#map = ioctlGntdevMapGrantRef.over(this.#argument.u8);
    this.#page = ioctlGntdevGrantRef.over(this.#argument.u8);
    this.#unmap = ioctlGntdevUnmapGrantRef.over(this.#argument.u8);
    this.#copy = ioctlGntdevGrantCopy.over(this.#argument.u8);
    this.#in = gntdevCopyIn.over(this.#segments.u8);
    this.#out = gntdevCopyOut.over(this.#segments.u8);
    this.fd = openXenDevice(libc, '/dev/xen/gntdev');
  }

  /**
   * Names granted pages: `count` of `refs`, from number `first` on. Nothing is mapped yet: that is what mmap of all of
   * them does, and where references are refused.
   *
   * @returns the offset for mmap, or the negative GNTST status with which all of them are refused
   */
  announce(owner: DomainId, refs: readonly number[], first: number, count: number): number {
    this.#map.count = count;
    this.#map.pad = 0;
    this.#map.index = 0;
    for (let i = 0; i < count; i++) {
      const page = this.#page.at(FIRST_PAGE + i * ioctlGntdevGrantRef.size);
      page.domid = owner;
      page.ref = refs[first + i];
    }
    return this.#call(IOCTL_GNTDEV_MAP_GRANT_REF) ?? this.#map.index;
  }

  /**
   * Takes back what `announce` has returned for `count` pages, when they are not mapped (any more). A device that refuses
   * keeps a record of its own, which is counted and ends with the process; the pages are not mapped all the same (case
   * T18).
   */
  withdraw(index: number, count: number): void {
    this.#unmap.index = index;
    this.#unmap.count = count;
    this.#unmap.pad = 0;
    if (this.#call(IOCTL_GNTDEV_UNMAP_GRANT_REF) !== undefined) this.#kept++;
  }

  /** Announcements that the device refused to forget. */
  get kept(): number {
    return this.#kept;
  }

  /**
   * Prepares copy `i` of a call: `length` bytes from `offset` of a granted page to the address `place`, or the other way
   * round if not `inward`.
   */
  putCopy(
    i: number,
    inward: boolean,
    owner: DomainId,
    ref: number,
    offset: number,
    length: number,
    place: number,
  ): void {
    const segment = (inward ? this.#in : this.#out).at(i * gntdevCopyIn.size);
    segment.foreign_ref = ref;
    segment.foreign_offset = offset;
    segment.foreign_domid = owner;
    segment.virt = place;
    segment.len = length;
    segment.flags = inward ? GNTCOPY_SOURCE_GREF : GNTCOPY_DEST_GREF;
    segment.status = GNTST_GENERAL_ERROR;
  }

  /**
   * Makes the first `count` copies that were prepared. None may go past the end of its granted page: the device
   * would refuse all of them.
   *
   * @returns GNTST_OKAY, and each copy has its own status; or the status that all of them have
   */
  copy(count: number): number {
    this.#copy.count = count;
    this.#copy.segments = this.#segments.address;
    return this.#call(IOCTL_GNTDEV_GRANT_COPY) ?? GNTST_OKAY;
  }

  /** What became of copy `i`. */
  copyStatus(i: number): number {
    // Both directions have it at the same place.
    return this.#in.at(i * gntdevCopyIn.size).status;
  }

  close(): void {
    this.#libc.close(this.fd);
  }

  /** Returns the status of a failed call, undefined for one that went well. */
  #call(request: number): number | undefined {
    if (this.#libc.ioctl(this.fd, request, this.#argument.address) >= 0) return undefined;
    return statusOfErrno(this.#libc.errno());
  }
}
