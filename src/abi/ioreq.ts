// I/O requests from Xen to a device model, one at a time or buffered (public/hvm/ioreq.h).

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
/** `data` is the address of the data in the guest's memory, as `rep movs` and `rep ins` need it. */
export const IOREQ_DATA_IS_PTR = 0x10;
/** Direction bit: set when the guest reads. */
export const IOREQ_READ = 0x20;
/** Repetitions go towards lower addresses. */
export const IOREQ_DF = 0x40;

export const IOREQ_TYPE_PIO = 0;
export const IOREQ_TYPE_COPY = 1;
/** `addr`: segment in bits 63-48, bus 47-40, device 39-35, function 34-32, register 31-0. */
export const IOREQ_TYPE_PCI_CONFIG = 2;

/** The page of buffered requests: two indices that run on freely, then slots of 8 bytes. */
export const IOREQ_BUFFER_SLOT_NUM = 511;
export const BUFFERED_READ_POINTER = 0;
export const BUFFERED_WRITE_POINTER = 4;
export const BUFFERED_SLOTS = 8;
export const BUFFERED_SLOT_SIZE = 8;
/** First word of a slot: type in bits 0-7, direction in bit 9, size 1, 2, 4, 8 as 0-3 in bits 10-11, address above. */
export const BUFFERED_SIZE_SHIFT = 10;
export const BUFFERED_ADDRESS_SHIFT = 12;
/** Addresses that a slot has room for lie below. */
export const BUFFERED_ADDRESS_LIMIT = 0x10_0000;
