// A queue's meter that reports each request to a tracer, from when the device has taken it until the driver gets it back:
// how the accounting learns of requests where nobody but the backend can say so. Wraps another queue-meter.ts; made by
// serving/device-counters.ts.

import { type Tracer, UNKNOWN_TYPE } from '../trace.ts';
import type { QueueMeter } from './queue-meter.ts';

/** Status of a request whose queue was closed before it was done: the driver took it back, and hears nothing of it. */
const TAKEN_BACK = 255;
const NOT_REPORTED = -1;

/** Port: told of the requests of one device. Arguments are numbers, so that a call allocates nothing. */
export interface RequestTracer {
  /**
   * A request was taken whose descriptors speak of so many bytes.
   *
   * @returns what names it, or -1 if it was not reported: then its end is not to be, either
   */
  requestBegin(bytes: number): number;
  /** It is done; `status` 0 is success. */
  requestEnd(id: number, status: number): void;
}

/**
 * The requests of device `device` of domain `domain`, for a tracer that takes all of them.
 *
 * @param nextId gives a number that no other request of the domain has
 */
export function requestsOf(
  tracer: Tracer,
  domain: number,
  device: number,
  nextId: () => number,
): RequestTracer {
  return {
    requestBegin: (bytes) => {
      const id = nextId();
      // What it asks for is known when the device has looked at it.
      tracer.requestBegin(domain, device, id, UNKNOWN_TYPE, bytes);
      return id;
    },
    requestEnd: (id, status) => tracer.requestEnd(domain, device, id, status),
  };
}

/** The meter of one queue. */
export class TracedQueue implements QueueMeter {
  readonly #inner: QueueMeter;
  readonly #requests: RequestTracer;
  /** What names the request of each head, or NOT_REPORTED. */
  readonly #ids: Float64Array;

  /** @param size descriptors of the queue */
  constructor(inner: QueueMeter, requests: RequestTracer, size: number) {
    this.#inner = inner;
    this.#requests = requests;
    this.#ids = new Float64Array(size).fill(NOT_REPORTED);
  }

  turn(): void {
    this.#inner.turn();
  }

  taken(head: number, byteLength: number, depth: number): void {
    this.#ids[head] = this.#requests.requestBegin(byteLength);
    this.#inner.taken(head, byteLength, depth);
  }

  refused(): void {
    this.#inner.refused();
  }

  completed(head: number, type: number, status: number, bytesRead: number, written: number): void {
    this.#inner.completed(head, type, status, bytesRead, written);
    this.#end(head, status);
  }

  interrupted(): void {
    this.#inner.interrupted();
  }

  closed(): void {
    for (let head = 0; head < this.#ids.length; head++) this.#end(head, TAKEN_BACK);
    this.#inner.closed();
  }

  #end(head: number, status: number): void {
    const id = this.#ids[head];
    if (id === NOT_REPORTED) return;
    this.#ids[head] = NOT_REPORTED;
    this.#requests.requestEnd(id, status);
  }
}
