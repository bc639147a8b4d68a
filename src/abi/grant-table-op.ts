// The grant table hypercall: numbers of its operations and the structures that they take (public/grant_table.h,
// LP64 layout). After grant.ts.

import { struct } from './struct.ts';

export const GNTTABOP_MAP_GRANT_REF = 0;
export const GNTTABOP_UNMAP_GRANT_REF = 1;
export const GNTTABOP_SETUP_TABLE = 2;
export const GNTTABOP_DUMP_TABLE = 3;
export const GNTTABOP_TRANSFER = 4;
export const GNTTABOP_COPY = 5;
export const GNTTABOP_QUERY_SIZE = 6;
export const GNTTABOP_UNMAP_AND_REPLACE = 7;
export const GNTTABOP_SET_VERSION = 8;
export const GNTTABOP_GET_STATUS_FRAMES = 9;
export const GNTTABOP_GET_VERSION = 10;
export const GNTTABOP_SWAP_GRANT_REF = 11;
export const GNTTABOP_CACHE_FLUSH = 12;

export const GNTCOPY_SOURCE_GREF = 1;
export const GNTCOPY_DEST_GREF = 2;

export const GNTTAB_CACHE_CLEAN = 1;
export const GNTTAB_CACHE_INVAL = 2;
export const GNTTAB_CACHE_SOURCE_GREF = 1 << 31;

/** Arguments of the operations, one element of a batch each; `status` is set by Xen. */
export const gnttabMapGrantRef = struct('gnttab_map_grant_ref', {
  host_addr: 'u64',
  flags: 'u32',
  ref: 'u32',
  dom: 'u16',
  status: 'i16',
  handle: 'u32',
  dev_bus_addr: 'u64',
});
export const gnttabUnmapGrantRef = struct('gnttab_unmap_grant_ref', {
  host_addr: 'u64',
  dev_bus_addr: 'u64',
  handle: 'u32',
  status: 'i16',
  _pad0: 'u16',
});
export const gnttabUnmapAndReplace = struct('gnttab_unmap_and_replace', {
  host_addr: 'u64',
  new_addr: 'u64',
  handle: 'u32',
  status: 'i16',
  _pad0: 'u16',
});
/** `frame_list` is where `nr_frames` frame numbers of 64 bits go. */
export const gnttabSetupTable = struct('gnttab_setup_table', {
  dom: 'u16',
  _pad0: 'u16',
  nr_frames: 'u32',
  status: 'i16',
  _pad1: 'u16',
  _pad2: 'u32',
  frame_list: 'u64',
});
export const gnttabTransfer = struct('gnttab_transfer', {
  mfn: 'u64',
  domid: 'u16',
  _pad0: 'u16',
  ref: 'u32',
  status: 'i16',
  _pad1: 'u16',
  _pad2: 'u32',
});
/** Source and destination are each a reference or a frame number, by `flags`. */
export const gnttabCopy = struct('gnttab_copy', {
  source_u: 'u64',
  source_domid: 'u16',
  source_offset: 'u16',
  _pad0: 'u32',
  dest_u: 'u64',
  dest_domid: 'u16',
  dest_offset: 'u16',
  _pad1: 'u32',
  len: 'u16',
  flags: 'u16',
  status: 'i16',
  _pad2: 'u16',
});
export const gnttabQuerySize = struct('gnttab_query_size', {
  dom: 'u16',
  _pad0: 'u16',
  nr_frames: 'u32',
  max_nr_frames: 'u32',
  status: 'i16',
  _pad1: 'u16',
});
export const gnttabSetVersion = struct('gnttab_set_version', { version: 'u32' });
/** `frame_list` is where `nr_frames` frame numbers of 64 bits go. */
export const gnttabGetStatusFrames = struct('gnttab_get_status_frames', {
  nr_frames: 'u32',
  dom: 'u16',
  status: 'i16',
  frame_list: 'u64',
});
export const gnttabGetVersion = struct('gnttab_get_version', { dom: 'u16', _pad0: 'u16', version: 'u32' });
export const gnttabSwapGrantRef = struct('gnttab_swap_grant_ref', {
  ref_a: 'u32',
  ref_b: 'u32',
  status: 'i16',
  _pad0: 'u16',
});
/** `a` is a bus address. */
export const gnttabCacheFlush = struct('gnttab_cache_flush', {
  a: 'u64',
  offset: 'u16',
  length: 'u16',
  op: 'u32',
});
