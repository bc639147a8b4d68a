// What Xen knows of one domain: a record of words in Xen's heap, and the tables that it points to.

import { GRANT_ENTRIES_PER_FRAME_V1, GRANT_ENTRIES_PER_FRAME_V2 } from '../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { DomainId } from '../../xen/ids.ts';
import {
  type AddressMap,
  addressMap,
  type Architecture,
  ARCHITECTURES,
  type DomainKind,
  GRANT_WINDOW,
} from './address-map.ts';
import type { CheckedOptions } from './domain-options.ts';
import { P2M_RAM, p2mFrame, p2mType, Physmap } from './physmap.ts';
import { DOMAIN_WORDS, type Machine, PAGE_WORDS } from './state.ts';

/** States of a domain. */
export const DOMAIN_NONE = 0;
export const DOMAIN_ALIVE = 1;
/** It is being taken apart: nothing new can be done to it. */
export const DOMAIN_DYING = 2;
/** It has gone, save for pages that other domains still map: xl lists it as "(null)". */
export const DOMAIN_DEAD = 3;
/** The last of it is being given back: nobody can find it, and its id is not free yet. */
export const DOMAIN_ENDING = 4;

// Words of a record.
const STATE = 0;
const GENERATION = 1;
const KIND = 2;
const RAM_FRAME = 3;
const RAM_FRAMES = 4;
const PHYSMAP = 5;
const SHARED_INFO = 6;
const WAKE = 7;
const SLEEPING = 8;
const PAUSED = 9;
const SHUTDOWN = 10;
const VCPUS = 11;
const CONSOLE = 12;
const XENSTORE = 13;
const KEPT = 14;
const PRIVILEGED = 15;
const GRANT_LOCK = 16;
const GRANT_VERSION = 17;
const GRANT_FRAMES = 18;
const MAX_GRANT_FRAMES = 19;
const STATUS_FRAMES = 20;
const MAX_GRANT_VERSION = 21;
const V2_OPERATIONS = 22;
const DIRECTORY = 23;
const MAPTRACK_LIMIT = 24;
const MAX_MAPTRACK_FRAMES = 25;
const MAPTRACK_LOCK = 26;
/** 1 while its thread stands still because it is paused. */
const PARKED = 27;
/** Three words for each processor: lock, head and tail of its free handles. */
const MAPTRACK_LISTS = 32;
export const MAPTRACK_LIST_WORDS = 3;
/** First word of the event channels' part, and of the device models'. */
const EVENTS = 64;
const DEVICE_MODEL = 80;
/**
 * Deliveries of events that are going on, and hypercalls that look at the tables. Not cleared for a new domain:
 * somebody may still be about to find out that the old one has gone.
 */
const RAISES = DOMAIN_WORDS - 1;
const USERS = DOMAIN_WORDS - 2;

const KINDS: readonly DomainKind[] = ['pv', 'hvm', 'pvh'];
const ARCHITECTURE_SHIFT = 4;

/** Words of an active grant entry, see grants/active-entry.ts. */
export const ACTIVE_WORDS = 8;
const ACTIVE_PER_PAGE_SHIFT = 7;
const ACTIVE_PAGES_PER_GRANT_FRAME = (GRANT_ENTRIES_PER_FRAME_V1 * ACTIVE_WORDS) / PAGE_WORDS;
/** Words of a maptrack entry, see grants/maptrack.ts; handles in one frame of them. */
export const MAPTRACK_WORDS = 4;
const MAPTRACK_PER_PAGE_SHIFT = 8;

/** Frames of statuses that go with frames of version 2 entries (one u16 for each entry). */
export function statusFramesFor(grantFrames: number): number {
  return Math.ceil((grantFrames * GRANT_ENTRIES_PER_FRAME_V2 * 2) / XEN_PAGE_SIZE);
}

/** The tables in a domain's directory, one after the other: words from its start. */
function directory(maxGrantFrames: number, maxMaptrackFrames: number) {
  const statusFrames = statusFramesFor(maxGrantFrames);
  const grantGfns = maxGrantFrames;
  const statuses = grantGfns + maxGrantFrames;
  const statusGfns = statuses + statusFrames;
  const active = statusGfns + statusFrames;
  const maptrack = active + maxGrantFrames * ACTIVE_PAGES_PER_GRANT_FRAME;
  return { grantGfns, statuses, statusGfns, active, maptrack, words: maptrack + maxMaptrackFrames };
}

/** Where a frame of a grant table that the guest has not placed stands: nowhere. */
export const NO_GFN = -1;

/** The record of one domain. What never changes while the domain lives is read once. */
export class DomainRecord {
  readonly id: DomainId;
  readonly generation: number;
  readonly kind: DomainKind;
  readonly architecture: Architecture;
  readonly map: AddressMap;
  readonly vcpus: number;
  readonly privileged: boolean;
  readonly physmap: Physmap;
  /** First machine frame of its memory, and how many follow. */
  readonly ramFrame: number;
  readonly ramFrames: number;
  /** Machine frames of the pages for console and xenstore. */
  readonly consoleFrame: number;
  readonly xenstoreFrame: number;
  readonly maxGrantFrames: number;
  readonly maxGrantVersion: number;
  readonly maxMaptrackFrames: number;
  /** First frame number of the window for mapped grants. It has a place for each handle. */
  readonly window = GRANT_WINDOW;
  /** Byte offset in the machine's memory of the shared_info page. */
  readonly sharedInfo: number;
  /** Word that changes whenever the domain is to wake, and the word that says it sleeps. */
  readonly wakeWord: number;
  readonly sleepingWord: number;
  /** Words that lock what the grant table is made of (not its entries), and the growth of maptrack. */
  readonly grantLockWord: number;
  readonly maptrackLockWord: number;
  /** Word that counts the deliveries of events that are going on; see RAISES. */
  readonly raisesWord: number;
  /** First word of the part that belongs to events/, and of the one of ioreq/; 16 words each. */
  readonly eventsWord: number;
  readonly deviceModelWord: number;
  /** Word that counts the hypercalls that look at its tables, see Domains.enter. */
  readonly usersWord: number;

  readonly #heap: Int32Array;
  readonly #at: number;
  /** Index of the first word of the tables of grants and mappings. */
  readonly directory: number;
  readonly #tables: ReturnType<typeof directory>;
  /** Frames of the grant table, and handles of maptrack, that this thread has seen. */
  #framesSeen = 0;
  #handlesSeen = 0;

  constructor(machine: Machine, id: DomainId) {
    const { heap } = machine;
    const at = machine.domainRecord(id);
    this.id = id;
    this.generation = heap[at + GENERATION];
    this.kind = KINDS[heap[at + KIND] & ((1 << ARCHITECTURE_SHIFT) - 1)];
    this.architecture = ARCHITECTURES[heap[at + KIND] >>> ARCHITECTURE_SHIFT];
    this.map = addressMap(this.architecture);
    this.vcpus = heap[at + VCPUS];
    this.privileged = heap[at + PRIVILEGED] === 1;
    this.physmap = new Physmap(machine, heap[at + PHYSMAP]);
    this.ramFrame = heap[at + RAM_FRAME];
    this.ramFrames = heap[at + RAM_FRAMES];
    this.consoleFrame = heap[at + CONSOLE];
    this.xenstoreFrame = heap[at + XENSTORE];
    this.maxGrantFrames = heap[at + MAX_GRANT_FRAMES];
    this.maxGrantVersion = heap[at + MAX_GRANT_VERSION];
    this.maxMaptrackFrames = heap[at + MAX_MAPTRACK_FRAMES];
    this.sharedInfo = heap[at + SHARED_INFO] * XEN_PAGE_SIZE;
    this.wakeWord = at + WAKE;
    this.sleepingWord = at + SLEEPING;
    this.grantLockWord = at + GRANT_LOCK;
    this.maptrackLockWord = at + MAPTRACK_LOCK;
    this.raisesWord = at + RAISES;
    this.eventsWord = at + EVENTS;
    this.deviceModelWord = at + DEVICE_MODEL;
    this.usersWord = at + USERS;
    this.#heap = heap;
    this.#at = at;
    this.directory = heap[at + DIRECTORY];
    this.#tables = directory(this.maxGrantFrames, this.maxMaptrackFrames);
  }

  /**
   * One of the DOMAIN_ states of whatever domain has this id now. A plain word: who must not overlook that the
   * domain is going looks under the lock of an active entry, and teardown.ts takes each of these locks once.
   */
  get state(): number {
    return this.#heap[this.#at + STATE];
  }

  set state(state: number) {
    Atomics.store(this.#heap, this.#at + STATE, state);
  }

  /** Whether the id still belongs to this domain, and not to a later one. */
  get current(): boolean {
    const { state } = this;
    if (state === DOMAIN_NONE || state === DOMAIN_ENDING) return false;
    return this.#heap[this.#at + GENERATION] === this.generation;
  }

  /** Whether the domain is there and not about to go. */
  get alive(): boolean {
    return this.current && this.state === DOMAIN_ALIVE;
  }

  /** Whether frame numbers in its hypercalls and grants are its own, and not the machine's. */
  get translated(): boolean {
    return this.kind !== 'pv';
  }

  /** Whether it may ask for caches to be flushed (GNTTABOP_cache_flush): on Arm only. */
  get hasCacheFlush(): boolean {
    return this.architecture === 'arm';
  }

  /** How often it was paused and not yet unpaused. */
  get pauseCount(): number {
    return Atomics.load(this.#heap, this.#at + PAUSED);
  }

  /** Word that counts pauses, to wait on. */
  get pausedWord(): number {
    return this.#at + PAUSED;
  }

  /** Word that says whether its thread stands still because it is paused. */
  get parkedWord(): number {
    return this.#at + PARKED;
  }

  get parked(): boolean {
    return Atomics.load(this.#heap, this.parkedWord) === 1;
  }

  /** SHUTDOWN_ code with which the domain has ended itself, or was ended for a crash; -1 while it runs. */
  get shutdownCode(): number {
    return Atomics.load(this.#heap, this.#at + SHUTDOWN) - 1;
  }

  set shutdownCode(code: number) {
    Atomics.store(this.#heap, this.#at + SHUTDOWN, code + 1);
  }

  /** Word that counts what outlives the domain: active entries whose pages are pinned, uses by other domains. */
  get keptWord(): number {
    return this.#at + KEPT;
  }

  /** Version of its grant table, 1 or 2; changes only while all its active entries are locked. */
  get grantVersion(): number {
    return this.#heap[this.#at + GRANT_VERSION];
  }

  set grantVersion(version: number) {
    Atomics.store(this.#heap, this.#at + GRANT_VERSION, version);
  }

  /** Pages of Xen's heap that the directory takes. */
  get directoryPages(): number {
    return directoryPages(this);
  }

  /** Frames that its grant table has now. */
  get grantFrames(): number {
    return Atomics.load(this.#heap, this.#at + GRANT_FRAMES);
  }

  set grantFrames(frames: number) {
    Atomics.store(this.#heap, this.#at + GRANT_FRAMES, frames);
  }

  /** Frames of statuses that its table of version 2 has now. */
  get statusFrames(): number {
    return Atomics.load(this.#heap, this.#at + STATUS_FRAMES);
  }

  set statusFrames(frames: number) {
    Atomics.store(this.#heap, this.#at + STATUS_FRAMES, frames);
  }

  /** Entries that its grant table has now. */
  get grantEntries(): number {
    return this.grantFrames * this.#entriesPerFrame;
  }

  /**
   * Whether `ref` is an entry of the table now. Tables only grow, save that a switch to version 2 halves their
   * entries: what this thread has seen of the size is asked first, and the shared word only beyond that.
   */
  hasEntry(ref: number): boolean {
    const perFrame = this.#entriesPerFrame;
    if (ref >= 0 && ref < this.#framesSeen * perFrame) return true;
    this.#framesSeen = this.grantFrames;
    return ref >= 0 && ref < this.#framesSeen * perFrame;
  }

  /** Word that counts copies through entries that only version 2 has. */
  get v2OperationsWord(): number {
    return this.#at + V2_OPERATIONS;
  }

  /** Word that holds the machine frame of the grant table's frame `index`, and the one of its frame number. */
  grantFrameWord(index: number): number {
    return this.directory + index;
  }

  grantGfnWord(index: number): number {
    return this.directory + this.#tables.grantGfns + index;
  }

  /** The same for frames of statuses. */
  statusFrameWord(index: number): number {
    return this.directory + this.#tables.statuses + index;
  }

  statusGfnWord(index: number): number {
    return this.directory + this.#tables.statusGfns + index;
  }

  /** Word that holds where the `index`-th page of active entries is. */
  activePageWord(index: number): number {
    return this.directory + this.#tables.active + index;
  }

  /** Pages of active entries for so many frames of grant table. */
  activePages(grantFrames: number): number {
    return grantFrames * ACTIVE_PAGES_PER_GRANT_FRAME;
  }

  /** Word that holds where the `index`-th page of maptrack entries is. */
  maptrackPageWord(index: number): number {
    return this.directory + this.#tables.maptrack + index;
  }

  /** Machine frame of the grant table's frame `index`. */
  grantFrame(index: number): number {
    return this.#heap[this.directory + index];
  }

  /** Machine frame of the statuses' frame `index`. */
  statusFrame(index: number): number {
    return this.#heap[this.statusFrameWord(index)];
  }

  /** Index of the first word of the active entry of `ref`, which must be inside the table. */
  activeEntry(ref: number): number {
    const page = this.#heap[this.directory + this.#tables.active + (ref >>> ACTIVE_PER_PAGE_SHIFT)];
    return page + (ref & ((1 << ACTIVE_PER_PAGE_SHIFT) - 1)) * ACTIVE_WORDS;
  }

  /** Handles that its maptrack has now; all below are entries. */
  get maptrackLimit(): number {
    return Atomics.load(this.#heap, this.#at + MAPTRACK_LIMIT);
  }

  set maptrackLimit(handles: number) {
    this.#handlesSeen = Math.min(this.#handlesSeen, handles);
    Atomics.store(this.#heap, this.#at + MAPTRACK_LIMIT, handles);
  }

  /** Whether `handle` is an entry of maptrack now, asked as `hasEntry` asks. */
  hasHandle(handle: number): boolean {
    if (handle >= 0 && handle < this.#handlesSeen) return true;
    this.#handlesSeen = this.maptrackLimit;
    return handle >= 0 && handle < this.#handlesSeen;
  }

  /** Index of the first word of a handle's maptrack entry, which must be below the limit. */
  maptrackEntry(handle: number): number {
    const page = this.#heap[this.directory + this.#tables.maptrack + (handle >>> MAPTRACK_PER_PAGE_SHIFT)];
    return page + (handle & ((1 << MAPTRACK_PER_PAGE_SHIFT) - 1)) * MAPTRACK_WORDS;
  }

  /** First word of a processor's list of free handles. */
  maptrackList(vcpu: number): number {
    return this.#at + MAPTRACK_LISTS + vcpu * MAPTRACK_LIST_WORDS;
  }

  /**
   * Number of the frame through which it talks to xenstore, as its kernel learns it: a frame number of its own
   * (HVM_PARAM_STORE_PFN), or for a PV guest the machine's (start_info).
   */
  get storePage(): number {
    return this.translated ? this.map.xenstore : this.xenstoreFrame;
  }

  /** The same for its console. */
  get consolePage(): number {
    return this.translated ? this.map.console : this.consoleFrame;
  }

  /** Machine frame behind one of its own frame numbers (a machine frame, for PV), or 0 where it has none. */
  ownFrame(frame: number): number {
    if (!this.translated) return this.ownsMachineFrame(frame) ? frame : 0;
    const entry = this.physmap.get(frame);
    return p2mType(entry) === P2M_RAM ? p2mFrame(entry) : 0;
  }

  /** Whether a machine frame is memory of this domain, or a page that Xen shares with it. */
  ownsMachineFrame(frame: number): boolean {
    if (frame >= this.ramFrame && frame < this.ramFrame + this.ramFrames) return true;
    if (frame === this.consoleFrame || frame === this.xenstoreFrame) return frame !== 0;
    return frame * XEN_PAGE_SIZE === this.sharedInfo || this.isTableFrame(frame);
  }

  get #entriesPerFrame(): number {
    return this.grantVersion === 1 ? GRANT_ENTRIES_PER_FRAME_V1 : GRANT_ENTRIES_PER_FRAME_V2;
  }

  /** Whether a machine frame holds entries or statuses of its grant table. */
  isTableFrame(frame: number): boolean {
    for (let index = 0; index < this.grantFrames; index++) if (this.grantFrame(index) === frame) return true;
    for (let index = 0; index < this.statusFrames; index++)
      if (this.statusFrame(index) === frame) return true;
    return false;
  }
}

/** Pages of Xen's heap that the directory of a domain takes. */
export function directoryPages(
  options: Pick<CheckedOptions, 'maxGrantFrames' | 'maxMaptrackFrames'>,
): number {
  return Math.ceil(directory(options.maxGrantFrames, options.maxMaptrackFrames).words / PAGE_WORDS);
}

/** What a new domain's record is filled with, beside its options. */
export interface DomainParts {
  readonly generation: number;
  readonly ramFrame: number;
  readonly sharedInfo: number;
  readonly console: number;
  readonly xenstore: number;
  readonly physmap: number;
  readonly directory: number;
  /** Page of the emulated machine, see ioreq/machine-page.ts; 0 for a PV guest. */
  readonly machinePage: number;
}

/** Fills in the record of a domain that is being made; its state is set last. */
export function writeRecord(machine: Machine, id: number, options: CheckedOptions, parts: DomainParts): void {
  const { heap } = machine;
  const at = machine.domainRecord(id);
  heap.fill(0, at, at + USERS);
  const values: readonly (readonly [number, number])[] = [
    [GENERATION, parts.generation],
    [KIND, KINDS.indexOf(options.kind) | (ARCHITECTURES.indexOf(options.architecture) << ARCHITECTURE_SHIFT)],
    [RAM_FRAME, parts.ramFrame],
    [RAM_FRAMES, options.memory / XEN_PAGE_SIZE],
    [PHYSMAP, parts.physmap],
    [SHARED_INFO, parts.sharedInfo],
    [VCPUS, options.vcpus],
    [CONSOLE, parts.console],
    [XENSTORE, parts.xenstore],
    [PRIVILEGED, options.privileged ? 1 : 0],
    [GRANT_VERSION, 1],
    [MAX_GRANT_FRAMES, options.maxGrantFrames],
    [MAX_GRANT_VERSION, options.maxGrantVersion],
    [DIRECTORY, parts.directory],
    [MAX_MAPTRACK_FRAMES, options.maxMaptrackFrames],
    [DEVICE_MODEL, parts.machinePage],
  ];
  for (const [word, value] of values) heap[at + word] = value;
}
