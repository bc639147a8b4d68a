// Operations on a guest's address space: commands and layouts of their arguments (public/memory.h).

import { struct } from './struct.ts';

export const XENMEM_add_to_physmap = 7;
export const XENMEM_remove_from_physmap = 15;
export const XENMEM_add_to_physmap_batch = 23;
export const XENMEM_acquire_resource = 28;

/** What can be put into an address space. */
export const XENMAPSPACE_shared_info = 0;
export const XENMAPSPACE_grant_table = 1;
export const XENMAPSPACE_gmfn = 2;
export const XENMAPSPACE_gmfn_range = 3;
export const XENMAPSPACE_gmfn_foreign = 4;
export const XENMAPSPACE_dev_mmio = 5;

/** In an index of XENMAPSPACE_grant_table: a frame of statuses. */
export const XENMAPIDX_grant_table_status = 0x8000_0000;

export const XENMEM_resource_ioreq_server = 0;
export const XENMEM_resource_grant_table = 1;
export const XENMEM_resource_grant_table_id_shared = 0;
export const XENMEM_resource_grant_table_id_status = 1;
/** Frames of an ioreq server: the buffered page, and the page with the processors' requests. */
export const XENMEM_resource_ioreq_server_frame_bufioreq = 0;
export const XENMEM_resource_ioreq_server_frame_ioreq = 1;

export const xenAddToPhysmap = struct('xen_add_to_physmap', {
  domid: 'u16',
  size: 'u16',
  space: 'u32',
  idx: 'u64',
  gpfn: 'u64',
});
/** The three lists have `size` elements of 8, 8 and 4 bytes. */
export const xenAddToPhysmapBatch = struct('xen_add_to_physmap_batch', {
  domid: 'u16',
  space: 'u16',
  size: 'u16',
  foreign_domid: 'u16',
  idxs: 'u64',
  gpfns: 'u64',
  errs: 'u64',
});
export const xenRemoveFromPhysmap = struct('xen_remove_from_physmap', {
  domid: 'u16',
  _pad0: 'u16',
  _pad1: 'u32',
  gpfn: 'u64',
});
/** `frame_list` is where the frame numbers are, of 8 bytes each; 0 asks for the size of the resource. */
export const xenMemAcquireResource = struct('xen_mem_acquire_resource', {
  domid: 'u16',
  type: 'u16',
  id: 'u32',
  nr_frames: 'u32',
  pad: 'u32',
  frame: 'u64',
  frame_list: 'u64',
});
