// A guest: its kernel's memory, grant table and heap, and the drivers of the devices it was given.
// Before drivers/, dma/ and transports/virtio-mmio/driver.ts.

import type { DmaOperations } from '../dma/dma.ts';
import { type ExposureMode, grantDma } from '../dma/exposure-modes.ts';
import { type GrantingDomain, Grants } from '../dma/grants.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import { References } from '../dma/references.ts';
import { BlkDriver, type BlkDriverOptions } from '../drivers/blk.ts';
import { type Driver, type DriverOptions, startDriver } from '../drivers/driver.ts';
import type { GuestDevice } from '../drivers/guest.ts';
import { RngDriver } from '../drivers/rng.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
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

/** What belongs to a driver. */
interface Attached {
  readonly base: number;
  readonly port: EventPort;
  readonly dma: DmaOperations;
}

/** What a backend still maps of a device that has gone. */
interface Held {
  readonly dma: DmaOperations;
  /** Called once it maps nothing any more. */
  release(): void;
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
  readonly #attached = new Map<Driver, Attached>();
  /** Devices that have gone, and of whose pages a backend still maps some. */
  readonly #held = new Set<Held>();
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

  /** Starts the driver of whatever is at `place`. Throws DeviceRefused when it may not be used. */
  attach(place: DevicePlace, mode: ExposureMode, options: DriverOptions): Driver {
    return this.#attach(place, mode, (device) => startDriver(device, options));
  }

  /** Starts the block device at `place`. Throws DeviceRefused when it may not be used. */
  attachBlk(place: DevicePlace, mode: ExposureMode, options: BlkDriverOptions): BlkDriver {
    return this.#attach(place, mode, (device) => new BlkDriver(device, options));
  }

  /** Starts the entropy device at `place`. Throws DeviceRefused when it may not be used. */
  attachRng(place: DevicePlace, mode: ExposureMode): RngDriver {
    return this.#attach(place, mode, (device) => new RngDriver(device));
  }

  /**
   * Stops a device and takes back all that it could reach. What a backend still maps stays in quarantine, until
   * `recover` finds that it has let go.
   */
  detach(driver: Driver): Leftovers {
    const attached = this.#attached.get(driver);
    if (attached === undefined) throw new RangeError('the device is not attached to this guest');
    this.#attached.delete(driver);
    const { base, port, dma } = attached;
    this.#close(driver, dma);
    // Whatever is served there next must not raise a port that is somebody else's by then.
    this.ports.mmio.routeInterrupt(base, 0);
    this.ports.events.close(port);
    return { live: dma.live, quarantined: dma.quarantined };
  }

  /** Takes back what backends have let go of since their devices were detached. Returns how many pages that were. */
  recover(): number {
    let pages = 0;
    for (const held of this.#held) {
      pages += held.dma.recover();
      if (held.dma.quarantined > 0) continue;
      this.#held.delete(held);
      held.dma.close();
      held.release();
    }
    return pages;
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

  #attach<Started extends Driver>(
    place: DevicePlace,
    mode: ExposureMode,
    start: (device: GuestDevice) => Started,
  ): Started {
    this.recover();
    const { ports } = this;
    const { base, backend, device } = place;
    const dma = grantDma(mode, new Grants(this.granting, backend), device);
    const driver = this.#start(dma, () =>
      start({
        transport: new MmioTransport(ports.mmio, base),
        dma,
        restricted: true,
        memory: ports.memory,
        heap: this.heap,
        tracer: ports.tracer,
        nextRequestId: () => this.#requests++,
        waiting: () => this.onWaiting(),
        domain: ports.id,
        device,
      }),
    );
    const port = ports.events.allocateUnbound(backend);
    if (port < 0) {
      this.#close(driver, dma);
      throw new DeviceRefused(`the guest has no event channel left for the device (error ${port})`);
    }
    ports.events.onEvent(port, () => driver.interrupt());
    ports.mmio.routeInterrupt(base, port);
    this.#attached.set(driver, { base, port, dma });
    return driver;
  }

  /** A device that refuses to start may have mapped rings already, and may not let go of them. */
  #start<Started extends Driver>(dma: DmaOperations, start: () => Started): Started {
    try {
      return start();
    } catch (error) {
      if (dma.quarantined > 0) this.#held.add({ dma, release: () => undefined });
      throw error;
    }
  }

  #close(driver: Driver, dma: DmaOperations): void {
    if (!driver.close()) this.#held.add({ dma, release: () => driver.release() });
  }
}
