// An entropy device (virtio 1.3 §5.4): fills whatever buffer the driver offers.

import { VIRTIO_ID_RNG } from '../abi/virtio.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';

/** However much a driver asks for, one request gets this much (case D8). */
const MAX_BYTES = 65536;

/** Fills its argument with random bytes; `crypto.getRandomValues` is one. */
export type RandomSource = (bytes: Uint8Array<ArrayBuffer>) => void;

export class RngDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_RNG;
  readonly features = 0n;
  readonly queueSizes = [64];
  readonly config = new Uint8Array(0);
  readonly #random: RandomSource;
  readonly #bytes = new Uint8Array(MAX_BYTES);

  constructor(random: RandomSource) {
    this.#random = random;
  }

  start(): void {
    // Nothing to prepare.
  }

  stop(): void {
    // Nothing is under way between two requests.
  }

  handle(queue: DeviceQueue, chain: Chain): void {
    const bytes = this.#bytes.subarray(0, Math.min(chain.writable.byteLength, MAX_BYTES));
    this.#random(bytes);
    chain.writable.copyFrom(bytes, 0);
    // §5.4.6.2: what is not filled is not counted. A request whose buffer was refused gets nothing.
    if (queue.complete(chain, 0, bytes.length) < 0) queue.complete(chain, 0, 0);
    bytes.fill(0);
  }
}
