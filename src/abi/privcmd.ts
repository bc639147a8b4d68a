// Arguments of the ioctls of /dev/xen/privcmd, the way to Xen for programs of a privileged domain (Linux,
// include/uapi/xen/privcmd.h, 64-bit layout), and the numbers of the hypercalls that are made through it
// (public/xen.h).

import { struct } from './struct.ts';

export const IOCTL_PRIVCMD_HYPERCALL = 0x30_5000;
export const IOCTL_PRIVCMD_MMAPBATCH_V2 = 0x20_5004;
export const IOCTL_PRIVCMD_DM_OP = 0x10_5005;
export const IOCTL_PRIVCMD_MMAP_RESOURCE = 0x20_5007;

export const HYPERVISOR_grant_table_op = 20;
export const HYPERVISOR_domctl = 36;

export const privcmdHypercall = struct('privcmd_hypercall', {
  op: 'u64',
  arg0: 'u64',
  arg1: 'u64',
  arg2: 'u64',
  arg3: 'u64',
  arg4: 'u64',
});

/** `arr` has frame numbers of 64 bits, `err` an int for each: 0, or the negative errno why it is not mapped. */
export const privcmdMmapbatchV2 = struct('privcmd_mmapbatch_v2', {
  num: 'u32',
  dom: 'u16',
  _pad0: 'u16',
  addr: 'u64',
  arr: 'u64',
  err: 'u64',
});

/** `ubufs` is the address of `num` xen_dm_op_buf (dm-op.ts). */
export const privcmdDmOp = struct('privcmd_dm_op', { dom: 'u16', num: 'u16', _pad0: 'u32', ubufs: 'u64' });

/** `type` and `id` are those of XENMEM_acquire_resource (memory-op.ts); `addr` lies in a mapping of the device. */
export const privcmdMmapResource = struct('privcmd_mmap_resource', {
  dom: 'u16',
  _pad0: 'u16',
  type: 'u32',
  id: 'u32',
  idx: 'u32',
  num: 'u64',
  addr: 'u64',
});
