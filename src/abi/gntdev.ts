// Arguments of the ioctls of /dev/xen/gntdev, which maps and copies what other domains granted, and of
// /dev/xen/gntalloc, which grants pages of this one (Linux, include/uapi/xen/gntdev.h and gntalloc.h, 64-bit layout).
// The statuses that they report are those of grant.ts, the flags of a copy those of grant-table-op.ts.

import { struct } from './struct.ts';

export const IOCTL_GNTDEV_MAP_GRANT_REF = 0x18_4700;
export const IOCTL_GNTDEV_UNMAP_GRANT_REF = 0x10_4701;
export const IOCTL_GNTDEV_GRANT_COPY = 0x10_4708;
export const IOCTL_GNTALLOC_ALLOC_GREF = 0x18_4705;
export const IOCTL_GNTALLOC_DEALLOC_GREF = 0x10_4706;

/**
 * `count` pages are asked for: the one named here, and those whose records follow without a gap. `index`, which the
 * driver sets, is the offset for mmap.
 */
export const ioctlGntdevMapGrantRef = struct('ioctl_gntdev_map_grant_ref', {
  count: 'u32',
  pad: 'u32',
  index: 'u64',
  domid: 'u32',
  ref: 'u32',
});

/** What names a page: the last two fields of the structure above. */
export const ioctlGntdevGrantRef = struct('ioctl_gntdev_grant_ref', {
  domid: 'u32',
  ref: 'u32',
});

export const ioctlGntdevUnmapGrantRef = struct('ioctl_gntdev_unmap_grant_ref', {
  index: 'u64',
  count: 'u32',
  pad: 'u32',
});

/** `segments` is the address of `count` records. */
export const ioctlGntdevGrantCopy = struct('ioctl_gntdev_grant_copy', {
  count: 'u32',
  _pad0: 'u32',
  segments: 'u64',
});

/**
 * A copy out of what another domain granted: GNTCOPY_source_gref. The header has a union at each end: `foreign_` is that of
 * the granted page, `virt` of this process. `status` is set by the driver.
 */
export const gntdevCopyIn = struct('ioctl_gntdev_grant_copy_segment from a grant', {
  foreign_ref: 'u32',
  foreign_offset: 'u16',
  foreign_domid: 'u16',
  virt: 'u64',
  len: 'u16',
  flags: 'u16',
  status: 'i16',
  _pad0: 'u16',
});

/** The same the other way round: GNTCOPY_dest_gref. */
export const gntdevCopyOut = struct('ioctl_gntdev_grant_copy_segment to a grant', {
  virt: 'u64',
  foreign_ref: 'u32',
  foreign_offset: 'u16',
  foreign_domid: 'u16',
  len: 'u16',
  flags: 'u16',
  status: 'i16',
  _pad0: 'u16',
});

/** Whether the peer may write as well. */
export const GNTALLOC_FLAG_WRITABLE = 1;

/** One page is asked for; `index`, the offset for mmap, and the reference are set by the driver. */
export const ioctlGntallocAllocGref = struct('ioctl_gntalloc_alloc_gref', {
  domid: 'u16',
  flags: 'u16',
  count: 'u32',
  index: 'u64',
  gref_ids: 'u32',
  _pad0: 'u32',
});

export const ioctlGntallocDeallocGref = struct('ioctl_gntalloc_dealloc_gref', {
  index: 'u64',
  count: 'u32',
  _pad0: 'u32',
});
