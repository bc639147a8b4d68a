// Streams over queues, a page at a time: buffers for the device to fill, and one page on its way to it. After
// console-port.ts, before virtqueue/driver-queue.ts.
//
// Every buffer has a page of its own, which holds nothing else: in no exposure mode does the device see more. A page
// that the device does not let go of is left to the quarantine, and another one takes its place.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { ProtocolViolation } from '../errors.ts';
import { BufferList } from '../virtqueue/buffer-list.ts';
import { ADDED, type DriverQueue } from '../virtqueue/driver-queue.ts';
import type { VirtioDriver } from './virtio-driver.ts';

/** A device may return a buffer with nothing in it, but not for ever one after the other (case B17). */
const MAX_EMPTY = 64;

/** Pages of the guest that buffers on one queue have, by token. */
class BufferPages {
  readonly #driver: VirtioDriver;
  readonly #index: number;
  readonly #pages: (number | undefined)[] = [];
  readonly #buffers = new BufferList();

  constructor(driver: VirtioDriver, index: number) {
    this.#driver = driver;
    this.#index = index;
  }

  /** Undefined while the device is not used. */
  get queue(): DriverQueue | undefined {
    return this.#driver.queues[this.#index];
  }

  /** The bytes of a page, which is made if there is none; undefined when the guest has no memory for it. */
  bytes(token: number, length: number): Uint8Array | undefined {
    const { memory } = this.#driver.guest;
    this.#pages[token] ??= memory.allocatePages(1);
    const page = this.#pages[token];
    return page === undefined ? undefined : memory.bytes(page, length);
  }

  /** Shares the first `length` bytes of a page that has been made. Returns whether there was room for that. */
  add(token: number, length: number, writable: boolean): boolean {
    const page = this.#pages[token]!;
    const buffers = this.#buffers.clear();
    if (writable) buffers.addWritable(page, length);
    else buffers.addReadable(page, length);
    return this.queue?.add(buffers, token) === ADDED;
  }

  kick(): void {
    this.#driver.kick(this.#index);
  }

  /** To be called when a buffer was taken back. */
  checkShared(token: number): void {
    if (this.queue?.lastStillShared) this.#drop(token);
  }

  close(): void {
    for (const token of this.#pages.keys()) this.#drop(token);
  }

  /** Where the backend still reaches it, the quarantine has it too. */
  #drop(token: number): void {
    const page = this.#pages[token];
    this.#pages[token] = undefined;
    if (page !== undefined) this.#driver.guest.memory.freePages(page, 1);
  }
}

/** Buffers for the device to fill. */
export class Inbox {
  readonly #pages: BufferPages;
  /** Tokens of buffers that the device does not have. */
  readonly #idle: number[];
  readonly #count: number;
  /** Buffers in a row that came back with nothing in them. */
  #empty = 0;

  /** @param count pages at most */
  constructor(driver: VirtioDriver, index: number, count: number) {
    this.#pages = new BufferPages(driver, index);
    this.#count = count;
    this.#idle = Array.from({ length: count }, (_, token) => token);
  }

  /** Gives the device buffers until it has `wanted`, as far as there are memory and references for them. */
  post(wanted: number): void {
    let posted = 0;
    for (; this.#count - this.#idle.length < wanted; posted++) if (!this.#postOne()) break;
    if (posted > 0) this.#pages.kick();
  }

  /** A copy of what the device has put into the next buffer, which it does not have any more; if there is one. */
  take(): Uint8Array | undefined {
    const { queue } = this.#pages;
    const token = queue?.poll() ?? -1;
    if (queue === undefined || token < 0) return undefined;
    const bytes = this.#pages.bytes(token, XEN_PAGE_SIZE)?.slice(0, queue.lastLength);
    this.#pages.checkShared(token);
    this.#idle.push(token);
    this.#empty = bytes === undefined || bytes.length === 0 ? this.#empty + 1 : 0;
    if (this.#empty >= MAX_EMPTY) {
      this.#empty = 0;
      throw new ProtocolViolation('§5.3.6', `${MAX_EMPTY} buffers in a row came back with nothing in them`);
    }
    return bytes;
  }

  /** After a reset: takes back all buffers. */
  withdraw(): void {
    for (let token = this.#next(); token >= 0; token = this.#next()) {
      this.#pages.checkShared(token);
      this.#idle.push(token);
    }
  }

  close(): void {
    this.#pages.close();
  }

  #next(): number {
    return this.#pages.queue?.abandon() ?? -1;
  }

  #postOne(): boolean {
    const token = this.#idle.at(-1);
    if (token === undefined || this.#pages.bytes(token, XEN_PAGE_SIZE) === undefined) return false;
    if (!this.#pages.add(token, XEN_PAGE_SIZE, true)) return false;
    this.#idle.pop();
    return true;
  }
}

/** One page on its way to the device. */
export class Outbox {
  readonly #pages: BufferPages;

  constructor(driver: VirtioDriver, index: number) {
    this.#pages = new BufferPages(driver, index);
  }

  /** Whether the device has something that it has not taken. */
  get busy(): boolean {
    return (this.#pages.queue?.inFlight ?? 0) > 0;
  }

  /**
   * Sends up to a page, unless it is busy.
   *
   * @returns false when that cannot be done now
   */
  send(bytes: Uint8Array): boolean {
    if (this.busy) return false;
    const page = this.#pages.bytes(0, bytes.length);
    if (page === undefined) return false;
    page.set(bytes);
    if (!this.#pages.add(0, bytes.length, false)) return false;
    this.#pages.kick();
    return true;
  }

  /** Whether the device has taken what was sent last; asked once. */
  poll(): boolean {
    const token = this.#pages.queue?.poll() ?? -1;
    if (token >= 0) this.#pages.checkShared(token);
    return token >= 0;
  }

  /** After a reset: takes back what the device has not taken. */
  withdraw(): void {
    const token = this.#pages.queue?.abandon() ?? -1;
    if (token >= 0) this.#pages.checkShared(token);
  }

  close(): void {
    this.#pages.close();
  }
}
