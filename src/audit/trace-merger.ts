// Brings the events of several threads (trace-ring.ts) into their one order and hands them to consumers:
// event n + 1 never before event n.

import { assert } from '../errors.ts';
import type { TraceConsumer } from './events.ts';
import { ReusedEvents } from './reused-events.ts';
import { RingReader, type TraceRing } from './trace-ring.ts';

/** Records read from one ring before their room is given back. */
const BATCH = 256;

/** The only consumer of the rings of one run. */
export class TraceMerger {
  readonly #readers: readonly RingReader[];
  readonly #consumers: readonly TraceConsumer[];
  readonly #counter: Uint32Array;
  readonly #events = new ReusedEvents();
  /** Number of the next event. */
  #next: number;
  readonly #first: number;
  #delivered = 0;

  /** @param rings all the rings of one traceRings() call, before any thread records into them */
  constructor(rings: readonly TraceRing[], consumers: readonly TraceConsumer[]) {
    this.#readers = rings.map((ring) => new RingReader(ring));
    this.#consumers = consumers;
    this.#counter = new Uint32Array(rings[0].counter);
    this.#next = this.#first = this.#counter[0];
    assert(
      this.#readers.every((reader) => reader.peek() < 0),
      'a thread recorded events before the merger was made',
    );
  }

  /**
   * Delivers what is there, in order and without a hole: it stops at an event that a thread has numbered
   * but not written yet.
   *
   * @param limit most events to deliver; unless given, as many as have been recorded by now
   * @returns how many were delivered
   */
  drain(limit = this.#pending): number {
    const start = this.#delivered;
    for (;;) {
      const left = limit - (this.#delivered - start);
      const reader = this.#readerOfNext();
      if (left <= 0 || reader === undefined) return this.#delivered - start;
      this.#deliverRun(reader, Math.min(left, BATCH));
    }
  }

  /**
   * Ends the recording: no producer waits any more, and what the rings hold now is delivered, past holes
   * that threads left which were killed between numbering and writing an event.
   */
  close(): void {
    for (const reader of this.#readers) reader.close();
    let left = this.#pending;
    do left -= this.drain(left);
    while (left > 0 && this.#skipHole());
  }

  /**
   * Events that were reported and not delivered: still in a ring, or lost since its consumer was closed.
   * Exact while no thread is reporting.
   */
  get undelivered(): number {
    return this.lost + this.#pending;
  }

  /** Events that threads gave up. */
  get lost(): number {
    return this.#readers.reduce((sum, reader) => sum + reader.dropped, 0);
  }

  /** Threads that wait for room in their ring now. */
  get waiting(): number {
    return this.#readers.filter((reader) => reader.isProducerWaiting).length;
  }

  /** Events numbered and not delivered. */
  get #pending(): number {
    return (Atomics.load(this.#counter, 0) - this.#first - this.#delivered) >>> 0;
  }

  #readerOfNext(): RingReader | undefined {
    for (const reader of this.#readers) {
      if (reader.peek() === this.#next >>> 0) return reader;
    }
    return undefined;
  }

  #deliverRun(reader: RingReader, most: number): void {
    let count = 0;
    do {
      const event = reader.take(this.#events, this.#next++);
      for (const consumer of this.#consumers) consumer.consume(event);
      count++;
    } while (count < most && reader.peek() === this.#next >>> 0);
    this.#delivered += count;
    reader.release();
  }

  /** Goes to the lowest number that any ring holds. Returns false when the rings are empty. */
  #skipHole(): boolean {
    let nearest = Number.POSITIVE_INFINITY;
    for (const reader of this.#readers) {
      for (let sequence = reader.peek(); sequence >= 0; sequence = reader.peek()) {
        const distance = (sequence - this.#next) | 0;
        if (distance >= 0) {
          nearest = Math.min(nearest, distance);
          break;
        }
        // Written after we had given its hole up: out of order now, and counted as not delivered.
        reader.skip();
      }
    }
    if (nearest === Number.POSITIVE_INFINITY) return false;
    this.#next += nearest;
    return true;
  }
}
