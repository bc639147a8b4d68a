// Recording from several threads: each has a ring of fixed-size records in shared memory, and one shared
// counter puts the events of all of them into one order. trace-merger.ts reads the rings.
//
// One producer and one consumer a ring. When it is full the producer waits for room, so that no event is
// lost and the accounting stays exact; a closed ring, whose consumer is gone, ends the wait and counts.

import { assert } from '../errors.ts';
import { type Clock, EventTracer } from './event-tracer.ts';
import type { TraceEvent } from './events.ts';
import type { ReusedEvents } from './reused-events.ts';

/** One thread's ring, ready to be posted to that thread. */
export interface TraceRing {
  /** The thread's number in its events. */
  readonly thread: number;
  /** Int32: how many events all threads have recorded, free-running. Shared by the rings of one run. */
  readonly counter: SharedArrayBuffer;
  /** The header, then the records. */
  readonly memory: SharedArrayBuffer;
}

// Header, as indices of 32-bit words; what different threads write lies in different cache lines.
/** Records ever written by the producer, free-running. */
const HEAD = 0;
/** Events that the producer gave up, because the ring was closed or it may not block. */
const DROPPED = 1;
/** 1 while the producer waits for room. */
const WAITING = 2;
/** Records ever read by the consumer, free-running. */
const TAIL = 16;
/** 1 once the consumer is gone. */
const CLOSED = 17;
const HEADER_SIZE = 128;

/** A record is eight doubles: sequence and kind as two u32, the time, six arguments. */
const RECORD_DOUBLES = 8;
const RECORD_SIZE = 64;

/** How often a producer that may not block looks for room before it gives an event up: some milliseconds. */
const SPINS = 200_000;
/** A blocked producer looks again this often, whatever it was told. */
const WAIT_MILLISECONDS = 100;

/**
 * Makes the rings of one run.
 *
 * @param threads how many; they are numbered from 0
 * @param records capacity of each, a power of two; 16384 take 1 MiB
 */
export function traceRings(threads: number, records = 16384): TraceRing[] {
  assert(records > 0 && (records & (records - 1)) === 0, `ring of ${records} records: not a power of two`);
  const counter = new SharedArrayBuffer(4);
  return Array.from({ length: threads }, (_, thread) => ({
    thread,
    counter,
    memory: new SharedArrayBuffer(HEADER_SIZE + records * RECORD_SIZE),
  }));
}

/** The views on a ring that both sides use. */
class RingViews {
  readonly header: Int32Array;
  readonly doubles: Float64Array;
  readonly words: Uint32Array;
  readonly capacity: number;

  constructor({ memory }: TraceRing) {
    this.header = new Int32Array(memory, 0, HEADER_SIZE / 4);
    this.doubles = new Float64Array(memory, HEADER_SIZE);
    this.words = new Uint32Array(memory, HEADER_SIZE);
    this.capacity = this.doubles.length / RECORD_DOUBLES;
  }
}

/** The producer's side: the Tracer of one thread. */
export class RingTracer extends EventTracer {
  readonly #views: RingViews;
  readonly #counter: Int32Array;
  readonly #now: Clock;
  readonly #mayBlock: boolean;
  #head: number;
  /** The consumer's position when we last looked. */
  #tail: number;
  /** We waited in vain and have seen no room since. */
  #gaveUp = false;

  /**
   * @param now a clock of which every thread of the run reads the same time
   * @param mayBlock false where Atomics.wait is forbidden (a browser's main thread): a full ring is then
   *   watched for some milliseconds, after which events are dropped and counted until there is room
   */
  constructor(ring: TraceRing, now: Clock, mayBlock = true) {
    super();
    this.#views = new RingViews(ring);
    this.#counter = new Int32Array(ring.counter);
    this.#now = now;
    this.#mayBlock = mayBlock;
    this.#head = Atomics.load(this.#views.header, HEAD);
    this.#tail = Atomics.load(this.#views.header, TAIL);
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
    const { header, doubles, words, capacity } = this.#views;
    // Room first, number second: an event that is given up must not leave a hole in the order.
    if (((this.#head - this.#tail) | 0) >= capacity && !this.#waitForRoom()) return;
    const at = (this.#head & (capacity - 1)) * RECORD_DOUBLES;
    doubles[at + 1] = this.#now();
    words[at * 2] = Atomics.add(this.#counter, 0, 1);
    words[at * 2 + 1] = kind;
    doubles[at + 2] = a;
    doubles[at + 3] = b;
    doubles[at + 4] = c;
    doubles[at + 5] = d;
    doubles[at + 6] = e;
    doubles[at + 7] = f;
    this.#head = (this.#head + 1) | 0;
    Atomics.store(header, HEAD, this.#head);
  }

  /** Whether so many events find room without waiting. */
  hasRoomFor(count: number): boolean {
    const { header, capacity } = this.#views;
    const most = capacity - count;
    if (((this.#head - this.#tail) | 0) <= most) return true;
    this.#tail = Atomics.load(header, TAIL);
    return ((this.#head - this.#tail) | 0) <= most;
  }

  /** Counts events that are not reported, because whoever would may not wait. */
  giveUp(count: number): void {
    Atomics.add(this.#views.header, DROPPED, count);
  }

  /** Returns false when the event has to be given up; it is counted then. */
  #waitForRoom(): boolean {
    const isRoom = this.hasRoomFor(1) || (this.#mayBlock ? this.#block() : this.#spin());
    this.#gaveUp = !isRoom;
    if (!isRoom) this.giveUp(1);
    return isRoom;
  }

  #block(): boolean {
    const { header } = this.#views;
    Atomics.store(header, WAITING, 1);
    // The consumer moves TAIL and then looks at WAITING: between the two one of us sees the other.
    while (!this.hasRoomFor(1) && Atomics.load(header, CLOSED) === 0)
      Atomics.wait(header, TAIL, this.#tail, WAIT_MILLISECONDS);
    Atomics.store(header, WAITING, 0);
    return this.hasRoomFor(1);
  }

  #spin(): boolean {
    // Whoever waited in vain once does not hold up every further event.
    for (let spins = this.#gaveUp ? SPINS : 0; spins < SPINS; spins++) {
      if (this.hasRoomFor(1)) return true;
      if (Atomics.load(this.#views.header, CLOSED) !== 0) return false;
    }
    return false;
  }
}

/** The consumer's side of one ring. */
export class RingReader {
  readonly #views: RingViews;
  readonly #thread: number;
  #tail: number;
  /** The producer's position when we last looked. */
  #head: number;

  constructor(ring: TraceRing) {
    this.#views = new RingViews(ring);
    this.#thread = ring.thread;
    this.#tail = Atomics.load(this.#views.header, TAIL);
    this.#head = this.#tail;
  }

  /** Sequence number of the oldest unread record as a u32, or -1 when there is none. */
  peek(): number {
    if (this.#tail === this.#head) {
      this.#head = Atomics.load(this.#views.header, HEAD);
      if (this.#tail === this.#head) return -1;
    }
    return this.#views.words[this.#slot() * 2];
  }

  /** Reads the record that `peek` saw, as event number `sequence`. */
  take(events: ReusedEvents, sequence: number): TraceEvent {
    const { doubles, words } = this.#views;
    const at = this.#slot();
    this.skip();
    return events.make(
      words[at * 2 + 1],
      sequence,
      doubles[at + 1],
      this.#thread,
      doubles[at + 2],
      doubles[at + 3],
      doubles[at + 4],
      doubles[at + 5],
      doubles[at + 6],
      doubles[at + 7],
    );
  }

  /** Passes over the record that `peek` saw. */
  skip(): void {
    this.#tail = (this.#tail + 1) | 0;
  }

  /** Gives the room of the records read so far back to the producer. */
  release(): void {
    const { header } = this.#views;
    Atomics.store(header, TAIL, this.#tail);
    if (Atomics.load(header, WAITING) !== 0) Atomics.notify(header, TAIL);
  }

  /** Says that nobody will read any more: a waiting producer goes on, and gives up what finds no room. */
  close(): void {
    Atomics.store(this.#views.header, CLOSED, 1);
    Atomics.notify(this.#views.header, TAIL);
  }

  /** Events that the producer gave up. */
  get dropped(): number {
    return Atomics.load(this.#views.header, DROPPED) >>> 0;
  }

  /** Whether the producer waits for room now. */
  get isProducerWaiting(): boolean {
    return Atomics.load(this.#views.header, WAITING) !== 0;
  }

  #slot(): number {
    return (this.#tail & (this.#views.capacity - 1)) * RECORD_DOUBLES;
  }
}
