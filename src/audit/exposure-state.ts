// What is going on now, as the trace tells it: grants, needs, frames, mappings and requests of each domain.
// Grows with what is live, not with the run. Kept by exposure.ts.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { ReachEvent, RequestBeginEvent } from './events.ts';
import { ForeignBytes, Tally } from './exposure-figures.ts';

/** Since when, while it is not so: later than every time. */
export const NOT_IDLE = Number.POSITIVE_INFINITY;

/** The stack of a need whose driver does not report it. */
export const NO_STACK = -1;

/** A device as its driver's domain numbers it. */
export class DeviceState {
  readonly domain: number;
  readonly device: number;
  readonly tally = new Tally();
  readonly foreign: ForeignBytes | undefined;
  /** The longest that it now lets a page stay granted after its last use, while it is at work. */
  staleLimit = 0;
  /** Requests that it has to serve, and time at work until `workingSince`. */
  #working = 0;
  #worked = 0;
  #workingSince = 0;

  /** @param foreign where the bytes are kept that were foreign at some time, if they are */
  constructor(domain: number, device: number, foreign: ForeignBytes | undefined) {
    this.domain = domain;
    this.device = device;
    this.foreign = foreign;
  }

  /** Time for which the device has had a request to serve, up to `now`. */
  workedUntil(now: number): number {
    return this.#working > 0 ? this.#worked + now - this.#workingSince : this.#worked;
  }

  /** A request begins (1), or ends (-1). */
  noteWork(now: number, change: 1 | -1): void {
    this.#worked = this.workedUntil(now);
    this.#workingSince = now;
    this.#working += change;
  }
}

/** A page of a domain that is granted, needed or private to a device. */
export class Frame {
  readonly number: number;
  /** Grants of it that are not over. */
  grants = 0;
  /** The parts of live needs in it, by where they start. */
  readonly pieces: Piece[] = [];
  privateTo: DeviceState | undefined = undefined;

  constructor(number: number) {
    this.number = number;
  }

  insert(piece: Piece): void {
    const pieces = this.pieces;
    let at = pieces.length;
    pieces.push(piece);
    for (; at > 0 && pieces[at - 1].start > piece.start; at--) pieces[at] = pieces[at - 1];
    pieces[at] = piece;
  }

  remove(piece: Piece): void {
    const pieces = this.pieces;
    for (let at = pieces.indexOf(piece); at < pieces.length - 1; at++) pieces[at] = pieces[at + 1];
    pieces.pop();
  }

  /** Whether live needs of `device` hold every byte from `start` up to and without `end`. */
  isNeeded(device: DeviceState, start: number, end: number): boolean {
    let reached = start;
    for (const piece of this.pieces) {
      if (reached >= end || piece.start > reached) break;
      if (piece.need.device === device) reached = Math.max(reached, piece.end);
    }
    return reached >= end;
  }
}

/** One page shared through one reference. */
export class Grant {
  readonly ref: number;
  readonly peer: number;
  readonly domain: DomainState;
  readonly frame: Frame;
  readonly readonly: boolean;
  readonly grantedAt: number;
  /** The device whose need was the first to name the reference; nobody's before. */
  device: DeviceState;
  /** Whether it goes on without its mappings: false once it is revoked, and where its mappings are all that is seen. */
  isGranted = true;
  isQuarantined = false;
  /** Mappings that have not ended; they may outlive the grant in the order of events. */
  mappings = 0;
  /** The bytes of the page that are granted, `start` to `end` (exclusive). */
  start = 0;
  end = XEN_PAGE_SIZE;
  /** How many of them were foreign when the first need opened the grant. */
  foreign = 0;
  /** Needs in it whose request is not reported complete. */
  needs = 0;
  /** The need that used it last, or does. */
  lastNeed: Need | undefined = undefined;
  /** Since when no need has used it, or NOT_IDLE: before the first one too. */
  idleSince = NOT_IDLE;
  /** For how long its device had been at work then. */
  workedAtIdle = 0;
  /** Whether a backend has mapped it, or reported a touch. */
  isUsed = false;

  constructor(
    domain: DomainState,
    ref: number,
    peer: number,
    frame: Frame,
    readonly: boolean,
    now: number,
    nobody: DeviceState,
  ) {
    this.domain = domain;
    this.ref = ref;
    this.peer = peer;
    this.frame = frame;
    this.readonly = readonly;
    this.grantedAt = now;
    this.device = nobody;
  }

  /** Whether it grants every byte from `start` up to and without `end`, and live needs of its device hold them. */
  isNeeded(start: number, end: number): boolean {
    return start >= this.start && end <= this.end && this.frame.isNeeded(this.device, start, end);
  }

  /** Adds the bytes that it has exposed, times how long it has. */
  addTime(tally: Tally, now: number): void {
    tally.exposedByteTime += (this.end - this.start) * (now - this.grantedAt);
    tally.foreignByteTime += this.foreign * (now - this.grantedAt);
  }

  /** Takes the time into account for which no need has used it. */
  addStale(tally: Tally, now: number): void {
    tally.maxStale = Math.max(tally.maxStale, now - this.idleSince);
    tally.maxStaleAtWork = Math.max(tally.maxStaleAtWork, this.staleAtWork(now));
  }

  /** For how long its device has been at work since the page became idle; 0 while it is in use. */
  staleAtWork(now: number): number {
    return this.idleSince === NOT_IDLE ? 0 : this.device.workedUntil(now) - this.workedAtIdle;
  }
}

/** A request that its driver took and has not completed. */
export class OpenRequest {
  readonly device: DeviceState;
  /** As its driver reported it. */
  readonly id: number;
  readonly type: number;
  readonly bytes: number;
  /** The thread that reported its beginning. */
  readonly thread: number;
  readonly begunAt: number;
  /** Needs that serve it and have not ended. */
  needs = 0;

  constructor(device: DeviceState, { id, type, bytes, thread }: RequestBeginEvent, now: number) {
    this.device = device;
    this.id = id;
    this.type = type;
    this.bytes = bytes;
    this.thread = thread;
    this.begunAt = now;
  }
}

/** Memory that a driver shares. */
export class Need {
  readonly device: DeviceState;
  readonly size: number;
  readonly begunAt: number;
  /** The request it serves, where the order of events tells. */
  readonly request: OpenRequest | undefined;
  /** Number of the stack of calls that made it, or NO_STACK. */
  stack = NO_STACK;
  /** Its request has been reported complete. */
  isOverdue = false;
  /** An older one that starts at the same byte and goes on as well. */
  older: Need | undefined = undefined;
  readonly pieces: Piece[] = [];

  constructor(device: DeviceState, size: number, now: number, request: OpenRequest | undefined) {
    this.device = device;
    this.size = size;
    this.begunAt = now;
    this.request = request;
  }
}

/** The part of a need in one page: bytes `start` to `end` (exclusive). */
export class Piece {
  readonly need: Need;
  readonly grant: Grant;
  readonly start: number;
  readonly end: number;

  constructor(need: Need, grant: Grant, start: number, end: number) {
    this.need = need;
    this.grant = grant;
    this.start = start;
    this.end = end;
  }
}

/** Frames of a domain that another one can reach without any grant. */
export class Reach {
  readonly mapper: number;
  readonly owner: number;
  readonly frame: number;
  readonly count: number;
  readonly begunAt: number;
  /** Bytes of them that were in no need shared with the mapper when it began. */
  foreign = 0;

  constructor({ mapper, owner, frame, count }: ReachEvent, now: number) {
    this.mapper = mapper;
    this.owner = owner;
    this.frame = frame;
    this.count = count;
    this.begunAt = now;
  }

  /** How many bytes it exposes. */
  get bytes(): number {
    return this.count * XEN_PAGE_SIZE;
  }

  /** Adds the bytes that it has exposed, times how long it has. */
  addTime(tally: Tally, now: number): void {
    tally.exposedByteTime += this.bytes * (now - this.begunAt);
    tally.foreignByteTime += this.foreign * (now - this.begunAt);
  }
}

/** What is live in one domain. */
export class DomainState {
  readonly id: number;
  readonly devices = new Map<number, DeviceState>();
  /** By reference. */
  readonly grants = new Map<number, Grant>();
  readonly frames = new Map<number, Frame>();
  /** By reference * 4096 + offset; of those that are alike, the newest. */
  readonly needs = new Map<number, Need>();
  /** What the domain maps, by handle. */
  readonly mappings = new Map<number, Grant>();
  /** Its frames that others reach without a grant. */
  readonly reaches: Reach[] = [];
  /** By id. */
  readonly requests = new Map<number, OpenRequest>();
  /** The request whose buffers the driver is sharing. */
  submitting: OpenRequest | undefined = undefined;
  /** Foreign bytes of all devices together. */
  readonly foreign: ForeignBytes | undefined;
  readonly #keepsBytes: boolean;

  /** @param keepsBytes whether to keep which bytes were foreign at some time */
  constructor(id: number, keepsBytes: boolean) {
    this.id = id;
    this.#keepsBytes = keepsBytes;
    this.foreign = keepsBytes ? new ForeignBytes() : undefined;
  }

  device(device: number): DeviceState {
    let state = this.devices.get(device);
    if (state === undefined) {
      state = new DeviceState(this.id, device, this.#keepsBytes ? new ForeignBytes() : undefined);
      this.devices.set(device, state);
    }
    return state;
  }

  frame(number: number): Frame {
    let frame = this.frames.get(number);
    if (frame === undefined) {
      frame = new Frame(number);
      this.frames.set(number, frame);
    }
    return frame;
  }

  /** Every need that goes on. */
  *liveNeeds(): Generator<Need> {
    for (const newest of this.needs.values())
      for (let need: Need | undefined = newest; need !== undefined; need = need.older) yield need;
  }

  /** Takes away a need that starts at `key`: of several, one of that size if there is one. */
  takeNeed(key: number, size: number): Need | undefined {
    const newest = this.needs.get(key);
    let newer: Need | undefined;
    let found = newest;
    for (; found !== undefined && found.size !== size; found = found.older) newer = found;
    if (found !== undefined && newer !== undefined) {
      newer.older = found.older;
      return found;
    }
    if (newest?.older === undefined) this.needs.delete(key);
    else this.needs.set(key, newest.older);
    return newest;
  }

  /** Forgets a frame that nothing concerns any more. */
  tidy(frame: Frame): void {
    if (frame.grants === 0 && frame.pieces.length === 0 && frame.privateTo === undefined)
      this.frames.delete(frame.number);
  }
}
