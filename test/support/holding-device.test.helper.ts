// A device that answers when the test says so, for what can go wrong while requests are in flight.

import type { VirtioDevice } from '../../src/virtio/device.ts';
import type { Chain, DeviceQueue } from '../../src/virtqueue/device-queue.ts';

export class HoldingDevice implements VirtioDevice {
  readonly deviceId: number = 42;
  readonly features: bigint = 0n;
  readonly queueSizes: readonly number[] = [16];
  readonly config: Uint8Array = new Uint8Array(8);
  readonly held: { readonly queue: DeviceQueue; readonly chain: Chain }[] = [];

  start(): void {
    // Nothing to prepare.
  }

  stop(): void {
    // It forgets nothing: the worst that a device can do.
  }

  handle(queue: DeviceQueue, chain: Chain): void {
    this.held.push({ queue, chain });
  }

  /** Answers the oldest request with nothing. */
  answer(): void {
    const { queue, chain } = this.held.shift()!;
    queue.complete(chain, 0, 0);
  }
}
