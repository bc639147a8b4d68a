// Requests to device models: which server answers for an access, and how one processor's request travels through
// the page that it shares with the device model (Xen common/ioreq.c). The device model may write anything there at
// any time: the state is read once as one word, it may only move forward, and whoever breaks that ends the guest.
// After guest-io.ts.

import {
  XEN_DMOP_IO_RANGE_MEMORY,
  XEN_DMOP_IO_RANGE_PCI,
  XEN_DMOP_IO_RANGE_PORT,
} from '../../../abi/dm-op.ts';
import {
  IOREQ_DF,
  IOREQ_STATE_MASK,
  IOREQ_TYPE_COPY,
  IOREQ_TYPE_PCI_CONFIG,
  ioreq,
  STATE_IOREQ_NONE,
  STATE_IOREQ_READY,
  STATE_IORESP_READY,
} from '../../../abi/ioreq.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';
import { MachinePage, MAX_IOREQ_SERVERS } from './machine-page.ts';
import { serverAt, type ServerRecord, SYNCHRONOUS_PAGE } from './server-record.ts';

/** Index in an ioreq's words of the one that holds state, direction and type, and of the data's lower half. */
const STATE_WORD = ioreq.offsetOf('_pad0') / 4;
const DATA_WORD = ioreq.offsetOf('data') / 4;
const PORT_WORD = ioreq.offsetOf('vp_eport') / 4;
const STATE_SHIFT = 16;
const TYPE_SHIFT = 24;

/** Ports of the PCI bus: the register that chooses, and the four bytes of what is chosen. */
const PCI_DATA_PORT = 0xcfc;
const PCI_ENABLE = 1 << 31;
const FUNCTION_MASK = 0xffff;
const REGISTER_MASK = 0xfc;
const FUNCTION_UNIT = 2 ** 32;

/** A 64-bit value as two halves. */
export interface Halves {
  readonly low: number;
  readonly high: number;
}
export const ALL_ONES: Halves = { low: 0xffff_ffff, high: 0xffff_ffff };

/** One access of a guest's processor. */
export interface IoRequest {
  /** IOREQ_TYPE_ */
  readonly type: number;
  readonly address: number;
  /** Bytes, and how often. */
  readonly size: number;
  readonly count: number;
  /** IOREQ_READ, IOREQ_DF, IOREQ_DATA_IS_PTR */
  readonly flags: number;
  /** What is written, or where in the guest's memory it is. */
  readonly data: Halves;
}

/** A server that answers for a request, and the request as it gets it. */
export interface Selected {
  readonly server: ServerRecord;
  readonly request: IoRequest;
}

/** The state in the word that holds it. */
export function stateOf(word: number): number {
  return (word >>> STATE_SHIFT) & IOREQ_STATE_MASK;
}

function stateWord(state: number, flags: number, type: number): number {
  return ((state | flags) << STATE_SHIFT) | (type << TYPE_SHIFT);
}

/** Finds the newest server that is on and answers for all of an access. For the holder of the lock. */
export function selectServer(
  machine: Machine,
  guest: DomainRecord,
  request: IoRequest,
): Selected | undefined {
  const { type, first, last, forServer } = kindOf(machine, guest, request);
  for (let id = MAX_IOREQ_SERVERS - 1; id >= 0; id--) {
    const server = serverAt(machine, guest, id);
    if (server?.used && server.enabled && server.ranges(type)?.contains(first, last))
      return { server, request: forServer };
  }
  return undefined;
}

/** What kind of range an access falls into, with which numbers, and what a server would see of it. */
function kindOf(machine: Machine, guest: DomainRecord, request: IoRequest) {
  const { address, size, count } = request;
  if (request.type === IOREQ_TYPE_COPY) {
    const isDown = (request.flags & IOREQ_DF) !== 0;
    const first = isDown ? address - (count - 1) * size : address;
    return { type: XEN_DMOP_IO_RANGE_MEMORY, first, last: first + count * size - 1, forServer: request };
  }
  const chosen = machine.heap[new MachinePage(machine, guest).pciAddressWord];
  // The PCI bus is x86's; elsewhere nobody ever writes the word.
  if ((address & ~3) !== PCI_DATA_PORT || (chosen & PCI_ENABLE) === 0)
    return { type: XEN_DMOP_IO_RANGE_PORT, first: address, last: address + size - 1, forServer: request };
  const pciFunction = (chosen >>> 8) & FUNCTION_MASK;
  const register = (chosen & REGISTER_MASK) | (address & 3);
  const forServer = {
    ...request,
    type: IOREQ_TYPE_PCI_CONFIG,
    address: pciFunction * FUNCTION_UNIT + register,
  };
  return { type: XEN_DMOP_IO_RANGE_PCI, first: pciFunction, last: pciFunction, forServer };
}

/** What sending came to. */
export const SENT = 0;
/** The device model has spoilt the page: the access cannot be carried out. */
export const SPOILT = 1;

/**
 * Puts a processor's request into its server's page. The caller then notifies the device model, and waits. For the
 * holder of the lock.
 */
export function sendRequest(
  machine: Machine,
  server: ServerRecord,
  vcpu: number,
  request: IoRequest,
): typeof SENT | typeof SPOILT {
  if (server.frame(SYNCHRONOUS_PAGE) === 0) return SPOILT;
  const { memory, heap } = machine;
  const at = server.request(vcpu);
  const state = at / 4 + STATE_WORD;
  const port = server.port(vcpu);
  if (stateOf(Atomics.load(memory.i32, state)) !== STATE_IOREQ_NONE) return SPOILT;
  // A server that was switched on before it had a page never learns its channel, as in Xen.
  if (memory.u32[at / 4 + PORT_WORD] !== port) return SPOILT;
  const slot = ioreq.over(memory).at(at);
  slot.addr = request.address;
  memory.u32[at / 4 + DATA_WORD] = request.data.low;
  memory.u32[at / 4 + DATA_WORD + 1] = request.data.high;
  slot.count = request.count;
  slot.size = request.size;
  heap[server.pendingWord(vcpu)] = 1;
  Atomics.store(memory.i32, state, stateWord(STATE_IOREQ_READY, request.flags, request.type));
  return SENT;
}

/** Index of the word of memory that says how far a processor's request is. */
export function requestStateWord(server: ServerRecord, vcpu: number): number {
  return server.request(vcpu) / 4 + STATE_WORD;
}

/** How far a request is, and what its data are once it was answered. */
export type Progress = 'waiting' | 'broken' | { readonly data: Halves };

/**
 * Judges the state that was read from a request's page after `before`. An answer is taken: the data are read once,
 * and the processor may ask again. For the holder of the lock.
 */
export function judgeRequest(
  machine: Machine,
  server: ServerRecord,
  vcpu: number,
  before: number,
  word: number,
): Progress {
  const { memory, heap } = machine;
  const state = stateOf(word);
  const at = server.request(vcpu) / 4;
  const isOver = state === STATE_IOREQ_NONE || state === STATE_IORESP_READY;
  // Never back, and none that does not exist; to NONE, as if its server had gone.
  if (!isOver && (state < before || state > STATE_IORESP_READY)) {
    heap[server.pendingWord(vcpu)] = 0;
    return 'broken';
  }
  if (!isOver) return 'waiting';
  heap[server.pendingWord(vcpu)] = 0;
  if (state === STATE_IOREQ_NONE) return { data: ALL_ONES };
  Atomics.store(memory.i32, at + STATE_WORD, 0);
  return { data: { low: memory.u32[at + DATA_WORD], high: memory.u32[at + DATA_WORD + 1] } };
}

/** Takes a request back that nobody has begun to answer. For the holder of the lock. */
export function withdrawRequest(machine: Machine, server: ServerRecord, vcpu: number): void {
  const { memory, heap } = machine;
  const state = requestStateWord(server, vcpu);
  const word = Atomics.load(memory.i32, state);
  if (stateOf(word) !== STATE_IOREQ_READY) return;
  if (Atomics.compareExchange(memory.i32, state, word, 0) === word) heap[server.pendingWord(vcpu)] = 0;
}
