// Device registers of a guest: a load or store in a window becomes an ioreq for the domain that serves the
// window, and the guest's processor waits for the answer (Xen arch/x86/hvm/ioreq.c, common/ioreq.c).
//
// Two registers of virtio-mmio never leave the hypervisor, as ioeventfd and irqfd of a real host do it:
// QueueNotify sets a bit of the window's doorbell and raises the server's event channel; InterruptStatus
// and InterruptACK are a word that both sides change. Everything else is a full exit.

import {
  IOREQ_READ,
  IOREQ_STATE_MASK,
  IOREQ_TYPE_COPY,
  ioreq,
  STATE_IOREQ_INPROCESS,
  STATE_IOREQ_READY,
  STATE_IORESP_READY,
} from '../../abi/ioreq.ts';
import { MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_STATUS, MMIO_QUEUE_NOTIFY } from '../../abi/virtio-mmio.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { MmioBus, MmioHandler } from '../../xen/mmio.ts';
import type { DomainRecord } from './domain-record.ts';
import type { Domains } from './domains.ts';
import type { EventOps } from './events/event-ops.ts';
import { lock, unlock } from './lock.ts';
import { MAX_WINDOWS, type Machine } from './state.ts';
import type { WaitWhile } from './waiting.ts';

// Words of a window's record.
/** The guest's id + 1; 0 while the record is free. */
const GUEST = 0;
const BASE = 1;
const SIZE = 2;
const SERVER = 3;
/** Machine frame of the page that holds the window's ioreq. */
const PAGE = 4;
/** Event channel of the server for register accesses, and the one for doorbells. */
const ACCESS_PORT = 5;
const DOORBELL_PORT = 6;
/** Event channel of the guest for interrupts; 0 until the guest has chosen one. */
const INTERRUPT_PORT = 7;
const INTERRUPT_STATUS = 8;
/** One bit for each of 64 queues that were notified and not yet served. */
const DOORBELL_LOW = 9;
const DOORBELL_HIGH = 10;

/** Index in an ioreq's words of the one that holds state, direction and type. */
const STATE_WORD = ioreq.offsetOf('_pad0') / 4;
/** Index of the one that holds the value read or written. */
const DATA_WORD = ioreq.offsetOf('data') / 4;
const STATE_SHIFT = 16;
const TYPE_SHIFT = 24;
const ALL_ONES = 0xffff_ffff;
/** Registers lie below 4 GiB. */
const ADDRESS_SPACE = 2 ** 32;

function stateOf(word: number): number {
  return (word >>> STATE_SHIFT) & IOREQ_STATE_MASK;
}

function stateWord(state: number, direction: number): number {
  return ((state | direction) << STATE_SHIFT) | (IOREQ_TYPE_COPY << TYPE_SHIFT);
}

/** Finds the record of the window that holds `address` in the address space of `guest`, or -1. */
function findWindow(machine: Machine, guest: number, address: number): number {
  const { heap } = machine;
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = machine.windowRecord(index);
    if (Atomics.load(heap, at + GUEST) !== guest + 1) continue;
    const offset = address - (heap[at + BASE] >>> 0);
    if (offset >= 0 && offset < heap[at + SIZE]) return at;
  }
  return -1;
}

/** Register accesses of one guest's processor. */
export class GuestMmio implements MmioBus {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #events: EventOps;
  readonly #guest: DomainRecord;
  readonly #waitWhile: WaitWhile;
  /** The window of the last access: a driver mostly goes on with the same device. */
  #window = -1;

  constructor(
    machine: Machine,
    domains: Domains,
    events: EventOps,
    guest: DomainRecord,
    waitWhile: WaitWhile,
  ) {
    this.#machine = machine;
    this.#domains = domains;
    this.#events = events;
    this.#guest = guest;
    this.#waitWhile = waitWhile;
  }

  /** Reads as all ones where there is no device, or its server has died. */
  read(address: number, size: number): number {
    const at = this.#find(address);
    if (at < 0) return ALL_ONES;
    const offset = address - (this.#machine.heap[at + BASE] >>> 0);
    if (offset === MMIO_INTERRUPT_STATUS) return Atomics.load(this.#machine.heap, at + INTERRUPT_STATUS);
    return this.#exit(at, address, size, 0, IOREQ_READ);
  }

  /** Is lost where there is no device. */
  write(address: number, size: number, value: number): void {
    const at = this.#find(address);
    if (at < 0) return;
    const offset = address - (this.#machine.heap[at + BASE] >>> 0);
    const word = value >>> 0;
    if (offset === MMIO_QUEUE_NOTIFY && word < 64) this.#ring(at, word);
    else if (offset === MMIO_INTERRUPT_ACK) Atomics.and(this.#machine.heap, at + INTERRUPT_STATUS, ~word);
    else this.#exit(at, address, size, word, 0);
  }

  /** Has interrupts of the window at `base` delivered to a local event channel port. */
  routeInterrupt(base: number, port: number): void {
    const at = this.#find(base);
    if (at >= 0) Atomics.store(this.#machine.heap, at + INTERRUPT_PORT, port);
  }

  #find(address: number): number {
    const { heap } = this.#machine;
    const at = this.#window;
    if (at >= 0 && heap[at + GUEST] === this.#guest.id + 1) {
      const offset = address - (heap[at + BASE] >>> 0);
      if (offset >= 0 && offset < heap[at + SIZE]) return at;
    }
    this.#window = findWindow(this.#machine, this.#guest.id, address);
    return this.#window;
  }

  #ring(at: number, queue: number): void {
    const { heap } = this.#machine;
    Atomics.or(heap, at + (queue < 32 ? DOORBELL_LOW : DOORBELL_HIGH), 1 << (queue & 31));
    const server = this.#domains.find(heap[at + SERVER]);
    if (server) this.#events.raise(server, heap[at + DOORBELL_PORT]);
  }

  #exit(at: number, address: number, size: number, value: number, direction: number): number {
    const { heap, memory } = this.#machine;
    const server = this.#domains.find(heap[at + SERVER]);
    if (server === undefined) return ALL_ONES;
    const page = heap[at + PAGE] * XEN_PAGE_SIZE;
    const request = ioreq.over(memory).at(page);
    const state = page / 4 + STATE_WORD;
    request.addr = address;
    request.data = value;
    request.count = 1;
    request.size = size;
    let word = stateWord(STATE_IOREQ_READY, direction);
    Atomics.store(memory.i32, state, word);
    this.#events.raise(server, heap[at + ACCESS_PORT]);
    while (stateOf(word) !== STATE_IORESP_READY) {
      if (!this.#waitWhile(memory.i32, state, word)) return ALL_ONES;
      word = Atomics.load(memory.i32, state);
    }
    return memory.u32[page / 4 + DATA_WORD];
  }
}

/** The device model's end of one window. */
export class MmioServer {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #events: EventOps;
  readonly #at: number;
  readonly base: number;
  /** Event channels of the server's domain. */
  readonly accessPort: number;
  readonly doorbellPort: number;

  private constructor(machine: Machine, domains: Domains, events: EventOps, at: number) {
    this.#machine = machine;
    this.#domains = domains;
    this.#events = events;
    this.#at = at;
    this.base = machine.heap[at + BASE] >>> 0;
    this.accessPort = machine.heap[at + ACCESS_PORT];
    this.doorbellPort = machine.heap[at + DOORBELL_PORT];
  }

  /**
   * Has `server` answer accesses of `guest` to `size` bytes from `base`.
   *
   * @throws RangeError when the place is taken or impossible, or windows or event channels are used up
   */
  static create(
    machine: Machine,
    domains: Domains,
    events: EventOps,
    server: DomainRecord,
    guest: DomainRecord,
    base: number,
    size: number,
  ): MmioServer {
    if (!(size > 0 && base >= 0 && base + size <= ADDRESS_SPACE))
      throw new RangeError(
        `registers at 0x${base.toString(16)}, ${size} bytes: expected 1 or more below 4 GiB`,
      );
    const accessPort = events.allocateUnbound(server, guest.id);
    const doorbellPort = events.allocateUnbound(server, guest.id);
    try {
      if (accessPort < 0 || doorbellPort < 0)
        throw new RangeError(`domain ${server.id} has no event channels left`);
      const at = takeWindow(machine, guest.id, base, size, server.id, accessPort, doorbellPort);
      return new MmioServer(machine, domains, events, at);
    } catch (error) {
      // A refusal leaves nothing behind; closing what was not allocated is refused in turn.
      events.close(server, accessPort);
      events.close(server, doorbellPort);
      throw error;
    }
  }

  /** Answers the access that is waiting, if one is. Each field is read once. */
  serve(handler: MmioHandler): void {
    const { heap, memory } = this.#machine;
    const page = heap[this.#at + PAGE] * XEN_PAGE_SIZE;
    const state = page / 4 + STATE_WORD;
    const word = Atomics.load(memory.i32, state);
    if (stateOf(word) !== STATE_IOREQ_READY) return;
    const isRead = (word >>> STATE_SHIFT) & IOREQ_READ;
    Atomics.store(memory.i32, state, stateWord(STATE_IOREQ_INPROCESS, isRead));
    const request = ioreq.over(memory).at(page);
    const offset = request.addr - this.base;
    const size = request.size;
    if (isRead) request.data = handler.read(offset, size) >>> 0;
    else handler.write(offset, size, memory.u32[page / 4 + DATA_WORD]);
    Atomics.store(memory.i32, state, stateWord(STATE_IORESP_READY, isRead));
    Atomics.notify(memory.i32, state);
  }

  /** Takes the queues 0-31 (`high` false) or 32-63 that were notified since the last call, one bit each. */
  takeDoorbell(high: boolean): number {
    return Atomics.exchange(this.#machine.heap, this.#at + (high ? DOORBELL_HIGH : DOORBELL_LOW), 0) >>> 0;
  }

  /** Sets bits of InterruptStatus and interrupts the guest. */
  interrupt(bits: number): void {
    const { heap } = this.#machine;
    Atomics.or(heap, this.#at + INTERRUPT_STATUS, bits);
    const guest = this.#domains.find(heap[this.#at + GUEST] - 1);
    const port = Atomics.load(heap, this.#at + INTERRUPT_PORT);
    if (guest && port > 0) this.#events.raise(guest, port);
  }

  /** Clears InterruptStatus: the device was reset. */
  clearInterrupts(): void {
    Atomics.store(this.#machine.heap, this.#at + INTERRUPT_STATUS, 0);
  }

  /** Takes the window away; the guest then reads all ones there, and so does an access that waits now. */
  close(): void {
    const { heap, memory } = this.#machine;
    Atomics.store(heap, this.#at + GUEST, 0);
    const page = (heap[this.#at + PAGE] * XEN_PAGE_SIZE) / 4;
    if (stateOf(Atomics.load(memory.i32, page + STATE_WORD)) === STATE_IORESP_READY) return;
    memory.u32[page + DATA_WORD] = ALL_ONES;
    Atomics.store(memory.i32, page + STATE_WORD, stateWord(STATE_IORESP_READY, 0));
    Atomics.notify(memory.i32, page + STATE_WORD);
  }
}

/** Takes away the windows of a domain that is going: those that it has, and those that it serves. */
export function* releaseWindows(machine: Machine, domain: DomainRecord): Generator<void> {
  const { heap } = machine;
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = machine.windowRecord(index);
    if (heap[at + GUEST] === domain.id + 1 || (heap[at + GUEST] !== 0 && heap[at + SERVER] === domain.id))
      Atomics.store(heap, at + GUEST, 0);
  }
  yield;
}

/** Fills in a free record. Throws RangeError when there is none, or the place is taken. */
function takeWindow(
  machine: Machine,
  guest: number,
  base: number,
  size: number,
  server: number,
  accessPort: number,
  doorbellPort: number,
): number {
  const { heap, memory } = machine;
  lock(heap, machine.lockWord);
  try {
    if (isTaken(machine, guest, base, size))
      throw new RangeError(`domain ${guest} has a device at 0x${base.toString(16)} already`);
    const at = freeWindow(machine);
    // The page stays with the record when its window is taken away, but no access that was left in it.
    const page = heap[at + PAGE] || takeFrame(machine);
    memory.u8.fill(0, page * XEN_PAGE_SIZE, (page + 1) * XEN_PAGE_SIZE);
    heap.fill(0, at, at + DOORBELL_HIGH + 1);
    heap[at + BASE] = base;
    heap[at + SIZE] = size;
    heap[at + SERVER] = server;
    heap[at + PAGE] = page;
    heap[at + ACCESS_PORT] = accessPort;
    heap[at + DOORBELL_PORT] = doorbellPort;
    Atomics.store(heap, at + GUEST, guest + 1);
    return at;
  } finally {
    unlock(heap, machine.lockWord);
  }
}

/** Whether a window of `guest` has a byte in common with the one from `base`. */
function isTaken(machine: Machine, guest: number, base: number, size: number): boolean {
  const { heap } = machine;
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = machine.windowRecord(index);
    const first = heap[at + BASE] >>> 0;
    if (heap[at + GUEST] === guest + 1 && first < base + size && base < first + heap[at + SIZE]) return true;
  }
  return false;
}

function takeFrame(machine: Machine): number {
  const frame = machine.frames.take(1);
  if (frame < 0) throw new RangeError('the machine has no frame of memory left for an ioreq page');
  return frame;
}

function freeWindow(machine: Machine): number {
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = machine.windowRecord(index);
    if (machine.heap[at + GUEST] === 0) return at;
  }
  throw new RangeError(`all ${MAX_WINDOWS} MMIO windows of the embedded Xen are taken`);
}
