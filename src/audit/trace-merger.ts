// Brings the events of several threads (trace-ring.ts) into their one order and hands them to consumers:
// event n + 1 never before event n.

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
  #next = 0;
  #delivered = 0;

  /** @param rings all the rings of one traceRings() call */
  constructor(rings: readonly TraceRing[], consumers: readonly TraceConsumer[]) {
    this.#readers = rings.map((ring) => new RingReader(ring));
    this.#consumers = consumers;
    this.#counter = new Uint32Array(rings.length > 0 ? rings[0].counter : new SharedArrayBuffer(4));
  }

  /**
   * Delivers what is there, in order and without a hole: it stops at an event that a thread has numbered
   * but not written yet.
   *
   * @param limit most events to deliver, so that the caller's turn is bounded
   * @returns how many were delivered
   */
  drain(limit = Number.POSITIVE_INFINITY): number {
    const start = this.#delivered;
    for (;;) {
      const left = limit - (this.#delivered - start);
      const reader = this.#readerOfNext();
      if (left <= 0 || reader === undefined) return this.#delivered - start;
      this.#deliverRun(reader, Math.min(left, BATCH));
    }
  }

  /**
   * Ends the recording: no producer waits any more, and what the rings still hold is delivered, past holes
   * that threads left which were killed between numbering and writing an event.
   */
  close(): void {
    for (const reader of this.#readers) reader.close();
    for (this.drain(); this.#skipHole(); this.drain());
  }

  /**
   * Events that were reported and not delivered: still in a ring, or lost since its consumer was closed.
   * Exact while no thread is reporting.
   */
  get undelivered(): number {
    const numbered = (this.#counter[0] - this.#delivered) >>> 0;
    return this.#readers.reduce((sum, reader) => sum + reader.dropped, numbered);
  }

  /** Threads that wait for room in their ring now. */
  get waiting(): number {
    return this.#readers.filter((reader) => reader.isProducerWaiting).length;
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
