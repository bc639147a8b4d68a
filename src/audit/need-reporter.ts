// Needs and requests from a thread that must never wait, in its ring of events: one is reported only if there is room for
// the ends of all that has begun as well. So none goes on for ever, and what is left out is counted.
// After memory/traced-memory.ts and virtqueue/traced-queue.ts, before trace-ring.ts.

import { type NeedTracer, needsOf } from '../memory/traced-memory.ts';
import { type RequestTracer, requestsOf } from '../virtqueue/traced-queue.ts';
import type { RingTracer } from './trace-ring.ts';

/** The needs and requests of one thread's devices. */
export class NeedReporter {
  readonly #tracer: RingTracer;
  readonly #nextId: () => number;
  /** What has been reported and goes on. */
  #open = 0;

  /**
   * @param tracer of which nobody else reports anything
   * @param nextId gives a number that no other request has, of any thread
   */
  constructor(tracer: RingTracer, nextId: () => number) {
    this.#tracer = tracer;
    this.#nextId = nextId;
  }

  /** Reports what device `device` of domain `domain` has in hand. */
  needsOf(domain: number, device: number): NeedTracer {
    const { need, needEnd } = needsOf(this.#tracer, domain, device);
    return {
      need: (page, offset, size, direction) => this.#begins() && need(page, offset, size, direction),
      needEnd: (page, offset, size) => {
        this.#open--;
        needEnd(page, offset, size);
      },
    };
  }

  /** Reports its requests. */
  requestsOf(domain: number, device: number): RequestTracer {
    const { requestBegin, requestEnd } = requestsOf(this.#tracer, domain, device, this.#nextId);
    return {
      requestBegin: (bytes) => (this.#begins() ? requestBegin(bytes) : -1),
      requestEnd: (id, status) => {
        this.#open--;
        requestEnd(id, status);
      },
    };
  }

  /** Whether there is room for one more; if not, it and its end are given up. */
  #begins(): boolean {
    if (this.#tracer.hasRoomFor(this.#open + 2)) {
      this.#open++;
      return true;
    }
    this.#tracer.giveUp(2);
    return false;
  }
}
