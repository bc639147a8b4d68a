// A guest: its kernel's memory, grant table and heap, and the drivers of the devices it was given.
// Before drivers/, dma/ and transports/virtio-mmio/driver.ts.

import { DIRECT_FROM } from '../dma/auto-sharing.ts';
import { measureDirectFrom } from '../dma/calibrate.ts';
import type { DmaOperations } from '../dma/dma.ts';
import { DmaDebug } from '../dma/dma-debug.ts';
import { DmaDebugLog, type DmaDebugOptions } from '../dma/dma-debug-log.ts';
import { type ExposureMode, grantDma } from '../dma/exposure-modes.ts';
import type { GrantingDomain } from '../dma/granting-domain.ts';
import { Grants } from '../dma/grants.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import { PlainDma } from '../dma/plain-dma.ts';
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
  /** What dma/policy.ts decided; with 'plain' the backend may reach all of the memory. Default 'grants'. */
  readonly access?: 'grants' | 'plain';
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
  /** The same, where its driver is watched. */
  readonly debug: DmaDebug | undefined;
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
  readonly #clock: (() => number) | undefined;
  #requests = 0;
  #debugLog: DmaDebugLog | undefined;
  #directFrom: number | undefined;
  /** Called when a driver begins to wait for its device: then call `poll` until nothing is `busy`. */
  onWaiting: () => void = () => undefined;

  /**
   * @param clock measures what this machine is good at, when that is needed; without one, fixed values hold,
   *   and every run is the same
   */
  constructor(ports: DomainPorts, clock?: () => number) {
    this.ports = ports;
    this.#clock = clock;
    this.heap = new GuestHeap(ports.memory);
    this.granting = {
      id: ports.id,
      memory: ports.memory,
      table: ports.grantTable,
      references: new References(ports.grantTable),
      tracer: ports.tracer,
    };
  }

  /** Watches what drivers do with their mappings (dma/dma-debug.ts), those that are attached from now on. */
  debugDma(options: DmaDebugOptions = {}): DmaDebugLog {
    this.#debugLog = new DmaDebugLog(this.granting, options);
    return this.#debugLog;
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
    const attached = this.#attached.get(driver);
    if (attached === undefined) throw new RangeError('the device is not attached to this guest');
    this.#attached.delete(driver);
    driver.close();
    attached.debug?.released();
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

  /** Bytes from which on mode `auto` grants whole pages themselves. */
  get directFrom(): number {
    this.#directFrom ??=
      this.#clock === undefined ? DIRECT_FROM : measureDirectFrom(this.granting, this.#clock);
    return this.#directFrom;
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
    for (const { dma } of this.#attached.values()) due = Math.min(due, dma.tick(now));
    return due;
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
    const options = mode === 'auto' ? { directFrom: this.directFrom } : {};
    const operations: DmaOperations = restricted
      ? grantDma(mode, new Grants(this.granting, place.backend), place.device, options)
      : new PlainDma(ports.memory);
    const number = place.device;
    const watched = { driver: name, device: `virtio${number}`, number, restricted };
    const debug = this.#debugLog && new DmaDebug(operations, this.#debugLog, watched);
    const dma = debug ?? operations;
    const driver = start({
      transport: new MmioTransport(ports.mmio, place.base),
      dma,
      restricted,
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
    this.#attached.set(driver, { driver, port, dma, debug });
    return driver;
  }
}
