// Tracers that make events: the part they share, and the one that hands every event on at once, for runs
// on one thread. For several threads see trace-ring.ts.

import type { Tracer } from '../trace.ts';
import { KIND_NUMBER, type TraceConsumer } from './events.ts';
import { ReusedEvents } from './reused-events.ts';

/** Nanoseconds on a clock that never runs backwards and that all threads of a run share. */
export type Clock = () => number;

/** Turns each call of a Tracer into a kind number and six numbers. */
export abstract class EventTracer implements Tracer {
  readonly enabled = true;

  /** Takes one event; unused arguments are 0. */
  protected abstract record(
    kind: number,
    a: number,
    b: number,
    c: number,
    d: number,
    e: number,
    f: number,
  ): void;

  grant(domain: number, peer: number, ref: number, frame: number, count: number, readonly: boolean): void {
    this.record(KIND_NUMBER.grant, domain, peer, ref, frame, count, readonly ? 1 : 0);
  }

  narrow(domain: number, ref: number, offset: number, size: number): void {
    this.record(KIND_NUMBER.narrow, domain, ref, offset, size, 0, 0);
  }

  revoke(domain: number, ref: number, count: number): void {
    this.record(KIND_NUMBER.revoke, domain, ref, count, 0, 0, 0);
  }

  busy(domain: number, ref: number): void {
    this.record(KIND_NUMBER.busy, domain, ref, 0, 0, 0, 0);
  }

  need(domain: number, device: number, ref: number, offset: number, size: number, direction: number): void {
    this.record(KIND_NUMBER.need, domain, device, ref, offset, size, direction);
  }

  needEnd(domain: number, device: number, ref: number, offset: number, size: number): void {
    this.record(KIND_NUMBER.needEnd, domain, device, ref, offset, size, 0);
  }

  origin(domain: number, device: number, ref: number, offset: number, stack: number): void {
    this.record(KIND_NUMBER.origin, domain, device, ref, offset, stack, 0);
  }

  staleLimit(domain: number, device: number, nanoseconds: number): void {
    this.record(KIND_NUMBER.staleLimit, domain, device, nanoseconds, 0, 0, 0);
  }

  privatePages(domain: number, device: number, frame: number, count: number): void {
    this.record(KIND_NUMBER.privatePages, domain, device, frame, count, 0, 0);
  }

  privatePagesEnd(domain: number, frame: number, count: number): void {
    this.record(KIND_NUMBER.privatePagesEnd, domain, frame, count, 0, 0, 0);
  }

  map(mapper: number, owner: number, ref: number, handle: number, readonly: boolean): void {
    this.record(KIND_NUMBER.map, mapper, owner, ref, handle, readonly ? 1 : 0, 0);
  }

  mapRefused(mapper: number, owner: number, ref: number, status: number): void {
    this.record(KIND_NUMBER.mapRefused, mapper, owner, ref, status, 0, 0);
  }

  unmap(mapper: number, owner: number, ref: number, handle: number): void {
    this.record(KIND_NUMBER.unmap, mapper, owner, ref, handle, 0, 0);
  }

  reach(mapper: number, owner: number, frame: number, count: number): void {
    this.record(KIND_NUMBER.reach, mapper, owner, frame, count, 0, 0);
  }

  reachEnd(mapper: number, owner: number, frame: number, count: number): void {
    this.record(KIND_NUMBER.reachEnd, mapper, owner, frame, count, 0, 0);
  }

  touch(mapper: number, owner: number, ref: number, offset: number, size: number, write: boolean): void {
    this.record(KIND_NUMBER.touch, mapper, owner, ref, offset, size, write ? 1 : 0);
  }

  requestBegin(domain: number, device: number, id: number, type: number, bytes: number): void {
    this.record(KIND_NUMBER.requestBegin, domain, device, id, type, bytes, 0);
  }

  requestEnd(domain: number, device: number, id: number, status: number): void {
    this.record(KIND_NUMBER.requestEnd, domain, device, id, status, 0, 0);
  }
}

/** Hands every event to its consumers inside the call that reports it. */
export class DirectTracer extends EventTracer {
  readonly #consumers: readonly TraceConsumer[];
  readonly #now: Clock;
  readonly #events = new ReusedEvents();
  #sequence = 0;

  constructor(consumers: readonly TraceConsumer[], now: Clock) {
    super();
    this.#consumers = consumers;
    this.#now = now;
  }

  protected override record(
    kind: number,
    a: number,
    b: number,
    c: number,
    d: number,
    e: number,
    f: number,
  ): void {
    const event = this.#events.make(kind, this.#sequence++, this.#now(), 0, a, b, c, d, e, f);
    for (const consumer of this.#consumers) consumer.consume(event);
  }
}
