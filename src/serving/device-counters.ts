// Counts what one worker's instance of a device does. Made by queue-worker.ts; before queue-counters.ts.

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

  queue(index: number, size: number): QueueMeter {
    const now = (): number => performance.now();
    return new QueueCounters({ block: this.#block, kind: this.#kind, index, size, now });
  }

  notified(): void {
    this.#block[at.notifications]++;
  }

  exposed(byteLength: number): void {
    this.#block[at.exposedBytes] = byteLength;
  }
}
