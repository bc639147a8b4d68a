// The drivers that a guest has, by the kind of device. After machine/guest-domain.ts, before blk.ts, console.ts and
// rng.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { BlkDriver, type BlkDriverOptions } from './blk.ts';
import { ConsoleDriver } from './console.ts';
import type { Driver } from './driver.ts';
import type { GuestDevice } from './guest.ts';
import { RngDriver } from './rng.ts';

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
