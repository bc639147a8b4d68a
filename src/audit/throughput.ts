// How much a guest's drivers did between their first request and their last, counted from the trace: for
// runs whose load is somebody else's, such as an NBD client's.

import type { TraceConsumer, TraceEvent } from './events.ts';

/** Counts requests and bytes. */
export class Throughput implements TraceConsumer {
  #requests = 0;
  #bytes = 0;
  #first = Number.POSITIVE_INFINITY;
  #last = 0;

  consume(event: TraceEvent): void {
    if (event.kind === 'requestBegin') {
      this.#requests++;
      this.#bytes += event.bytes;
      this.#first = Math.min(this.#first, event.time);
    } else if (event.kind === 'requestEnd') this.#last = event.time;
  }

  /** What was done: bytes of data, requests, and the nanoseconds from the first one's start to the last one's end. */
  get total(): { readonly bytes: number; readonly requests: number; readonly nanoseconds: number } {
    return {
      bytes: this.#bytes,
      requests: this.#requests,
      nanoseconds: Math.max(this.#last - this.#first, 0),
    };
  }
}
