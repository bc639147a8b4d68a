// A driver as whoever runs its guest sees it, and the drivers that there are. After machine/guest-domain.ts,
// before blk.ts and rng.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { BlkDriver, type BlkDriverOptions } from './blk.ts';
import type { GuestDevice } from './guest.ts';
import { RngDriver } from './rng.ts';

/** What a driver offers to whoever runs its guest. */
export interface Driver {
  /** Whether something was asked for and is not answered. */
  readonly busy: boolean;
  /** Why the device is no longer used; undefined while it is. */
  readonly failure: string | undefined;
  /** Whether the device is still the one that was started: it was neither reset nor replaced by another. */
  readonly holdsDevice: boolean;
  /** Gives up a device: it is reset, and what was asked of it fails. */
  fail(reason: string): void;
  /** To be called when the device interrupts. */
  interrupt(): void;
  /** Takes what the device has completed. Returns how much that was. */
  poll(): number;
  /** Asks for an interrupt at the next completion. Returns true when there is one to poll for already. */
  arm(): boolean;
  /**
   * Stops the device; what is still under way fails.
   *
   * @returns whether all pages could be taken back from the backend; if not, `release` is to be called when they have
   */
  close(): boolean;
  /** After `close`: gives memory back that the backend still reached then. */
  release(): void;
}

/** How drivers use their devices, whichever those are. */
export interface DriverOptions {
  readonly disk: BlkDriverOptions;
}

/** Starts the driver of each kind of device, by virtio device id: a new kind is one line here. */
const DRIVERS = new Map<number, (device: GuestDevice, options: DriverOptions) => Driver>([
  [VIRTIO_ID_BLOCK, (device, { disk }) => new BlkDriver(device, disk)],
  [VIRTIO_ID_RNG, (device) => new RngDriver(device)],
]);

/** Starts the driver of what the device says it is. Throws DeviceRefused when there is none, or it may not be used. */
export function startDriver(device: GuestDevice, options: DriverOptions): Driver {
  const { deviceId } = device.transport;
  const start = DRIVERS.get(deviceId);
  if (start === undefined)
    throw new DeviceRefused(`the guest has no driver for a virtio device of type ${deviceId}`);
  return start(device, options);
}
