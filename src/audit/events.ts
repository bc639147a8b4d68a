// The events of trace.ts as values: what the instruments consume, whether the run was recorded on one
// thread (event-tracer.ts), on several (trace-ring.ts, trace-merger.ts) or in a file (trace-file.ts).
//
// An event also travels as a kind number and up to six numbers, the arguments of the Tracer's method in
// their order, booleans as 0 and 1. ReusedEvents turns them back.

/** When and where an event was reported. */
interface EventHead {
  /** Place in the total order over all threads, from 0. */
  readonly sequence: number;
  /** Nanoseconds on the recorder's clock. Between threads it may run slightly against the order. */
  readonly time: number;
  /** Number of the thread that reported it. */
  readonly thread: number;
}

/** `domain` granted `count` frames from `frame` to `peer` through references from `ref`. */
export interface GrantEvent extends EventHead {
  readonly kind: 'grant';
  readonly domain: number;
  readonly peer: number;
  readonly ref: number;
  readonly frame: number;
  readonly count: number;
  readonly readonly: boolean;
}

/** Of the page granted through `ref`, only `size` bytes from `offset` are. */
export interface NarrowEvent extends EventHead {
  readonly kind: 'narrow';
  readonly domain: number;
  readonly ref: number;
  readonly offset: number;
  readonly size: number;
}

/** Access through `count` references from `ref` has ended. */
export interface RevokeEvent extends EventHead {
  readonly kind: 'revoke';
  readonly domain: number;
  readonly ref: number;
  readonly count: number;
}

/** Access through `ref` could not be ended: it is quarantined. */
export interface BusyEvent extends EventHead {
  readonly kind: 'busy';
  readonly domain: number;
  readonly ref: number;
}

/** A driver asked to share `size` bytes from `offset` in the page behind `ref` and on from there. */
export interface NeedEvent extends EventHead {
  readonly kind: 'need';
  readonly domain: number;
  readonly device: number;
  readonly ref: number;
  readonly offset: number;
  readonly size: number;
  /** One of trace.ts's DMA_ constants. */
  readonly direction: number;
}

/** The need with this `ref` and `offset` is over. */
export interface NeedEndEvent extends EventHead {
  readonly kind: 'needEnd';
  readonly domain: number;
  readonly device: number;
  readonly ref: number;
  readonly offset: number;
  readonly size: number;
}

/** Where the mapping of the last need was made. */
export interface OriginEvent extends EventHead {
  readonly kind: 'origin';
  readonly domain: number;
  readonly device: number;
  readonly ref: number;
  readonly offset: number;
  /** Number of a stack of calls. */
  readonly stack: number;
}

/** How long pages of `device` may stay granted after their last use. */
export interface StaleLimitEvent extends EventHead {
  readonly kind: 'staleLimit';
  readonly domain: number;
  readonly device: number;
  readonly nanoseconds: number;
}

/** The frames hold nothing but the bytes of `device` and zeroes. */
export interface PrivatePagesEvent extends EventHead {
  readonly kind: 'privatePages';
  readonly domain: number;
  readonly device: number;
  readonly frame: number;
  readonly count: number;
}

/** The frames are no longer private to a device. */
export interface PrivatePagesEndEvent extends EventHead {
  readonly kind: 'privatePagesEnd';
  readonly domain: number;
  readonly frame: number;
  readonly count: number;
}

/** `mapper` mapped `owner`'s reference as `handle`. */
export interface MapEvent extends EventHead {
  readonly kind: 'map';
  readonly mapper: number;
  readonly owner: number;
  readonly ref: number;
  readonly handle: number;
  readonly readonly: boolean;
}

/** The hypervisor refused `mapper` a mapping, with a negative GNTST status. */
export interface MapRefusedEvent extends EventHead {
  readonly kind: 'mapRefused';
  readonly mapper: number;
  readonly owner: number;
  readonly ref: number;
  readonly status: number;
}

/** The mapping `handle` of `mapper` has ended. */
export interface UnmapEvent extends EventHead {
  readonly kind: 'unmap';
  readonly mapper: number;
  readonly owner: number;
  readonly ref: number;
  readonly handle: number;
}

/** `mapper` may reach frames of `owner` without a grant. */
export interface ReachEvent extends EventHead {
  readonly kind: 'reach';
  readonly mapper: number;
  readonly owner: number;
  readonly frame: number;
  readonly count: number;
}

/** `mapper` can no longer reach the frames without a grant. */
export interface ReachEndEvent extends EventHead {
  readonly kind: 'reachEnd';
  readonly mapper: number;
  readonly owner: number;
  readonly frame: number;
  readonly count: number;
}

/** The backend read or wrote `size` bytes from `offset` in the page behind `ref` and on from there. */
export interface TouchEvent extends EventHead {
  readonly kind: 'touch';
  readonly mapper: number;
  readonly owner: number;
  readonly ref: number;
  readonly offset: number;
  readonly size: number;
  readonly write: boolean;
}

/** The driver, or the backend where only that reports, took request `id`. */
export interface RequestBeginEvent extends EventHead {
  readonly kind: 'requestBegin';
  readonly domain: number;
  readonly device: number;
  readonly id: number;
  /** The device type's own number, or UNKNOWN_TYPE. */
  readonly type: number;
  readonly bytes: number;
}

/** The result of request `id` was handed over; `status` 0 is success. */
export interface RequestEndEvent extends EventHead {
  readonly kind: 'requestEnd';
  readonly domain: number;
  readonly device: number;
  readonly id: number;
  readonly status: number;
}

/** One thing that happened; `kind` is the name of the Tracer's method that reported it. */
export type TraceEvent =
  | GrantEvent
  | NarrowEvent
  | RevokeEvent
  | BusyEvent
  | NeedEvent
  | NeedEndEvent
  | OriginEvent
  | StaleLimitEvent
  | PrivatePagesEvent
  | PrivatePagesEndEvent
  | MapEvent
  | MapRefusedEvent
  | UnmapEvent
  | ReachEvent
  | ReachEndEvent
  | TouchEvent
  | RequestBeginEvent
  | RequestEndEvent;

export type EventKind = TraceEvent['kind'];

/** Takes events in the order of their sequence numbers. */
export interface TraceConsumer {
  /** `event` is reused for the next one: copy what must outlive the call. Must not throw. */
  consume(event: TraceEvent): void;
}

type FieldOf<E> = Exclude<keyof E, 'kind' | keyof EventHead>;

/** The fields of each kind in the order of the Tracer's arguments. */
export const EVENT_FIELDS: { readonly [E in TraceEvent as E['kind']]: readonly FieldOf<E>[] } = {
  grant: ['domain', 'peer', 'ref', 'frame', 'count', 'readonly'],
  revoke: ['domain', 'ref', 'count'],
  busy: ['domain', 'ref'],
  need: ['domain', 'device', 'ref', 'offset', 'size', 'direction'],
  needEnd: ['domain', 'device', 'ref', 'offset', 'size'],
  privatePages: ['domain', 'device', 'frame', 'count'],
  privatePagesEnd: ['domain', 'frame', 'count'],
  map: ['mapper', 'owner', 'ref', 'handle', 'readonly'],
  mapRefused: ['mapper', 'owner', 'ref', 'status'],
  unmap: ['mapper', 'owner', 'ref', 'handle'],
  touch: ['mapper', 'owner', 'ref', 'offset', 'size', 'write'],
  requestBegin: ['domain', 'device', 'id', 'type', 'bytes'],
  requestEnd: ['domain', 'device', 'id', 'status'],
  narrow: ['domain', 'ref', 'offset', 'size'],
  origin: ['domain', 'device', 'ref', 'offset', 'stack'],
  staleLimit: ['domain', 'device', 'nanoseconds'],
  reach: ['mapper', 'owner', 'frame', 'count'],
  reachEnd: ['mapper', 'owner', 'frame', 'count'],
};

/** Most pages that one event may speak of: more than any grant table holds, so that no line of a file costs much. */
export const MAX_EVENT_PAGES = 1 << 20;

/** The number of each kind in a record. */
export const KIND_NUMBER = {
  grant: 0,
  revoke: 1,
  busy: 2,
  need: 3,
  needEnd: 4,
  privatePages: 5,
  privatePagesEnd: 6,
  map: 7,
  mapRefused: 8,
  unmap: 9,
  touch: 10,
  requestBegin: 11,
  requestEnd: 12,
  narrow: 13,
  origin: 14,
  staleLimit: 15,
  reach: 16,
  reachEnd: 17,
} as const satisfies { readonly [K in EventKind]: number };
