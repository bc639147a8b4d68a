// A guest: its kernel's memory, grant table and heap, and the drivers of the devices it was given.
// Before drivers/, dma/ and transports/virtio-mmio/driver.ts.

import type { ExposureMode } from '../dma/exposure-modes.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import type { ReferenceUsage } from '../dma/references.ts';
import { BlkDriver, type BlkDriverOptions } from '../drivers/blk.ts';
import type { GuestDevice } from '../drivers/guest.ts';
import { RngDriver } from '../drivers/rng.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import { MmioTransport } from '../transports/virtio-mmio/driver.ts';
import type { DomainId, EventPort } from '../xen/ids.ts';
import { type DeviceDma, GuestDma } from './guest-dma.ts';

/** Where a device is and who serves it: from the toolstack, never from the device. */
export interface DevicePlace {
  /** Guest-physical address of the registers. */
  readonly base: number;
  readonly backend: DomainId;
  /** What dma/policy.ts decided; with 'plain' the backend may reach all of the memory. Default 'grants'. */
  readonly access?: 'grants' | 'plain';
  /** The device's number in the trace. */
  readonly device: number;
}

/** What a driver offers to whoever runs its guest. */
interface RunningDriver {
  /** Whether something was asked for and is not answered. */
  readonly busy: boolean;
  /** Requests that the device has and has not completed; others may be waiting for references. */
  readonly inFlight: number;
  /** Gives up a device that does not answer. */
  fail(reason: string): void;
  interrupt(): void;
  poll(): number;
  arm(): boolean;
  close(): boolean;
}

/** A driver and what belongs to it. */
interface Attached {
  readonly driver: RunningDriver;
  readonly port: EventPort;
  readonly dma: DeviceDma;
}

/** What is left of a device after it was detached. */
export interface Leftovers {
  /** References still granted, and those whose page the backend still maps. */
  readonly live: number;
  readonly quarantined: number;
}

/** One guest and its drivers. */
export class GuestDomain {
  readonly ports: DomainPorts;
  readonly heap: GuestHeap;
  readonly dma: GuestDma;
  readonly #attached = new Map<RunningDriver, Attached>();
  #requests = 0;
  /** Called when a driver begins to wait for its device: then call `poll` until nothing is `busy`. */
  onWaiting: () => void = () => undefined;

  /**
   * @param clock measures what this machine is good at, when that is needed; without one, fixed values hold,
   *   and every run is the same
   */
  constructor(ports: DomainPorts, clock?: () => number) {
    this.ports = ports;
    this.heap = new GuestHeap(ports.memory);
    this.dma = new GuestDma(ports, clock);
  }

  /** The exposure mode of a device: the one it was attached in, or `bounce` where `copy` is not to be had. */
  modeOf(driver: RunningDriver): ExposureMode {
    return this.#find(driver).dma.mode;
  }

  /** Starts the block device at `place`. Throws DeviceRefused when it may not be used. */
  attachBlk(place: DevicePlace, mode: ExposureMode, options: BlkDriverOptions): BlkDriver {
    return this.#attach('virtio_blk', place, mode, (device) => new BlkDriver(device, options));
  }

  /** Starts the entropy device at `place`. Throws DeviceRefused when it may not be used. */
  attachRng(place: DevicePlace, mode: ExposureMode): RngDriver {
    return this.#attach('virtio_rng', place, mode, (device) => new RngDriver(device));
  }

  /** Stops a device and takes back all that it could reach. */
  detach(driver: RunningDriver): Leftovers {
    const attached = this.#find(driver);
    this.#attached.delete(driver);
    driver.close();
    attached.dma.debug?.released();
    this.ports.events.close(attached.port);
    const { live, quarantined } = attached.dma.operations;
    return { live, quarantined };
  }

  /** How full and how scattered the guest's grant table is now, all its devices together. */
  referenceUsage(): ReferenceUsage {
    return this.dma.granting.references.usage();
  }

  /** Whether any driver waits for its device. */
  get busy(): boolean {
    for (const driver of this.#attached.keys()) if (driver.busy) return true;
    return false;
  }

  /** Gives up every device that still has not answered (case B9), not those that wait for another to do so. */
  giveUp(reason: string): void {
    for (const driver of this.#attached.keys()) if (driver.inFlight > 0) driver.fail(reason);
  }

  /** Takes events and completions. Returns whether there were any. */
  poll(): boolean {
    this.ports.park();
    let worked = this.ports.events.poll();
    for (const driver of this.#attached.keys()) if (driver.poll() > 0) worked = true;
    return worked;
  }

  /** Asks every device for an interrupt. Returns true when one has completed something meanwhile. */
  arm(): boolean {
    let more = false;
    for (const driver of this.#attached.keys()) if (driver.arm()) more = true;
    return more;
  }

  #find(driver: RunningDriver): Attached {
    const attached = this.#attached.get(driver);
    if (attached === undefined) throw new RangeError('the device is not attached to this guest');
    return attached;
  }

  /**
   * Ends access that was left open for the sake of speed, or could not be ended before. To be called before the
   * guest sleeps, and every few milliseconds while it does not.
   *
   * @param now milliseconds on a clock that never runs backwards
   * @returns when to call again at the latest; Infinity when nothing is due
   */
  tick(now: number): number {
    let due = Number.POSITIVE_INFINITY;
    for (const { dma } of this.#attached.values()) due = Math.min(due, dma.operations.tick(now));
    return due;
  }

  #anyInFlight(): boolean {
    for (const driver of this.#attached.keys()) if (driver.inFlight > 0) return true;
    return false;
  }

  /** @param name the driver's, as Linux calls it */
  #attach<Driver extends RunningDriver>(
    name: string,
    place: DevicePlace,
    mode: ExposureMode,
    start: (device: GuestDevice) => Driver,
  ): Driver {
    const { ports } = this;
    const restricted = place.access !== 'plain';
    const { device: number, backend } = place;
    const dma = this.dma.of({ driver: name, number, backend, restricted }, mode);
    const driver = start({
      transport: new MmioTransport(ports.mmio, place.base),
      dma: dma.operations,
      restricted,
      memory: ports.memory,
      heap: this.heap,
      tracer: ports.tracer,
      nextRequestId: () => this.#requests++,
      waiting: () => this.onWaiting(),
      anyInFlight: () => this.#anyInFlight(),
      domain: ports.id,
      device: place.device,
    });
    const port = ports.events.allocateUnbound(place.backend);
    ports.events.onEvent(port, () => driver.interrupt());
    ports.mmio.routeInterrupt(place.base, port);
    this.#attached.set(driver, { driver, port, dma });
    return driver;
  }
}
