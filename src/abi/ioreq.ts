// I/O requests from Xen to a device model (public/hvm/ioreq.h).

import { struct } from './struct.ts';

/** One request; `state_dir` holds the state in bits 0-3, data_is_ptr 0x10, direction 0x20, df 0x40. */
export const ioreq = struct('ioreq', {
  addr: 'u64',
  data: 'u64',
  count: 'u32',
  size: 'u32',
  vp_eport: 'u32',
  _pad0: 'u16',
  state_dir: 'u8',
  type: 'u8',
});

export const STATE_IOREQ_NONE = 0;
export const STATE_IOREQ_READY = 1;
export const STATE_IOREQ_INPROCESS = 2;
export const STATE_IORESP_READY = 3;
export const IOREQ_STATE_MASK = 0x0f;
/** Direction bit: set when the guest reads. */
export const IOREQ_READ = 0x20;
export const IOREQ_TYPE_COPY = 1;
