// Loads, stores and port accesses of one processor of a guest that reach no memory: they become requests to whoever
// serves that place, and the processor waits for the answer (Xen arch/x86/hvm/emulate.c, arch/arm/ioreq.c). Where
// nobody serves, reads are all ones and writes are lost.
// After transports/virtio-mmio/driver.ts; before requests.ts and windows.ts.

import {
  IOREQ_DATA_IS_PTR,
  IOREQ_DF,
  IOREQ_READ,
  IOREQ_TYPE_COPY,
  IOREQ_TYPE_PIO,
  STATE_IOREQ_NONE,
} from '../../../abi/ioreq.ts';
import { MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_STATUS, MMIO_QUEUE_NOTIFY } from '../../../abi/virtio-mmio.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { MmioBus } from '../../../xen/mmio.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import type { EventOps } from '../events/event-ops.ts';
import type { GuestCopy } from '../guest-copy.ts';
import { withLock } from '../lock.ts';
import type { Machine } from '../state.ts';
import type { WaitWhile } from '../waiting.ts';
import { sendBuffered } from './buffered.ts';
import { notifyModel } from './channels.ts';
import { MachinePage } from './machine-page.ts';
import {
  ALL_ONES,
  type Halves,
  type IoRequest,
  judgeRequest,
  requestStateWord,
  selectServer,
  SENT,
  sendRequest,
  stateOf,
  withdrawRequest,
} from './requests.ts';
import type { ServerRecord } from './server-record.ts';
import { type Window, windowsOf } from './windows.ts';

/** Bytes of an access at most. */
const MAX_SIZE = 8;
const NO_WINDOW = -1;
const NOTHING: Halves = { low: 0, high: 0 };
/** The port that chooses a register of the PCI bus. */
const PCI_ADDRESS_PORT = 0xcf8;
/** Memory of a graphics card of old: writes to it are buffered. */
const VGA_MEMORY = 0xa_0000;
const VGA_MEMORY_END = 0xc_0000;
/** Queues that a doorbell has a bit for. */
const DOORBELL_QUEUES = 64;

/** A string instruction: an access for each element of a stretch of memory. */
export interface StringAccess {
  readonly isRead: boolean;
  /** Whether addresses go down. */
  readonly isDown: boolean;
  /** Bytes of an element, and how many there are. */
  readonly size: number;
  readonly count: number;
  /** Guest-physical address of the first element in memory. */
  readonly memory: number;
}

/** A window, and who serves it. */
interface Known {
  readonly window: Window;
  readonly emulator: DomainRecord;
}

/** What the accesses of a processor need; made once for each. */
export interface GuestIoOptions {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly events: EventOps;
  readonly guest: DomainRecord;
  readonly vcpu: number;
  readonly memory: GuestCopy;
  readonly waitWhile: WaitWhile;
}

/** The accesses of one processor. */
export class GuestIo implements MmioBus {
  readonly #options: GuestIoOptions;
  readonly #heap: Int32Array;
  readonly #page: MachinePage;
  readonly #changesWord: number;
  /** Windows that were found since the last change, and the one of the last access. */
  #known: Known[] = [];
  #last: Known | undefined;
  #changes = -1;
  /** The server of a request that was given up while the device model worked on it. */
  #unfinished: ServerRecord | undefined;

  constructor(options: GuestIoOptions) {
    this.#options = options;
    this.#heap = options.machine.heap;
    this.#page = new MachinePage(options.machine, options.guest);
    this.#changesWord = this.#page.changesWord;
  }

  read(address: number, size: number): number {
    const known = this.#find(address);
    if (known !== undefined && address - known.window.base === MMIO_INTERRUPT_STATUS)
      return known.window.interruptStatus;
    return narrow(this.#access(IOREQ_TYPE_COPY, address, size, IOREQ_READ, NOTHING), size);
  }

  write(address: number, size: number, value: number): void {
    const word = value >>> 0;
    const known = this.#find(address);
    const offset = known === undefined ? NO_WINDOW : address - known.window.base;
    if (known && offset === MMIO_QUEUE_NOTIFY && word < DOORBELL_QUEUES) this.#ring(known, word);
    else if (known && offset === MMIO_INTERRUPT_ACK) known.window.clearInterrupts(word);
    else this.#access(IOREQ_TYPE_COPY, address, size, 0, { low: word, high: 0 });
  }

  /** The same for 8 bytes. */
  readWide(address: number): bigint {
    const { low, high } = this.#access(IOREQ_TYPE_COPY, address, 8, IOREQ_READ, NOTHING);
    return (BigInt(high) << 32n) | BigInt(low);
  }

  writeWide(address: number, value: bigint): void {
    const data = { low: Number(value & 0xffff_ffffn), high: Number((value >> 32n) & 0xffff_ffffn) };
    this.#access(IOREQ_TYPE_COPY, address, 8, 0, data);
  }

  /** Reads a port, of 1, 2 or 4 bytes. */
  readPort(port: number, size: number): number {
    return narrow(this.#access(IOREQ_TYPE_PIO, port, size, IOREQ_READ, NOTHING), size);
  }

  writePort(port: number, size: number, value: number): void {
    const { machine, guest } = this.#options;
    if (port === PCI_ADDRESS_PORT && size === 4 && this.#page.exists && guest.architecture === 'x86')
      Atomics.store(machine.heap, this.#page.pciAddressWord, value);
    this.#access(IOREQ_TYPE_PIO, port, size, 0, { low: value >>> 0, high: 0 });
  }

  /** Copies between registers, whose addresses move along, and memory of the guest. */
  moveString(address: number, access: StringAccess): void {
    for (let done = 0; done < access.count; ) {
      const moved = (access.isDown ? -done : done) * access.size;
      const [at, memory] = [address + moved, access.memory + moved];
      const left = access.count - done;
      const count = access.size > 0 ? withinPage(at, access.size, left, access.isDown) : left;
      this.#string(IOREQ_TYPE_COPY, at, { ...access, memory, count });
      done += count;
    }
  }

  /** Copies between one port and memory of the guest. */
  portString(port: number, access: StringAccess): void {
    if (access.count > 0) this.#string(IOREQ_TYPE_PIO, port, access);
  }

  /** Has interrupts of the window at `base` delivered to a local event channel port. */
  routeInterrupt(base: number, port: number): void {
    const known = this.#find(base);
    if (known !== undefined) known.window.interruptPort = port;
  }

  #find(address: number): Known | undefined {
    // One comparison tells that what was found before still holds.
    if (this.#heap[this.#changesWord] !== this.#changes) this.#forget();
    const last = this.#last;
    if (last !== undefined && holds(last.window, address)) return last;
    for (const known of this.#known) if (holds(known.window, address)) return this.#remember(known);
    const found = this.#lookUp(address);
    if (found !== undefined) this.#known.push(found);
    return found && this.#remember(found);
  }

  #remember(known: Known): Known {
    this.#last = known;
    return known;
  }

  #forget(): void {
    this.#changes = Atomics.load(this.#heap, this.#changesWord);
    this.#known = [];
    this.#last = undefined;
  }

  #lookUp(address: number): Known | undefined {
    const { machine, domains, guest } = this.#options;
    return this.#locked(() => {
      const request = requestFor(IOREQ_TYPE_COPY, address, 1, IOREQ_READ, NOTHING);
      const server = selectServer(machine, guest, request)?.server;
      const emulator = server && domains.find(server.emulator);
      if (server === undefined || emulator === undefined) return undefined;
      for (const window of windowsOf(machine, server.windows))
        if (holds(window, address)) return { window, emulator };
      return undefined;
    });
  }

  #ring({ window, emulator }: Known, queue: number): void {
    window.ring(queue);
    if (emulator.alive) this.#options.events.raise(emulator, window.doorbellPort);
  }

  #access(type: number, address: number, size: number, flags: number, data: Halves): Halves {
    if (isOdd(size)) return ALL_ONES;
    const isWrite = (flags & IOREQ_READ) === 0;
    const kept = isWrite ? { low: narrow(data, Math.min(size, 4)), high: data.high } : data;
    return this.#exit(requestFor(type, address, size, flags, kept)) ?? ALL_ONES;
  }

  #string(type: number, address: number, access: StringAccess): void {
    const { isRead, isDown, size, count, memory } = access;
    const flags = IOREQ_DATA_IS_PTR | (isRead ? IOREQ_READ : 0) | (isDown ? IOREQ_DF : 0);
    const data = { low: memory >>> 0, high: Math.floor(memory / 2 ** 32) };
    const answer = isOdd(size) ? undefined : this.#exit({ type, address, size, count, flags, data });
    if (answer !== undefined || !isRead) return;
    // Nobody there: the bytes that are read are all ones as well.
    const first = isDown ? memory - (count - 1) * size : memory;
    this.#options.memory.to(first, new Uint8Array(count * size).fill(0xff));
  }

  /** Carries out an access; undefined when nobody is there, or nobody will ever answer. */
  #exit(request: IoRequest): Halves | undefined {
    const { machine, domains, events, guest, vcpu } = this.#options;
    // What a domain that was ended for a crash would still do on a thread that has not noticed.
    if (!this.#page.exists || guest.shutdownCode >= 0) return undefined;
    if (this.#unfinished !== undefined && this.#finish(this.#unfinished) === undefined) return undefined;
    const sent = this.#locked(() => {
      const selected = selectServer(machine, guest, request);
      if (selected === undefined) return undefined;
      const { server } = selected;
      if (this.#isBuffered(request) && sendBuffered(machine, server, selected.request))
        return { server, port: server.bufferedPort, waits: false };
      if (sendRequest(machine, server, vcpu, selected.request) !== SENT) return 'spoilt';
      return { server, port: server.port(vcpu), waits: true };
    });
    if (sent === undefined) return undefined;
    if (sent === 'spoilt') {
      // As in Xen: a store or load that cannot be emulated is the guest's fault, a port access ends it.
      if (request.type === IOREQ_TYPE_PIO) domains.crash(guest);
      return undefined;
    }
    notifyModel(events, guest, sent.port);
    return sent.waits ? this.#finish(sent.server) : ALL_ONES;
  }

  /** Waits for the answer to the request that is under way; undefined when none will come. */
  #finish(server: ServerRecord): Halves | undefined {
    const { machine, domains, guest, vcpu, waitWhile } = this.#options;
    const words = machine.memory.i32;
    this.#unfinished = undefined;
    let before = STATE_IOREQ_NONE;
    for (;;) {
      const seen = this.#locked(() => {
        if (this.#heap[server.pendingWord(vcpu)] === 0) return undefined;
        const index = requestStateWord(server, vcpu);
        const word = Atomics.load(words, index);
        return { index, word, progress: judgeRequest(machine, server, vcpu, before, word) };
      });
      if (seen === undefined) return undefined;
      if (seen.progress === 'broken') {
        domains.crash(guest);
        return undefined;
      }
      if (seen.progress !== 'waiting') return seen.progress.data;
      before = stateOf(seen.word);
      if (!waitWhile(words, seen.index, seen.word)) return this.#giveUp(server);
    }
  }

  #giveUp(server: ServerRecord): undefined {
    const { machine, vcpu } = this.#options;
    this.#locked(() => {
      if (this.#heap[server.pendingWord(vcpu)] === 0) return;
      withdrawRequest(machine, server, vcpu);
      if (this.#heap[server.pendingWord(vcpu)] !== 0) this.#unfinished = server;
    });
  }

  #isBuffered({ type, address, size, flags }: IoRequest): boolean {
    return (
      type === IOREQ_TYPE_COPY &&
      (flags & (IOREQ_READ | IOREQ_DATA_IS_PTR)) === 0 &&
      address >= VGA_MEMORY &&
      address + size <= VGA_MEMORY_END &&
      this.#options.guest.kind === 'hvm'
    );
  }

  #locked<Result>(operation: () => Result): Result {
    return withLock(this.#heap, this.#page.lockWord, operation);
  }
}

function requestFor(type: number, address: number, size: number, flags: number, data: Halves): IoRequest {
  return { type, address, size, count: 1, flags, data };
}

/** Whether no device answers to accesses of so many bytes. */
function isOdd(size: number): boolean {
  return size < 1 || size > MAX_SIZE || (size & (size - 1)) !== 0;
}

function holds({ base, size }: Window, address: number): boolean {
  return address >= base && address < base + size;
}

/** The bytes of a value that an access of up to 4 has. */
function narrow({ low }: Halves, size: number): number {
  return size === 4 ? low : low & (2 ** (8 * size) - 1);
}

/** As many elements as lie in the page of the first: the next page may be somebody else's. */
function withinPage(address: number, size: number, count: number, isDown: boolean): number {
  const offset = address % XEN_PAGE_SIZE;
  const tail = XEN_PAGE_SIZE - offset;
  if (tail < size) return 1;
  return Math.min(count, Math.floor((isDown ? offset + size : tail) / size));
}
