// Port: a virtio device as its driver reaches it (virtio 1.3 §4). Implemented in transports/; used by
// negotiate.ts and drivers/.

import type { FieldLayout } from '../abi/struct.ts';
import type { RingAddresses } from '../virtqueue/driver-queue.ts';

/** A driver's access to one device. All calls are control path, but `notify` and `takeInterrupt`. */
export interface DriverTransport {
  /** What kind of device it is (§5); 0 when there is none. */
  readonly deviceId: number;
  readStatus(): number;
  /** Sets the status; 0 resets the device, which has been done when the call returns. */
  writeStatus(status: number): void;
  readFeatures(): bigint;
  writeFeatures(features: bigint): void;
  /** Largest size of a queue, 0 when the device does not have it. */
  queueSizeMax(index: number): number;
  enableQueue(index: number, size: number, addresses: RingAddresses): void;
  /**
   * Has the device let go of one queue and of all that is in flight on it (§2.6.1, VIRTIO_F_RING_RESET); it may be
   * enabled anew. Returns false when the device has not done that.
   */
  resetQueue(index: number): boolean;
  /** Tells the device that queue `index` has something new. */
  notify(index: number): void;
  /**
   * A consistent copy of configuration space (§2.5.3), read field by field: §4.2.2.2 wants accesses as wide
   * as the fields.
   */
  readConfig(fields: readonly FieldLayout[]): Uint8Array;
  /** Why the device interrupted since the last call: MMIO_INTERRUPT_ bits, acknowledged. */
  takeInterrupt(): number;
}
