// One event object of each kind, filled again and again: what a recorder hands to its consumers, so that
// an event costs no allocation. Used by event-tracer.ts, trace-ring.ts and trace-reader.ts.

import { assert } from '../errors.ts';
import type { EventKind, TraceEvent } from './events.ts';
import { KIND_NUMBER } from './events.ts';

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type Slots = { readonly [K in EventKind]: Writable<Extract<TraceEvent, { readonly kind: K }>> };

const HEAD = { sequence: 0, time: 0, thread: 0 };

function emptySlots(): Slots {
  return {
    grant: { kind: 'grant', ...HEAD, domain: 0, peer: 0, ref: 0, frame: 0, count: 0, readonly: false },
    narrow: { kind: 'narrow', ...HEAD, domain: 0, ref: 0, offset: 0, size: 0 },
    revoke: { kind: 'revoke', ...HEAD, domain: 0, ref: 0, count: 0 },
    busy: { kind: 'busy', ...HEAD, domain: 0, ref: 0 },
    need: { kind: 'need', ...HEAD, domain: 0, device: 0, ref: 0, offset: 0, size: 0, direction: 0 },
    needEnd: { kind: 'needEnd', ...HEAD, domain: 0, device: 0, ref: 0, offset: 0, size: 0 },
    origin: { kind: 'origin', ...HEAD, domain: 0, device: 0, ref: 0, offset: 0, stack: 0 },
    staleLimit: { kind: 'staleLimit', ...HEAD, domain: 0, device: 0, nanoseconds: 0 },
    privatePages: { kind: 'privatePages', ...HEAD, domain: 0, device: 0, frame: 0, count: 0 },
    privatePagesEnd: { kind: 'privatePagesEnd', ...HEAD, domain: 0, frame: 0, count: 0 },
    map: { kind: 'map', ...HEAD, mapper: 0, owner: 0, ref: 0, handle: 0, readonly: false },
    mapRefused: { kind: 'mapRefused', ...HEAD, mapper: 0, owner: 0, ref: 0, status: 0 },
    unmap: { kind: 'unmap', ...HEAD, mapper: 0, owner: 0, ref: 0, handle: 0 },
    reach: { kind: 'reach', ...HEAD, mapper: 0, owner: 0, frame: 0, count: 0 },
    reachEnd: { kind: 'reachEnd', ...HEAD, mapper: 0, owner: 0, frame: 0, count: 0 },
    touch: { kind: 'touch', ...HEAD, mapper: 0, owner: 0, ref: 0, offset: 0, size: 0, write: false },
    requestBegin: { kind: 'requestBegin', ...HEAD, domain: 0, device: 0, id: 0, type: 0, bytes: 0 },
    requestEnd: { kind: 'requestEnd', ...HEAD, domain: 0, device: 0, id: 0, status: 0 },
  };
}

/** The event objects of one recorder. */
export class ReusedEvents {
  readonly #slots = emptySlots();

  /**
   * Makes the event of a kind number and the arguments of its Tracer method. The object is valid until
   * the next event of the same kind is made.
   */
  make(
    kind: number,
    sequence: number,
    time: number,
    thread: number,
    a: number,
    b: number,
    c: number,
    d: number,
    e: number,
    f: number,
  ): TraceEvent {
    const event = this.#fill(kind, a, b, c, d, e, f);
    event.sequence = sequence;
    event.time = time;
    event.thread = thread;
    return event;
  }

  #fill(kind: number, a: number, b: number, c: number, d: number, e: number, f: number): Slots[EventKind] {
    switch (kind) {
      case KIND_NUMBER.grant: {
        const event = this.#slots.grant;
        event.domain = a;
        event.peer = b;
        event.ref = c;
        event.frame = d;
        event.count = e;
        event.readonly = f !== 0;
        return event;
      }
      case KIND_NUMBER.narrow: {
        const event = this.#slots.narrow;
        event.domain = a;
        event.ref = b;
        event.offset = c;
        event.size = d;
        return event;
      }
      case KIND_NUMBER.revoke: {
        const event = this.#slots.revoke;
        event.domain = a;
        event.ref = b;
        event.count = c;
        return event;
      }
      case KIND_NUMBER.busy: {
        const event = this.#slots.busy;
        event.domain = a;
        event.ref = b;
        return event;
      }
      case KIND_NUMBER.need: {
        const event = this.#slots.need;
        event.domain = a;
        event.device = b;
        event.ref = c;
        event.offset = d;
        event.size = e;
        event.direction = f;
        return event;
      }
      case KIND_NUMBER.needEnd: {
        const event = this.#slots.needEnd;
        event.domain = a;
        event.device = b;
        event.ref = c;
        event.offset = d;
        event.size = e;
        return event;
      }
      case KIND_NUMBER.origin: {
        const event = this.#slots.origin;
        event.domain = a;
        event.device = b;
        event.ref = c;
        event.offset = d;
        event.stack = e;
        return event;
      }
      case KIND_NUMBER.staleLimit: {
        const event = this.#slots.staleLimit;
        event.domain = a;
        event.device = b;
        event.nanoseconds = c;
        return event;
      }
      case KIND_NUMBER.privatePages: {
        const event = this.#slots.privatePages;
        event.domain = a;
        event.device = b;
        event.frame = c;
        event.count = d;
        return event;
      }
      case KIND_NUMBER.privatePagesEnd: {
        const event = this.#slots.privatePagesEnd;
        event.domain = a;
        event.frame = b;
        event.count = c;
        return event;
      }
      case KIND_NUMBER.map: {
        const event = this.#slots.map;
        event.mapper = a;
        event.owner = b;
        event.ref = c;
        event.handle = d;
        event.readonly = e !== 0;
        return event;
      }
      case KIND_NUMBER.mapRefused: {
        const event = this.#slots.mapRefused;
        event.mapper = a;
        event.owner = b;
        event.ref = c;
        event.status = d;
        return event;
      }
      case KIND_NUMBER.unmap: {
        const event = this.#slots.unmap;
        event.mapper = a;
        event.owner = b;
        event.ref = c;
        event.handle = d;
        return event;
      }
      case KIND_NUMBER.reach: {
        const event = this.#slots.reach;
        event.mapper = a;
        event.owner = b;
        event.frame = c;
        event.count = d;
        return event;
      }
      case KIND_NUMBER.reachEnd: {
        const event = this.#slots.reachEnd;
        event.mapper = a;
        event.owner = b;
        event.frame = c;
        event.count = d;
        return event;
      }
      case KIND_NUMBER.touch: {
        const event = this.#slots.touch;
        event.mapper = a;
        event.owner = b;
        event.ref = c;
        event.offset = d;
        event.size = e;
        event.write = f !== 0;
        return event;
      }
      case KIND_NUMBER.requestBegin: {
        const event = this.#slots.requestBegin;
        event.domain = a;
        event.device = b;
        event.id = c;
        event.type = d;
        event.bytes = e;
        return event;
      }
      default: {
        assert(kind === KIND_NUMBER.requestEnd, `there is no event of kind number ${kind}`);
        const event = this.#slots.requestEnd;
        event.domain = a;
        event.device = b;
        event.id = c;
        event.status = d;
        return event;
      }
    }
  }
}
