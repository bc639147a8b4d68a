// A guest: its kernel's memory, grant table and heap, and the drivers of the devices it was given.
// Before drivers/, dma/ and transports/virtio-mmio/driver.ts.

import type { DmaOperations } from '../dma/dma.ts';
import { type ExposureMode, grantDma } from '../dma/exposure-modes.ts';
import type { GrantingDomain } from '../dma/granting-domain.ts';
import { Grants } from '../dma/grants.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import { References, type ReferenceUsage } from '../dma/references.ts';
import { BlkDriver, type BlkDriverOptions } from '../drivers/blk.ts';
import type { GuestDevice } from '../drivers/guest.ts';
import { RngDriver } from '../drivers/rng.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import { MmioTransport } from '../transports/virtio-mmio/driver.ts';
import type { DomainId, EventPort } from '../xen/ids.ts';

/** Where a device is and who serves it: from the toolstack, never from the device. */
export interface DevicePlace {
  /** Guest-physical address of the registers. */
  readonly base: number;
  readonly backend: DomainId;
  /** The device's number in the trace. */
  readonly device: number;
}

/** What a driver offers to whoever runs its guest. */
interface RunningDriver {
  /** Whether something was asked for and is not answered. */
  readonly busy: boolean;
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
  readonly dma: DmaOperations;
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
  readonly granting: GrantingDomain;
  readonly #attached = new Map<RunningDriver, Attached>();
  #requests = 0;
  /** Called when a driver begins to wait for its device: then call `poll` until nothing is `busy`. */
  onWaiting: () => void = () => undefined;

  constructor(ports: DomainPorts) {
    this.ports = ports;
    this.heap = new GuestHeap(ports.memory);
    this.granting = {
      id: ports.id,
      memory: ports.memory,
      table: ports.grantTable,
      references: new References(ports.grantTable),
      tracer: ports.tracer,
    };
  }

  /** Starts the block device at `place`. Throws DeviceRefused when it may not be used. */
  attachBlk(place: DevicePlace, mode: ExposureMode, options: BlkDriverOptions): BlkDriver {
    return this.#attach(place, mode, (device) => new BlkDriver(device, options));
  }

  /** Starts the entropy device at `place`. Throws DeviceRefused when it may not be used. */
  attachRng(place: DevicePlace, mode: ExposureMode): RngDriver {
    return this.#attach(place, mode, (device) => new RngDriver(device));
  }

  /** Stops a device and takes back all that it could reach. */
  detach(driver: RunningDriver): Leftovers {
    const attached = this.#attached.get(driver);
    if (attached === undefined) throw new RangeError('the device is not attached to this guest');
    this.#attached.delete(driver);
    driver.close();
    this.ports.events.close(attached.port);
    return { live: attached.dma.live, quarantined: attached.dma.quarantined };
  }

  /** How full and how scattered the guest's grant table is now, all its devices together. */
  referenceUsage(): ReferenceUsage {
    return this.granting.references.usage();
  }

  /** Whether any driver waits for its device. */
  get busy(): boolean {
    for (const driver of this.#attached.keys()) if (driver.busy) return true;
    return false;
  }

  /** Gives up every device that still has not answered (case B9). */
  giveUp(reason: string): void {
    for (const driver of this.#attached.keys()) if (driver.busy) driver.fail(reason);
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

  #attach<Driver extends RunningDriver>(
    place: DevicePlace,
    mode: ExposureMode,
    start: (device: GuestDevice) => Driver,
  ): Driver {
    const { ports } = this;
    const grants = new Grants(this.granting, place.backend);
    const dma = grantDma(mode, grants, place.device);
    const driver = start({
      transport: new MmioTransport(ports.mmio, place.base),
      dma,
      restricted: true,
      memory: ports.memory,
      heap: this.heap,
      tracer: ports.tracer,
      nextRequestId: () => this.#requests++,
      waiting: () => this.onWaiting(),
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
