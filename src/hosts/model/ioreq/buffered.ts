// Buffered requests: writes for which nobody waits, in a ring of slots that Xen fills and the device model empties
// (Xen common/ioreq.c). Both indices lie where the device model can write anything to them: they are read once,
// their difference is what counts, and whatever they say a slot is inside the page. After guest-io.ts.

import { HVM_IOREQSRV_BUFIOREQ_ATOMIC } from '../../../abi/dm-op.ts';
import {
  BUFFERED_ADDRESS_LIMIT,
  BUFFERED_ADDRESS_SHIFT,
  BUFFERED_READ_POINTER,
  BUFFERED_SIZE_SHIFT,
  BUFFERED_SLOT_SIZE,
  BUFFERED_SLOTS,
  BUFFERED_WRITE_POINTER,
  IOREQ_BUFFER_SLOT_NUM,
  IOREQ_DATA_IS_PTR,
} from '../../../abi/ioreq.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { Machine } from '../state.ts';
import type { IoRequest } from './requests.ts';
import { BUFFERED_PAGE, type ServerRecord } from './server-record.ts';

/**
 * Puts a write into a server's ring. The caller then notifies the device model. For the holder of the lock.
 *
 * @returns false, and nothing has changed, when it fits no slot, the ring is full, or there is none: the access
 *   then goes the synchronous way
 */
export function sendBuffered(machine: Machine, server: ServerRecord, request: IoRequest): boolean {
  const frame = server.frame(BUFFERED_PAGE);
  const sizeCode = [1, 2, 4, 8].indexOf(request.size);
  const fits =
    request.address < BUFFERED_ADDRESS_LIMIT &&
    (request.flags & IOREQ_DATA_IS_PTR) === 0 &&
    request.count === 1;
  if (frame === 0 || sizeCode < 0 || !fits) return false;
  const { i32, u32 } = machine.memory;
  const page = (frame * XEN_PAGE_SIZE) / 4;
  const read = Atomics.load(u32, page + BUFFERED_READ_POINTER / 4);
  const write = Atomics.load(u32, page + BUFFERED_WRITE_POINTER / 4);
  const slots = request.size === 8 ? 2 : 1;
  // The indices run on freely: 32-bit numbers whose difference is what waits.
  if ((write - read) >>> 0 > IOREQ_BUFFER_SLOT_NUM - slots) return false;
  const head = request.type | (sizeCode << BUFFERED_SIZE_SHIFT) | (request.address << BUFFERED_ADDRESS_SHIFT);
  const values = [request.data.low, request.data.high];
  for (let index = 0; index < slots; index++) {
    const slot = page + slotWord((write + index) >>> 0);
    i32[slot] = head;
    i32[slot + 1] = values[index];
  }
  // The index last: the slots are whole when the device model sees them.
  Atomics.add(u32, page + BUFFERED_WRITE_POINTER / 4, slots);
  if (server.buffering === HVM_IOREQSRV_BUFIOREQ_ATOMIC) wrapPointers(machine, page);
  return true;
}

/** Word of a page in which the slot of an index begins. */
function slotWord(index: number): number {
  return (BUFFERED_SLOTS + (index % IOREQ_BUFFER_SLOT_NUM) * BUFFERED_SLOT_SIZE) / 4;
}

/**
 * Takes whole rounds off both indices at once, so that they never run over: 2^32 is no multiple of the number of
 * slots. The device model may move its index meanwhile, so it is tried again, but not for ever.
 */
function wrapPointers(machine: Machine, page: number): void {
  const pair = new BigUint64Array(machine.memory.buffer, machine.memory.byteOffset + page * 4, 1);
  for (let tries = 0; tries < IOREQ_BUFFER_SLOT_NUM; tries++) {
    const old = Atomics.load(pair, 0);
    const read = Number(old & 0xffff_ffffn);
    if (read < IOREQ_BUFFER_SLOT_NUM) return;
    const rounds = Math.floor(read / IOREQ_BUFFER_SLOT_NUM) * IOREQ_BUFFER_SLOT_NUM;
    const write = (Number(old >> 32n) - rounds) >>> 0;
    Atomics.compareExchange(pair, 0, old, (BigInt(write) << 32n) | BigInt(read - rounds));
  }
}
