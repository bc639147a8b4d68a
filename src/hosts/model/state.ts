// Everything the embedded Xen knows, in two stretches of memory: the machine's frames and Xen's own heap. A hypercall runs on the caller's thread over this state, so all of it is words that several
// threads change by compare-and-swap; a thread needs nothing but a XenState to take part.

import { regionOver, type Region } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';

/** The two stretches; where they are shared, what can be sent to another thread. */
export interface XenState {
  readonly memory: ArrayBufferLike;
  readonly heap: ArrayBufferLike;
}

/** Domains that can exist at once; a domain's id is its place in the table. */
export const MAX_DOMAINS = 128;
/** MMIO windows that can exist at once. */
export const MAX_WINDOWS = 128;

/** Words of the heap's fixed part. Word 0 stays 0, so that 0 can mean "none" in links. */
const HEAP_NEXT = 1;
const FRAMES_NEXT = 2;
const LOCK_DOMAINS = 3;
const LOCK_EVENTS = 4;
const TABLES = 16;

/** Words of a domain's record. */
export const DOMAIN_WORDS = 32;
/** Words of an MMIO window's record. */
export const WINDOW_WORDS = 16;

const DOMAINS = TABLES;
const WINDOWS = DOMAINS + MAX_DOMAINS * DOMAIN_WORDS;
const HEAP_START = WINDOWS + MAX_WINDOWS * WINDOW_WORDS;

/**
 * Makes the state of a machine that has just been switched on.
 *
 * @param memoryBytes memory of the machine, for all domains; a multiple of 4096
 * @param heapBytes memory for Xen's own tables
 * @param shared whether domains run on threads of their own; copies are slower in shared memory
 */
export function createXenState(memoryBytes: number, heapBytes: number, shared: boolean): XenState {
  const make = (bytes: number) => (shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
  const state = { memory: make(memoryBytes), heap: make(heapBytes) };
  const heap = new Int32Array(state.heap);
  heap[HEAP_NEXT] = HEAP_START;
  // Frame 0 is never given out: a frame number of 0 means "none" in Xen's tables.
  heap[FRAMES_NEXT] = 1;
  return state;
}

/** The machine's state as one thread sees it. */
export class Machine {
  readonly state: XenState;
  readonly memory: Region;
  readonly heap: Int32Array;
  /** Index of the word that locks the tables of domains and windows, and the heap. */
  readonly lockWord = LOCK_DOMAINS;
  /** Index of the word that locks the event channels of all domains. */
  readonly eventLockWord = LOCK_EVENTS;

  constructor(state: XenState) {
    this.state = state;
    this.memory = regionOver(state.memory);
    this.heap = new Int32Array(state.heap);
  }

  /** Index of the first word of a domain's record. */
  domainRecord(id: number): number {
    return DOMAINS + id * DOMAIN_WORDS;
  }

  /** Index of the first word of an MMIO window's record. */
  windowRecord(index: number): number {
    return WINDOWS + index * WINDOW_WORDS;
  }

  /** Throws RangeError unless the heap has `count` words left. For the holder of the lock. */
  requireWords(count: number): void {
    const left = this.heap.length - this.heap[HEAP_NEXT];
    if (count > left) throw usedUp(left, 'words of Xen heap', count);
  }

  /** Takes zeroed words that `requireWords` has found. */
  allocateWords(count: number): number {
    const first = this.heap[HEAP_NEXT];
    this.heap[HEAP_NEXT] = first + count;
    return first;
  }

  /** Takes zeroed machine frames that follow each other. Throws RangeError when memory is used up. */
  allocateFrames(count: number): number {
    const first = this.takeFrames(count);
    if (first < 0)
      throw usedUp(this.#frames - Atomics.load(this.heap, FRAMES_NEXT), 'frames of memory', count);
    return first;
  }

  /** The same where that is to be expected: -1 when memory is used up. */
  takeFrames(count: number): number {
    for (;;) {
      const first = Atomics.load(this.heap, FRAMES_NEXT);
      if (first + count > this.#frames) return -1;
      if (Atomics.compareExchange(this.heap, FRAMES_NEXT, first, first + count) === first) return first;
    }
  }

  get #frames(): number {
    return this.memory.byteLength / XEN_PAGE_SIZE;
  }
}

function usedUp(left: number, what: string, needed: number): RangeError {
  return new RangeError(`the machine has ${left} ${what} left; ${needed} are needed`);
}
