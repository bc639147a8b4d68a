// Linux's io_uring as the kernel and a program share it (linux/io_uring.h): what setting one up is told and tells, and
// the entries of its two rings. Used by hosts/linux/io-uring.ts.

import { struct } from './struct.ts';

/** Argument and answer of io_uring_setup(2), with io_sqring_offsets and io_cqring_offsets in it. */
export const ioUringParams = struct('io_uring_params', {
  sq_entries: 'u32',
  cq_entries: 'u32',
  flags: 'u32',
  sq_thread_cpu: 'u32',
  sq_thread_idle: 'u32',
  features: 'u32',
  wq_fd: 'u32',
  resv: { bytes: 12 },
  sq_off_head: 'u32',
  sq_off_tail: 'u32',
  sq_off_ring_mask: 'u32',
  sq_off_ring_entries: 'u32',
  sq_off_flags: 'u32',
  sq_off_dropped: 'u32',
  sq_off_array: 'u32',
  sq_off_resv1: 'u32',
  sq_off_resv2: 'u64',
  cq_off_head: 'u32',
  cq_off_tail: 'u32',
  cq_off_ring_mask: 'u32',
  cq_off_ring_entries: 'u32',
  cq_off_overflow: 'u32',
  cq_off_cqes: 'u32',
  cq_off_flags: 'u32',
  cq_off_resv1: 'u32',
  cq_off_resv2: 'u64',
});

/** What the kernel is asked to do. The last fields mean different things to different operations. */
export const ioUringSqe = struct('io_uring_sqe', {
  opcode: 'u8',
  flags: 'u8',
  ioprio: 'u16',
  fd: 'i32',
  off: 'addr64',
  addr: 'addr64',
  len: 'u32',
  op_flags: 'u32',
  user_data: 'addr64',
  buf_index: 'u16',
  personality: 'u16',
  file_index: 'u32',
  addr3: 'addr64',
  pad2: 'addr64',
});

/** What has come of it. */
export const ioUringCqe = struct('io_uring_cqe', { user_data: 'addr64', res: 'i32', flags: 'u32' });

/** System calls; the same numbers on every processor. */
export const NR_IO_URING_SETUP = 425;
export const NR_IO_URING_ENTER = 426;
export const NR_IO_URING_REGISTER = 427;

export const IORING_SETUP_CQSIZE = 1 << 3;
export const IORING_SETUP_CLAMP = 1 << 4;
export const IORING_SETUP_SUBMIT_ALL = 1 << 7;
export const IORING_SETUP_COOP_TASKRUN = 1 << 8;
export const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
export const IORING_SETUP_SINGLE_ISSUER = 1 << 12;

export const IORING_FEAT_SINGLE_MMAP = 1 << 0;
export const IORING_FEAT_NODROP = 1 << 1;
export const IORING_FEAT_SUBMIT_STABLE = 1 << 2;
export const IORING_FEAT_RW_CUR_POS = 1 << 3;

export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x1000_0000;

export const IORING_SQ_CQ_OVERFLOW = 1 << 1;
export const IORING_SQ_TASKRUN = 1 << 2;
export const IORING_CQ_EVENTFD_DISABLED = 1 << 0;
export const IORING_ENTER_GETEVENTS = 1 << 0;
export const IORING_REGISTER_EVENTFD = 4;

export const IORING_OP_READV = 1;
export const IORING_OP_WRITEV = 2;
export const IORING_OP_FSYNC = 3;
export const IORING_OP_FALLOCATE = 17;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IORING_FSYNC_DATASYNC = 1 << 0;
