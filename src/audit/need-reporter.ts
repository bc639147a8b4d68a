// Needs from a thread that must never wait, in its ring of events: a need is reported only if there is room for the ends
// of all that has begun as well. So no need goes on for ever, and what is left out is counted.
// After memory/traced-memory.ts, before trace-ring.ts.

import type { NeedTracer } from '../memory/traced-memory.ts';
import type { RingTracer } from './trace-ring.ts';

/** The needs of one thread's devices. */
export class NeedReporter {
  readonly #tracer: RingTracer;
  /** Needs that have been reported and go on. */
  #open = 0;

  /** @param tracer of which nobody else reports anything */
  constructor(tracer: RingTracer) {
    this.#tracer = tracer;
  }

  /** Reports for device `device` of domain `domain`. */
  of(domain: number, device: number): NeedTracer {
    const tracer = this.#tracer;
    return {
      need: (page, offset, size, direction) => {
        if (!tracer.hasRoomFor(this.#open + 2)) {
          // Its end is not reported either.
          tracer.giveUp(2);
          return false;
        }
        this.#open++;
        tracer.need(domain, device, page, offset, size, direction);
        return true;
      },
      needEnd: (page, offset, size) => {
        this.#open--;
        tracer.needEnd(domain, device, page, offset, size);
      },
    };
  }
}
