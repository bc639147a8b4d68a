// Chains of one queue that a device has taken and completes later, oldest first. Used by console.ts and
// console-port.ts.

import type { DeviceHost } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';

interface Held {
  readonly queue: DeviceQueue;
  readonly chain: Chain;
}

/** As many as the queue has descriptors at most. */
export class HeldChains {
  readonly #held: Held[] = [];

  /** Keeps a chain, after those of the same queue. Of a queue that was reset, nothing is kept. */
  add(queue: DeviceQueue, chain: Chain): void {
    if (this.first === undefined) this.#held.length = 0;
    this.#held.push({ queue, chain });
  }

  /** The oldest chain. */
  get first(): Chain | undefined {
    while (this.#held[0]?.queue.closed) this.#held.shift();
    return this.#held[0]?.chain;
  }

  /**
   * Returns the oldest chain to the driver.
   *
   * @param read bytes of its readable part that were looked at
   * @param written bytes that were written from the start of its writable part on
   * @returns false when what was written could not be delivered: the driver has got an empty chain back
   */
  complete(read: number, written: number, host: DeviceHost): boolean {
    const { queue, chain } = this.#held.shift()!;
    const delivered = queue.complete(chain, read, written) === 0;
    if (!delivered) queue.complete(chain, 0, 0);
    host.completed(queue);
    return delivered;
  }

  clear(): void {
    this.#held.length = 0;
  }
}
