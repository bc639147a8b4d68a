// A driver as whoever runs its guest sees it, and the drivers that there are. After machine/guest-domain.ts,
// before blk.ts, console.ts and rng.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { BlkDriver, type BlkDriverOptions } from './blk.ts';
import { ConsoleDriver } from './console.ts';
import type { GuestDevice } from './guest.ts';
import type { DeviceHealth } from './recovery.ts';
import { RngDriver } from './rng.ts';

/** What a driver offers to whoever runs its guest. */
export interface Driver {
  /** Whether something was asked for and is not answered. */
  readonly busy: boolean;
  /** Requests that the device has and has not completed; others may be waiting for references. */
  readonly inFlight: number;
  readonly health: DeviceHealth;
  /** Why the device cannot be used for the time being; requests wait. */
  readonly outage: string | undefined;
  /** How often it was reset because something was wrong. */
  readonly resets: number;
  /** Why the device is no longer used; undefined while it is. */
  readonly failure: string | undefined;
  /** Whether the device is still the one that was started: it was neither reset nor replaced by another. */
  readonly holdsDevice: boolean;
  /** Resets a device that does not answer; gives it up when that has not helped. */
  recover(reason: string): void;
  /** Gives up a device: it is reset, and what was asked of it fails. */
  fail(reason: string): void;
  /** To be called when the device interrupts. */
  interrupt(): void;
  /** Takes what the device has completed. Returns how much that was. */
  poll(): number;
  /** Does what is due at `now`, in milliseconds. Returns when that is next so; see DmaOperations.tick. */
  tick(now: number): number;
  /** Stops the device for the time being, and takes back all that it could reach. */
  suspend(reason: string): void;
  /** Goes on with the device where it is now. Throws DeviceRefused when it is not the same. */
  resume(device: GuestDevice): void;
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

/** A kind of driver. */
interface DriverKind {
  /** As Linux calls it. */
  readonly name: string;
  start(device: GuestDevice, options: DriverOptions): Driver;
}

/** The driver of each kind of device, by virtio device id: a new kind is one line here. */
const DRIVERS = new Map<number, DriverKind>([
  [VIRTIO_ID_BLOCK, { name: 'virtio_blk', start: (device, { disk }) => new BlkDriver(device, disk) }],
  [VIRTIO_ID_CONSOLE, { name: 'virtio_console', start: (device) => new ConsoleDriver(device) }],
  [VIRTIO_ID_RNG, { name: 'virtio_rng', start: (device) => new RngDriver(device) }],
]);

/** The driver for a virtio device of type `deviceId`. Throws DeviceRefused when there is none. */
export function driverFor(deviceId: number): DriverKind {
  const kind = DRIVERS.get(deviceId);
  if (kind === undefined)
    throw new DeviceRefused(`the guest has no driver for a virtio device of type ${deviceId}`);
  return kind;
}
