// The record of one ioreq server: one page of Xen's heap, the tables of ranges and windows that it points to, and
// the frames that it shares with its device model. Once taken, pages stay with their place until the guest goes:
// a processor of the guest may still look at them when their server is destroyed. The frames do not.

import { ioreq } from '../../../abi/ioreq.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { MAX_VCPUS } from '../domain-options.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';
import { MachinePage, MAX_IOREQ_SERVERS } from './machine-page.ts';
import { Ranges } from './ranges.ts';
import { WINDOW_TABLE_PAGES } from './windows.ts';

// Words of a record.
const USED = 0;
const EMULATOR = 1;
const ENABLED = 2;
const BUFFERING = 3;
const BUFFERED_PORT = 4;
/** Machine frames of the two pages, 0 until they are asked for, and where they stand in the guest, + 1. */
const FRAMES = 5;
const GFNS = 7;
const RANGE_PAGES = 9;
const RANGE_COUNTS = 12;
const WINDOWS = 15;
/** Two words for each processor of the guest: its event channel, and whether its request is under way. */
const VCPUS = 32;

const RANGE_TYPES = 3;
/** The page of the processors' requests, and the page of buffered ones. */
export const SYNCHRONOUS_PAGE = 0;
export const BUFFERED_PAGE = 1;
export type ServerPage = typeof SYNCHRONOUS_PAGE | typeof BUFFERED_PAGE;

/** One place for a server in its guest's table. */
export class ServerRecord {
  readonly #machine: Machine;
  readonly #heap: Int32Array;
  readonly #at: number;

  constructor(machine: Machine, at: number) {
    this.#machine = machine;
    this.#heap = machine.heap;
    this.#at = at;
  }

  get used(): boolean {
    return this.#heap[this.#at + USED] === 1;
  }

  /** Id of the domain that serves. */
  get emulator(): number {
    return this.#heap[this.#at + EMULATOR];
  }

  get enabled(): boolean {
    return this.#heap[this.#at + ENABLED] === 1;
  }

  set enabled(enabled: boolean) {
    this.#heap[this.#at + ENABLED] = enabled ? 1 : 0;
  }

  /** One of HVM_IOREQSRV_BUFIOREQ_. */
  get buffering(): number {
    return this.#heap[this.#at + BUFFERING];
  }

  /** The guest's end of the event channel for buffered requests; 0 when there are none. */
  get bufferedPort(): number {
    return this.#heap[this.#at + BUFFERED_PORT];
  }

  /** The guest's end of the event channel for requests of one processor. */
  port(vcpu: number): number {
    return this.#heap[this.#at + VCPUS + 2 * vcpu];
  }

  /** Word that is 1 while a request of a processor is under way. */
  pendingWord(vcpu: number): number {
    return this.#at + VCPUS + 2 * vcpu + 1;
  }

  frame(page: ServerPage): number {
    return this.#heap[this.#at + FRAMES + page];
  }

  setFrame(page: ServerPage, frame: number): void {
    this.#heap[this.#at + FRAMES + page] = frame;
  }

  /** Where a page stands in the guest's address space; -1 where it does not. */
  gfn(page: ServerPage): number {
    return this.#heap[this.#at + GFNS + page] - 1;
  }

  setGfn(page: ServerPage, gfn: number): void {
    this.#heap[this.#at + GFNS + page] = gfn + 1;
  }

  /** Byte offset in the machine's memory of a processor's request, whose page must exist. */
  request(vcpu: number): number {
    return this.frame(SYNCHRONOUS_PAGE) * XEN_PAGE_SIZE + vcpu * ioreq.size;
  }

  /** Ranges of one of the XEN_DMOP_IO_RANGE_ kinds; undefined when it has none and never had. */
  ranges(type: number): Ranges | undefined {
    const page = this.#heap[this.#at + RANGE_PAGES + type];
    return page === 0 ? undefined : new Ranges(this.#heap, page, this.#at + RANGE_COUNTS + type);
  }

  /** The same, made if need be; undefined when Xen's heap is used up. */
  makeRanges(type: number): Ranges | undefined {
    const word = this.#at + RANGE_PAGES + type;
    if (this.#heap[word] === 0) this.#heap[word] = this.#machine.takePages(1);
    return this.ranges(type);
  }

  /** Index of the first word of its table of windows; 0 when there is none. */
  get windows(): number {
    return this.#heap[this.#at + WINDOWS];
  }

  set windows(table: number) {
    this.#heap[this.#at + WINDOWS] = table;
  }

  /** Makes the place a new server's. Its ports are those of the processors, then the one for buffered requests. */
  begin(emulator: number, buffering: number, ports: readonly number[], bufferedPort: number): void {
    this.#heap[this.#at + EMULATOR] = emulator;
    this.#heap[this.#at + BUFFERING] = buffering;
    this.#heap[this.#at + BUFFERED_PORT] = bufferedPort;
    ports.forEach((port, vcpu) => {
      this.#heap[this.#at + VCPUS + 2 * vcpu] = port;
    });
    this.#heap[this.#at + USED] = 1;
  }

  /** Makes the place free. Its tables stay. */
  end(): void {
    for (let type = 0; type < RANGE_TYPES; type++) this.ranges(type)?.clear();
    this.#heap.fill(0, this.#at, this.#at + RANGE_PAGES);
    this.#heap.fill(0, this.#at + VCPUS, this.#at + VCPUS + 2 * MAX_VCPUS);
  }

  /** Gives all pages back, for a guest that is going. */
  release(): void {
    for (let type = 0; type < RANGE_TYPES; type++) {
      const page = this.#heap[this.#at + RANGE_PAGES + type];
      if (page !== 0) this.#machine.givePages(page, 1);
    }
    if (this.windows !== 0) this.#machine.givePages(this.windows, WINDOW_TABLE_PAGES);
    this.#machine.givePages(this.#at, 1);
  }
}

/** The record at a place of a guest's table; undefined when no server was ever there. */
export function serverAt(machine: Machine, guest: DomainRecord, id: number): ServerRecord | undefined {
  if (!(id >= 0 && id < MAX_IOREQ_SERVERS)) return undefined;
  const at = machine.heap[new MachinePage(machine, guest).serverWord(id)];
  return at === 0 ? undefined : new ServerRecord(machine, at);
}
