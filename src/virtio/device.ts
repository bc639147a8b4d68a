// Port: a virtio device, seen from whatever transport serves it. Implemented in devices/; driven by
// device-state.ts. A device knows nothing of addresses, grants, domains or transports.

import type { ProtocolViolation } from '../errors.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';

/** What a device uses between its start and its stop, for what it does without being asked. */
export interface DeviceHost {
  /** Chains of `queue` were completed outside of their own `handle`: the driver is told if it wants to know. */
  completed(queue: DeviceQueue): void;
  /** The driver broke a rule, as was found outside of `handle`: the queue, or the device, is broken. */
  failed(queue: DeviceQueue, violation: ProtocolViolation): void;
  /** The device's configuration space has changed. */
  configChanged(): void;
}

/** What a device offers, as a transport tells the driver. */
export interface DeviceOffer {
  /** Features that this kind of device offers; those of rings and platform are added by the transport. */
  readonly features: bigint;
  /** Largest size of each queue; a power of two. */
  readonly queueSizes: readonly number[];
  /** The device's configuration space (§2.5), whose length is its size. */
  readonly config: Uint8Array;
}

/** A device's behaviour and what it offers. One instance serves one driver. */
export interface VirtioDevice extends DeviceOffer {
  /** virtio 1.3 §5: what kind of device it is. */
  readonly deviceId: number;
  /** How often `config` has changed (§2.5.3), modulo 2^32; never, where it is not given. */
  readonly configGeneration?: number;
  /** The driver has said DRIVER_OK, having accepted `features`. */
  start(features: bigint, host: DeviceHost): void;
  /**
   * In place of `start`: the driver said so to a predecessor that was killed, and has used the device since. Only
   * devices have it that remember what the driver said on their queues.
   */
  resume?(features: bigint, host: DeviceHost): void;
  /**
   * Serves one chain of queue `index`, and completes it on `queue` now or later. May throw
   * ProtocolViolation: the device is then broken until it is reset.
   */
  handle(queue: DeviceQueue, chain: Chain, index: number): void;
  /**
   * Waits until the host does nothing any more with the memory of chains, and completes those that it is done with.
   * Called before a queue is closed or memory goes (case T11). Only devices have it that hand memory to the host.
   */
  drain?(): void;
  /** The device was reset: whatever is under way is forgotten. */
  stop(): void;
}
