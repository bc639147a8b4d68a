// Everything the embedded Xen knows, in two stretches of memory: the machine's frames and Xen's own heap. A
// hypercall runs on the caller's thread over this state, so all of it is words that several threads change by
// compare-and-swap or under a lock; a thread needs nothing but a XenState to take part.

import { regionOver, type Region } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { PagePool, poolWords } from './page-pool.ts';

/** The two stretches; where they are shared, what can be sent to another thread. */
export interface XenState {
  readonly memory: ArrayBufferLike;
  readonly heap: ArrayBufferLike;
}

/** Domains that can exist at once; a domain's id is its place in the table. */
export const MAX_DOMAINS = 128;

/** Words of a page of Xen's heap. */
export const PAGE_WORDS = XEN_PAGE_SIZE / 4;
/** Words of a domain's record. */
export const DOMAIN_WORDS = 128;

// Words of the heap's fixed part. Word 0 stays 0, so that 0 can mean "none" in links.
const LOCK_DOMAINS = 1;
const LOCK_EVENTS = 2;
const GENERATIONS = 3;
const DOMAINS = 16;
/** One word for each machine frame, see foreign-pages.ts. */
const FRAME_USES = DOMAINS + MAX_DOMAINS * DOMAIN_WORDS;

/** In the word of a frame: its domain has given it back, but others still use it. */
export const FRAME_GIVEN_BACK = 1 << 30;

/** Where the pools of a heap lie, and how many units they have. */
function layout(memoryBytes: number, heapBytes: number) {
  const frames = Math.floor(memoryBytes / XEN_PAGE_SIZE);
  const framePool = FRAME_USES + frames;
  const pagePool = framePool + poolWords(frames);
  const pageCount = Math.floor(heapBytes / XEN_PAGE_SIZE);
  const firstPage = Math.ceil((pagePool + poolWords(pageCount)) / PAGE_WORDS);
  return { frames, framePool, pagePool, firstPage, pages: Math.max(pageCount - firstPage, 0) };
}

/**
 * Makes the state of a machine that has just been switched on.
 *
 * @param memoryBytes memory of the machine, for all domains; a multiple of 4096
 * @param heapBytes memory for Xen's own tables; a multiple of 4096
 * @param shared whether domains run on threads of their own; copies are slower in shared memory
 */
export function createXenState(memoryBytes: number, heapBytes: number, shared: boolean): XenState {
  const { frames, framePool, pagePool, firstPage, pages } = layout(memoryBytes, heapBytes);
  if (pages === 0)
    throw new RangeError(`a heap of ${heapBytes} bytes: expected more than ${firstPage * XEN_PAGE_SIZE}`);
  const make = (bytes: number) => (shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
  const state = { memory: make(memoryBytes), heap: make(heapBytes) };
  const heap = new Int32Array(state.heap);
  // Frame 0 is never given out: a frame number of 0 means "none" in Xen's tables.
  PagePool.initialise(heap, framePool, frames).take(1);
  PagePool.initialise(heap, pagePool, pages);
  return state;
}

/** The machine's state as one thread sees it. */
export class Machine {
  readonly state: XenState;
  readonly memory: Region;
  readonly heap: Int32Array;
  /** Machine frames. */
  readonly frames: PagePool;
  /** Index of the word that locks the table of domains. */
  readonly lockWord = LOCK_DOMAINS;
  /** Index of the word that locks the event channels of all domains. */
  readonly eventLockWord = LOCK_EVENTS;
  readonly #pages: PagePool;
  readonly #firstPage: number;

  constructor(state: XenState) {
    this.state = state;
    this.memory = regionOver(state.memory);
    this.heap = new Int32Array(state.heap);
    const { frames, framePool, pagePool, firstPage, pages } = layout(
      state.memory.byteLength,
      state.heap.byteLength,
    );
    this.frames = new PagePool(this.heap, framePool, frames);
    this.#pages = new PagePool(this.heap, pagePool, pages);
    this.#firstPage = firstPage;
  }

  /** Index of the first word of a domain's record. */
  domainRecord(id: number): number {
    return DOMAINS + id * DOMAIN_WORDS;
  }

  /** Index of the word that counts who else has a machine frame in its address space. */
  frameUseWord(frame: number): number {
    return FRAME_USES + frame;
  }

  /** A number that no domain has had; for the holder of the lock. */
  nextGeneration(): number {
    return ++this.heap[GENERATIONS];
  }

  /** Pages of Xen's heap that nobody has. */
  get pagesFree(): number {
    return this.#pages.free;
  }

  /** Takes zeroed pages of Xen's heap. Returns the index of the first word, or 0 when the heap is used up. */
  takePages(count: number): number {
    const page = this.#pages.take(count);
    return page < 0 ? 0 : (this.#firstPage + page) * PAGE_WORDS;
  }

  /** Gives pages of the heap back, from the index of their first word, and wipes them. */
  givePages(at: number, count: number): void {
    this.heap.fill(0, at, at + count * PAGE_WORDS);
    this.#pages.give(at / PAGE_WORDS - this.#firstPage, count);
  }

  /**
   * Gives machine frames back, wiped: what a domain leaves behind is nobody's to read. A frame that other domains
   * have in their address spaces is given back when the last of them lets go of it (foreign-pages.ts).
   */
  giveFrames(first: number, count: number): void {
    let start = first;
    for (let frame = first; frame < first + count; frame++) {
      if (!this.#isUsed(frame)) continue;
      this.#wipeAndGive(start, frame - start);
      start = frame + 1;
    }
    this.#wipeAndGive(start, first + count - start);
  }

  /** Whether others use a frame; if so, it is marked as given back. */
  #isUsed(frame: number): boolean {
    const word = this.frameUseWord(frame);
    for (let uses = Atomics.load(this.heap, word); uses !== 0; ) {
      const seen = Atomics.compareExchange(this.heap, word, uses, uses | FRAME_GIVEN_BACK);
      if (seen === uses) return true;
      uses = seen;
    }
    return false;
  }

  #wipeAndGive(first: number, count: number): void {
    if (count === 0) return;
    this.memory.u8.fill(0, first * XEN_PAGE_SIZE, (first + count) * XEN_PAGE_SIZE);
    this.frames.give(first, count);
  }
}
