// Domains of the embedded Xen: their records, memory and address spaces.
//
// A domain's guest-physical address space is a table of one word for each 4 KiB frame (gfn): which machine
// frame it is, and whether the domain may write there. Memory of its own comes first, then the frames of
// its grant table, then a window in which it maps what others granted.

import {
  GRANT_DEFAULT_MAX_FRAMES,
  GRANT_ENTRIES_PER_FRAME_V1,
  MAPTRACK_DEFAULT_HANDLES,
} from '../../abi/grant.ts';
import { EVTCHN_2L_PORTS } from '../../abi/event-channel.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { assert } from '../../errors.ts';
import { type DomainId, domainId } from '../../xen/ids.ts';
import { lock, unlock } from './lock.ts';
import { type Machine, MAX_DOMAINS } from './state.ts';

/** Kinds of entries of an address space. */
export const P2M_NONE = 0;
export const P2M_RAM = 1;
export const P2M_GRANT_WRITABLE = 2;
export const P2M_GRANT_READONLY = 3;
const P2M_TYPE_MASK = 7;
const P2M_FRAME_SHIFT = 3;

/** Words of an active grant entry: lock, pins, the domain that maps it, the machine frame. */
export const ACTIVE_WORDS = 4;
/** Words of a maptrack entry, see maptrack.ts. */
export const MAPTRACK_WORDS = 4;
/** Bits of a link in the list of free handles: a handle + 1, or 0. */
export const MAPTRACK_INDEX_BITS = 19;
/** Bits of a reference in a maptrack entry. */
export const MAPPED_REF_BITS = 24;
const MOST_GRANT_FRAMES = (1 << MAPPED_REF_BITS) / GRANT_ENTRIES_PER_FRAME_V1;
/** Words of an event channel: state, remote domain, remote port. */
export const EVENT_WORDS = 4;

// Words of a domain's record.
const ALIVE = 0;
const RAM_FRAME = 1;
const RAM_FRAMES = 2;
const P2M = 3;
const P2M_FRAMES = 4;
const GRANT_FRAMES = 5;
const MAX_GRANT_FRAMES = 6;
const GRANT_FRAME_LIST = 7;
const ACTIVE = 8;
const MAPTRACK = 9;
const MAPTRACK_HANDLES = 10;
const WINDOW = 12;
const EVENTS = 13;
const SHARED_INFO = 14;
const WAKE = 15;
const SLEEPING = 16;
const GRANT_LOCK = 17;
const MAPTRACK_USED = 18;
const MAPTRACK_FREE = 19;

/** What a domain is made with. */
export interface DomainOptions {
  /** Bytes of memory; a multiple of 4096. */
  readonly memory: number;
  readonly maxGrantFrames?: number;
  readonly maxMaptrackHandles?: number;
}

/** The record of one domain, for hypercalls. What never changes while the domain lives is read once. */
export class DomainRecord {
  readonly id: DomainId;
  /** First machine frame of its memory, and how many follow. */
  readonly ramFrame: number;
  readonly ramFrames: number;
  readonly maxGrantFrames: number;
  readonly maptrackHandles: number;
  /** First frame of the window for mapped grants. It has a frame for each handle. */
  readonly window: number;
  /** Byte offset in the machine's memory of the shared_info page. */
  readonly sharedInfo: number;
  /** Word that heads the list of maptrack handles that were given back. */
  readonly maptrackFreeWord: number;
  /** Word that counts the maptrack handles used at least once. */
  readonly maptrackUsedWord: number;
  /** Word that changes whenever the domain is to wake, and the word that says it sleeps. */
  readonly wakeWord: number;
  readonly sleepingWord: number;

  readonly #heap: Int32Array;
  readonly #at: number;
  readonly #p2m: number;
  readonly #p2mFrames: number;
  readonly #grantFrameList: number;
  readonly #active: number;
  readonly #maptrack: number;
  readonly #events: number;

  constructor(machine: Machine, id: DomainId) {
    const { heap } = machine;
    const at = machine.domainRecord(id);
    this.id = id;
    this.ramFrame = heap[at + RAM_FRAME];
    this.ramFrames = heap[at + RAM_FRAMES];
    this.maxGrantFrames = heap[at + MAX_GRANT_FRAMES];
    this.maptrackHandles = heap[at + MAPTRACK_HANDLES];
    this.window = heap[at + WINDOW];
    this.sharedInfo = heap[at + SHARED_INFO] * XEN_PAGE_SIZE;
    this.maptrackFreeWord = at + MAPTRACK_FREE;
    this.maptrackUsedWord = at + MAPTRACK_USED;
    this.wakeWord = at + WAKE;
    this.sleepingWord = at + SLEEPING;
    this.#heap = heap;
    this.#at = at;
    this.#p2m = heap[at + P2M];
    this.#p2mFrames = heap[at + P2M_FRAMES];
    this.#grantFrameList = heap[at + GRANT_FRAME_LIST];
    this.#active = heap[at + ACTIVE];
    this.#maptrack = heap[at + MAPTRACK];
    this.#events = heap[at + EVENTS];
  }

  get alive(): boolean {
    return this.#heap[this.#at + ALIVE] === 1;
  }

  /** Frames that its grant table has now. */
  get grantFrames(): number {
    return Atomics.load(this.#heap, this.#at + GRANT_FRAMES);
  }

  /** Machine frame of the grant table's frame `index`. */
  grantFrame(index: number): number {
    return this.#heap[this.#grantFrameList + index];
  }

  /** Index of the first word of the active entry of `ref`. */
  activeEntry(ref: number): number {
    return this.#active + ref * ACTIVE_WORDS;
  }

  /** Index of the first word of a handle's maptrack entry. */
  maptrackEntry(handle: number): number {
    return this.#maptrack + handle * MAPTRACK_WORDS;
  }

  /** Index of the first word of an event channel. */
  eventEntry(port: number): number {
    return this.#events + port * EVENT_WORDS;
  }

  /** The entry of the address space at `gfn`, P2M_NONE outside. */
  p2mType(gfn: number): number {
    return this.#p2mEntry(gfn) & P2M_TYPE_MASK;
  }

  /** Machine frame at `gfn`; meaningless where the type is P2M_NONE. */
  p2mFrame(gfn: number): number {
    return this.#p2mEntry(gfn) >>> P2M_FRAME_SHIFT;
  }

  /** Puts a machine frame at an empty place. Returns false when the place is taken or does not exist. */
  p2mAdd(gfn: number, frame: number, type: number): boolean {
    if (!this.#hasPlace(gfn)) return false;
    const entry = (frame << P2M_FRAME_SHIFT) | type;
    return Atomics.compareExchange(this.#heap, this.#p2m + gfn, P2M_NONE, entry) === P2M_NONE;
  }

  p2mRemove(gfn: number): void {
    this.#heap[this.#p2m + gfn] = P2M_NONE;
  }

  #hasPlace(gfn: number): boolean {
    return gfn >= 0 && gfn < this.#p2mFrames;
  }

  #p2mEntry(gfn: number): number {
    return this.#hasPlace(gfn) ? this.#heap[this.#p2m + gfn] >>> 0 : P2M_NONE;
  }
}

/** All domains of a machine. */
export class Domains {
  readonly #machine: Machine;
  readonly #records: (DomainRecord | undefined)[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The record of `id`; undefined when there is no such domain. */
  find(id: number): DomainRecord | undefined {
    const known = this.#records[id];
    if (known !== undefined) return known.alive ? known : undefined;
    if (!Number.isInteger(id) || id < 0 || id >= MAX_DOMAINS) return undefined;
    if (Atomics.load(this.#machine.heap, this.#machine.domainRecord(id) + ALIVE) === 0) return undefined;
    const record = new DomainRecord(this.#machine, domainId(id));
    this.#records[id] = record;
    return record;
  }

  /**
   * Creates a domain with zeroed memory.
   *
   * @throws RangeError when the id is taken or impossible, or the machine has no room for it
   */
  create(id: number, options: DomainOptions): DomainRecord {
    checkOptions(id, options);
    const { heap, lockWord } = this.#machine;
    lock(heap, lockWord);
    try {
      if (this.find(id)) throw new RangeError(`domain ${id} exists already`);
      this.#build(id, options);
    } finally {
      unlock(heap, lockWord);
    }
    const record = this.find(id);
    assert(record !== undefined, 'a domain that was built is found');
    return record;
  }

  /**
   * Adds frames to a grant table, up to `frames` in all. Returns false, and adds none, beyond the domain's
   * limit or when the machine's memory is used up.
   */
  growGrantTable(record: DomainRecord, frames: number): boolean {
    if (frames > record.maxGrantFrames) return false;
    const { heap } = this.#machine;
    const at = this.#machine.domainRecord(record.id);
    lock(heap, at + GRANT_LOCK);
    try {
      const before = record.grantFrames;
      const first = this.#machine.takeFrames(Math.max(frames - before, 0));
      if (first < 0) return false;
      for (let index = before; index < frames; index++) {
        const frame = first + index - before;
        heap[heap[at + GRANT_FRAME_LIST] + index] = frame;
        record.p2mAdd(record.ramFrames + index, frame, P2M_RAM);
        Atomics.store(heap, at + GRANT_FRAMES, index + 1);
      }
    } finally {
      unlock(heap, at + GRANT_LOCK);
    }
    return true;
  }

  #build(id: number, options: DomainOptions): void {
    const machine = this.#machine;
    const { heap } = machine;
    const at = machine.domainRecord(id);
    const frames = options.memory / XEN_PAGE_SIZE;
    const grantFrames = options.maxGrantFrames ?? GRANT_DEFAULT_MAX_FRAMES;
    const handles = options.maxMaptrackHandles ?? MAPTRACK_DEFAULT_HANDLES;
    const places = frames + grantFrames + handles;
    const tables = [
      [P2M, places],
      [GRANT_FRAME_LIST, grantFrames],
      [ACTIVE, grantFrames * GRANT_ENTRIES_PER_FRAME_V1 * ACTIVE_WORDS],
      [MAPTRACK, handles * MAPTRACK_WORDS],
      [EVENTS, EVTCHN_2L_PORTS * EVENT_WORDS],
    ];
    // Both of the machine's resources, or neither.
    machine.requireWords(tables.reduce((sum, [, words]) => sum + words, 0));
    const firstFrame = machine.allocateFrames(frames + 1);
    for (const [field, words] of tables) heap[at + field] = machine.allocateWords(words);
    heap[at + RAM_FRAME] = firstFrame;
    heap[at + RAM_FRAMES] = frames;
    heap[at + SHARED_INFO] = firstFrame + frames;
    heap[at + MAX_GRANT_FRAMES] = grantFrames;
    heap[at + MAPTRACK_HANDLES] = handles;
    heap[at + WINDOW] = frames + grantFrames;
    heap[at + P2M_FRAMES] = places;
    for (let gfn = 0; gfn < frames; gfn++)
      heap[heap[at + P2M] + gfn] = ((firstFrame + gfn) << P2M_FRAME_SHIFT) | P2M_RAM;
    Atomics.store(heap, at + ALIVE, 1);
  }
}

/** Throws RangeError for what no domain can be made with. */
function checkOptions(id: number, options: DomainOptions): void {
  const { memory, maxGrantFrames = 1, maxMaptrackHandles = 0 } = options;
  if (!Number.isInteger(id) || id < 0 || id >= MAX_DOMAINS)
    throw new RangeError(`domain ${id}: the embedded Xen has room for ids from 0 to ${MAX_DOMAINS - 1}`);
  if (!(memory > 0) || memory % XEN_PAGE_SIZE !== 0)
    throw new RangeError(`domain ${id}: memory of ${memory} bytes is no multiple of ${XEN_PAGE_SIZE}`);
  if (!(maxGrantFrames >= 1 && maxGrantFrames <= MOST_GRANT_FRAMES))
    throw new RangeError(
      `domain ${id}: max_grant_frames is ${maxGrantFrames}; expected 1 to ${MOST_GRANT_FRAMES}`,
    );
  if (!(maxMaptrackHandles >= 0 && maxMaptrackHandles < 1 << MAPTRACK_INDEX_BITS))
    throw new RangeError(
      `domain ${id}: ${maxMaptrackHandles} maptrack handles; expected 0 to ${(1 << MAPTRACK_INDEX_BITS) - 1}`,
    );
}
