// Counts what one worker's instance of a device does. Made by queue-worker.ts and xen-counters.ts; before
// queue-counters.ts.

import type { DeviceMeter, QueueMeter } from '../virtqueue/queue-meter.ts';
import { type RequestTracer, TracedQueue } from '../virtqueue/traced-queue.ts';
import { QUEUE_BLOCK } from './counter-blocks.ts';
import { isRequested } from './operations.ts';
import { QueueCounters } from './queue-counters.ts';

const { at } = QUEUE_BLOCK;

/** The counters of one instance. */
export class DeviceCounters implements DeviceMeter {
  readonly #block: Float64Array;
  readonly #kind: string;
  readonly #requests: RequestTracer | undefined;

  /**
   * @param block which this thread alone writes
   * @param kind of device
   * @param requests told of its requests; nobody is unless given
   */
  constructor(block: Float64Array, kind: string, requests?: RequestTracer) {
    this.#block = block;
    this.#kind = kind;
    this.#requests = isRequested(kind) ? requests : undefined;
  }

  /** How many of its queues are served. */
  get enabledQueues(): number {
    return this.#block[at.enabledQueues];
  }

  queue(index: number, size: number): QueueMeter {
    const now = (): number => performance.now();
    const closed = (): void => this.queueClosed();
    this.#block[at.enabledQueues]++;
    const counters = new QueueCounters({ block: this.#block, kind: this.#kind, index, size, now, closed });
    return this.#requests === undefined ? counters : new TracedQueue(counters, this.#requests, size);
  }

  notified(): void {
    this.#block[at.notifications]++;
  }

  exposed(byteLength: number): void {
    this.#block[at.exposedBytes] = byteLength;
  }

  protected queueClosed(): void {
    this.#block[at.enabledQueues]--;
  }
}
