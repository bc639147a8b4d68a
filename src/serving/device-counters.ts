// Counts what one worker's instance of a device does. Made by queue-worker.ts and xen-counters.ts; before
// queue-counters.ts.

import type { DeviceMeter, QueueMeter } from '../virtqueue/queue-meter.ts';
import { QUEUE_BLOCK } from './counter-blocks.ts';
import { QueueCounters } from './queue-counters.ts';

const { at } = QUEUE_BLOCK;

/** The counters of one instance. */
export class DeviceCounters implements DeviceMeter {
  readonly #block: Float64Array;
  readonly #kind: string;

  /**
   * @param block which this thread alone writes
   * @param kind of device
   */
  constructor(block: Float64Array, kind: string) {
    this.#block = block;
    this.#kind = kind;
  }

  /** How many of its queues are served. */
  get enabledQueues(): number {
    return this.#block[at.enabledQueues];
  }

  queue(index: number, size: number): QueueMeter {
    const now = (): number => performance.now();
    const closed = (): void => this.queueClosed();
    this.#block[at.enabledQueues]++;
    return new QueueCounters({ block: this.#block, kind: this.#kind, index, size, now, closed });
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
