// Windows: ranges of device registers for which a server has asked Xen to keep three registers of virtio-mmio away
// from it, as ioeventfd and irqfd do on a real host. QueueNotify sets a bit of the window's doorbell and raises an
// event channel; InterruptStatus and InterruptACK are a word that both sides change.
//
// Guest and device model change these words at any time, each on its own thread and without a lock. A table
// therefore outlives both: it stays with its place when the server is destroyed, and it stays with the device model
// when the guest goes first ("orphan"), until that lets go of it.

import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import { MachinePage } from './machine-page.ts';

/** Windows of one server at most: as many as it may have ranges. */
export const MAX_WINDOWS = 256;
const WINDOW_WORDS = 8;
export const WINDOW_TABLE_PAGES = (MAX_WINDOWS * WINDOW_WORDS * 4) / XEN_PAGE_SIZE;

// Words of a window.
const BASE = 0;
/** 0 while there is none. */
const SIZE = 1;
/** Event channel of the device model. */
const DOORBELL_PORT = 2;
/** Event channel of the guest; 0 until it has chosen one. */
const INTERRUPT_PORT = 3;
const INTERRUPT_STATUS = 4;
/** One bit for each of 64 queues that were notified and not yet served. */
const DOORBELL_LOW = 5;
/** Of the first window: the next orphan in the list of its device model. */
const NEXT = 7;

/** A window as both sides use it. */
export class Window {
  readonly base: number;
  readonly size: number;
  readonly doorbellPort: number;
  readonly #heap: Int32Array;
  readonly #at: number;

  constructor(machine: Machine, at: number) {
    this.#heap = machine.heap;
    this.#at = at;
    this.base = machine.heap[at + BASE] >>> 0;
    this.size = machine.heap[at + SIZE];
    this.doorbellPort = machine.heap[at + DOORBELL_PORT];
  }

  /** Notes that a queue below 64 was notified. */
  ring(queue: number): void {
    Atomics.or(this.#heap, this.#at + DOORBELL_LOW + (queue >>> 5), 1 << (queue & 31));
  }

  /** Takes the queues 0-31 (`high` false) or 32-63 that were notified since the last call, one bit each. */
  takeDoorbell(high: boolean): number {
    return Atomics.exchange(this.#heap, this.#at + DOORBELL_LOW + (high ? 1 : 0), 0) >>> 0;
  }

  get interruptStatus(): number {
    return Atomics.load(this.#heap, this.#at + INTERRUPT_STATUS);
  }

  setInterrupts(bits: number): void {
    Atomics.or(this.#heap, this.#at + INTERRUPT_STATUS, bits);
  }

  clearInterrupts(bits: number): void {
    Atomics.and(this.#heap, this.#at + INTERRUPT_STATUS, ~bits);
  }

  get interruptPort(): number {
    return Atomics.load(this.#heap, this.#at + INTERRUPT_PORT);
  }

  set interruptPort(port: number) {
    Atomics.store(this.#heap, this.#at + INTERRUPT_PORT, port);
  }

  /** Ends the window; for the holder of the device model's lock. */
  end(): void {
    this.#heap[this.#at + SIZE] = 0;
  }
}

/** The windows of a table, in no order. For the holder of the device model's lock. */
export function* windowsOf(machine: Machine, table: number): Generator<Window> {
  if (table === 0) return;
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = table + index * WINDOW_WORDS;
    if (machine.heap[at + SIZE] !== 0) yield new Window(machine, at);
  }
}

/** Makes a window in a table; undefined when all are taken. For the holder of the device model's lock. */
export function addWindow(
  machine: Machine,
  table: number,
  base: number,
  size: number,
  doorbellPort: number,
): Window | undefined {
  const { heap } = machine;
  for (let index = 0; index < MAX_WINDOWS; index++) {
    const at = table + index * WINDOW_WORDS;
    if (heap[at + SIZE] !== 0) continue;
    heap[at + INTERRUPT_PORT] = 0;
    heap[at + INTERRUPT_STATUS] = 0;
    heap[at + DOORBELL_LOW] = 0;
    heap[at + DOORBELL_LOW + 1] = 0;
    heap[at + BASE] = base;
    heap[at + DOORBELL_PORT] = doorbellPort;
    heap[at + SIZE] = size;
    return new Window(machine, at);
  }
  return undefined;
}

/** Leaves a table to the device model of a guest that is going, unless the device model is going itself. */
export function orphan(machine: Machine, emulator: DomainRecord, table: number): void {
  const { heap } = machine;
  lock(heap, machine.lockWord);
  const { orphansWord } = new MachinePage(machine, emulator);
  if (!emulator.alive) machine.givePages(table, WINDOW_TABLE_PAGES);
  else {
    heap[table + NEXT] = heap[orphansWord];
    heap[orphansWord] = table;
  }
  unlock(heap, machine.lockWord);
}

/** Gives back a table that was left to a device model, or all that were. */
export function releaseOrphans(machine: Machine, emulator: DomainRecord, table?: number): void {
  const { heap } = machine;
  lock(heap, machine.lockWord);
  let link = new MachinePage(machine, emulator).orphansWord;
  while (heap[link] !== 0) {
    const found = heap[link];
    if (table !== undefined && table !== found) link = found + NEXT;
    else {
      heap[link] = heap[found + NEXT];
      machine.givePages(found, WINDOW_TABLE_PAGES);
    }
  }
  unlock(heap, machine.lockWord);
}
