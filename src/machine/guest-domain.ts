// A guest: its kernel's memory, grant table and heap, and the drivers of the devices it was given.
// Before drivers/, dma/ and transports/virtio-mmio/driver.ts.

import type { DmaOperations } from '../dma/dma.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { GuestHeap } from '../dma/guest-heap.ts';
import type { ReferenceUsage } from '../dma/references.ts';
import { BlkDriver, type BlkDriverOptions } from '../drivers/blk.ts';
import { ConsoleDriver } from '../drivers/console.ts';
import type { Driver } from '../drivers/driver.ts';
import { type DriverOptions, driverFor } from '../drivers/driver-kinds.ts';
import type { GuestDevice } from '../drivers/guest.ts';
import { RECOVERY, type RecoveryLimits } from '../drivers/recovery.ts';
import { RngDriver } from '../drivers/rng.ts';
import { assert } from '../errors.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import { MmioTransport } from '../transports/virtio-mmio/driver.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import type { DomainId, EventPort } from '../xen/ids.ts';
import { type DeviceDma, GuestDma } from './guest-dma.ts';

/** Where a device is and who serves it: from the toolstack, never from the device. */
export interface DevicePlace {
  /** Guest-physical address of the registers. */
  readonly base: number;
  readonly backend: DomainId;
  /** Whether its memory is reached through grants, which is so unless said otherwise, or plainly. */
  readonly access?: 'grants' | 'plain';
  /** The device's number in the trace. */
  readonly device: number;
}

/** What belongs to a driver. */
interface Attached {
  /** The driver's name, as Linux calls it. */
  readonly name: string;
  /** The exposure mode that was asked for. */
  readonly mode: ExposureMode;
  readonly base: number;
  /** Where its interrupts arrive; none while the guest is suspended. */
  port: EventPort | undefined;
  readonly dma: DeviceDma;
}

/** Called when a backend has let go of everything. */
type Release = () => void;

const nothing: Release = () => undefined;

/** What is left of a device after it was detached. */
export interface Leftovers {
  /** References still granted, and those whose page the backend still maps. */
  readonly live: number;
  readonly quarantined: number;
}

/** What has gone wrong with the devices of a guest so far, and was put right or not. */
export interface Troubles {
  /** Pages that a backend did not let go of in time, and those that it still maps. */
  readonly quarantined: number;
  readonly stillQuarantined: number;
  /** Resets of devices or queues that were not well. */
  readonly resets: number;
}

/** One guest and its drivers. */
export class GuestDomain {
  readonly heap: GuestHeap;
  /** What drivers put up with, for devices that are attached from now on. */
  recovery: RecoveryLimits = RECOVERY;
  /** What the guest shares its memory by, in the host where it is now. */
  dma: GuestDma;
  readonly #clock: (() => number) | undefined;
  #ports: DomainPorts;
  readonly #attached = new Map<Driver, Attached>();
  /** What devices have left in quarantine that are elsewhere now, or gone. */
  readonly #leftBehind = new Map<DmaOperations, Release>();
  /** What has entered quarantine from devices that are elsewhere now, or gone, and the resets of the latter. */
  #entered = 0;
  #resets = 0;
  #requests = 0;
  #suspended = false;
  /** Called when a driver begins to wait for its device: then call `poll` until nothing is `busy`. */
  onWaiting: () => void = () => undefined;

  /**
   * @param clock measures what this machine is good at, when that is needed; without one, fixed values hold,
   *   and every run is the same
   */
  constructor(ports: DomainPorts, clock?: () => number) {
    this.#ports = ports;
    this.#clock = clock;
    this.heap = new GuestHeap(ports.memory);
    this.dma = new GuestDma(ports, clock);
  }

  /** What the domain has, in the host where it is now. */
  get ports(): DomainPorts {
    return this.#ports;
  }

  /** The exposure mode of a device: the one it was attached in, or `bounce` where `copy` is not to be had. */
  modeOf(driver: Driver): ExposureMode {
    return this.#find(driver).dma.mode;
  }

  /** Starts the driver of whatever is at `place`. Throws DeviceRefused when it may not be used. */
  attach(place: DevicePlace, mode: ExposureMode, options: DriverOptions): Driver {
    const { deviceId } = new MmioTransport(this.#ports.mmio, place.base);
    const { name, start } = driverFor(deviceId);
    return this.#attach(name, place, mode, (device) => start(device, options));
  }

  /** Starts the block device at `place`. Throws DeviceRefused when it may not be used. */
  attachBlk(place: DevicePlace, mode: ExposureMode, options: BlkDriverOptions): BlkDriver {
    return this.#attach('virtio_blk', place, mode, (device) => new BlkDriver(device, options));
  }

  /** Starts the entropy device at `place`. Throws DeviceRefused when it may not be used. */
  attachRng(place: DevicePlace, mode: ExposureMode): RngDriver {
    return this.#attach('virtio_rng', place, mode, (device) => new RngDriver(device));
  }

  /** Starts the console at `place`. Throws DeviceRefused when it may not be used. */
  attachConsole(place: DevicePlace, mode: ExposureMode): ConsoleDriver {
    return this.#attach('virtio_console', place, mode, (device) => new ConsoleDriver(device));
  }

  /**
   * Puts a driver on the backend that serves its device now: one that was started again, or another. All access of
   * the last one is ended or quarantined first; then what it has not answered is asked again.
   *
   * @throws DeviceRefused when that is not the device that it was; the driver goes on waiting
   */
  reattach(driver: Driver, place: DevicePlace): void {
    const attached = this.#find(driver);
    driver.suspend('its backend was replaced');
    const transport = new MmioTransport(this.#ports.mmio, place.base);
    this.#disconnect(attached);
    const { name, mode } = attached;
    const { dma, device } = this.#deviceAt(name, place, mode, transport);
    const { base } = place;
    this.#attached.set(driver, { name, mode, base, dma, port: this.#connect(driver, place) });
    driver.resume(device);
  }

  /** Stops a device and takes back all that it could reach. */
  detach(driver: Driver): Leftovers {
    const attached = this.#find(driver);
    this.#attached.delete(driver);
    const isClean = driver.close();
    this.#disconnect(attached, isClean ? nothing : () => driver.release());
    this.#resets += driver.resets;
    const { live, quarantined } = attached.dma.operations;
    return { live, quarantined };
  }

  /** How full and how scattered the guest's grant table is now, all its devices together. */
  referenceUsage(): ReferenceUsage {
    return this.dma.granting.references.usage();
  }

  /**
   * Stops all devices before the domain is suspended: nothing stays granted but what a backend does not let go of,
   * and what was asked for waits, in the drivers, for `resume`.
   */
  suspend(): void {
    this.#suspended = true;
    for (const [driver, attached] of this.#attached) {
      driver.suspend('the guest is suspended');
      this.#disconnect(attached);
    }
  }

  /**
   * Goes on after a suspension: in the same host, or in another one whose table of grants is empty. Rings and grants
   * are made anew and all that was unfinished is asked again. The kernel's state is this object, which lives on; its
   * memory has come along with the domain's image (hosts/model/domain-image.ts).
   *
   * @param ports of the domain where it is now: those that it had if it never left
   * @param placeOf where each device is now and who serves it, from the toolstack
   * @throws DeviceRefused when a device is not there, or another one; the others work, and `reattach` may be tried
   *   later
   */
  resume(ports: DomainPorts, placeOf: (driver: Driver) => DevicePlace): void {
    assert(this.#suspended, 'a guest is suspended before it is resumed');
    this.#suspended = false;
    if (ports !== this.#ports) this.#moveTo(ports);
    const refused: DeviceRefused[] = [];
    for (const driver of this.#attached.keys()) {
      if (driver.health === 'failed') continue;
      try {
        this.reattach(driver, placeOf(driver));
      } catch (error) {
        if (!(error instanceof DeviceRefused)) throw error;
        refused.push(error);
      }
    }
    if (refused.length > 0) throw refused[0];
  }

  /** Whether any driver waits for its device. */
  get busy(): boolean {
    for (const driver of this.#attached.keys()) if (driver.busy) return true;
    return false;
  }

  /** References in quarantine, of devices that are gone too. */
  get quarantined(): number {
    return this.dma.granting.references.quarantined;
  }

  get troubles(): Troubles {
    let [quarantined, resets] = [this.#entered, this.#resets];
    for (const [driver, { port, dma }] of this.#attached) {
      resets += driver.resets;
      if (port !== undefined) quarantined += dma.operations.quarantine.entered;
    }
    return { quarantined, stillQuarantined: this.quarantined, resets };
  }

  /**
   * Has every device reset that still has not answered, and gives it up when that has not helped (case B9);
   * not those that wait for another to answer.
   */
  revive(reason: string): void {
    for (const driver of this.#attached.keys()) if (isSilent(driver)) driver.recover(reason);
  }

  /** Gives up every device that still has not answered (case B9), not those that wait for another to do so. */
  giveUp(reason: string): void {
    for (const driver of this.#attached.keys()) if (isSilent(driver)) driver.fail(reason);
  }

  /** Takes events and completions. Returns whether there were any. */
  poll(): boolean {
    this.#ports.park();
    let worked = this.#ports.events.poll();
    for (const driver of this.#attached.keys()) if (driver.poll() > 0) worked = true;
    return worked;
  }

  /**
   * Does what is due at `now`: revocation that is deferred, or has to be tried again.
   *
   * @param now milliseconds on a clock that never runs backwards
   * @returns when to call again at the latest, if nothing is asked for until then
   */
  tick(now: number): number {
    let due = Number.POSITIVE_INFINITY;
    for (const driver of this.#attached.keys()) due = Math.min(due, driver.tick(now));
    for (const dma of this.#leftBehind.keys()) due = Math.min(due, dma.tick(now));
    this.#releaseLeftBehind();
    return due;
  }

  /** Tries at once to take back what backends have not let go of, of devices that are gone too. */
  recover(): void {
    for (const { dma } of this.#attached.values()) dma.operations.recover();
    for (const dma of this.#leftBehind.keys()) dma.recover();
    this.#releaseLeftBehind();
  }

  /** Asks every device for an interrupt. Returns true when one has completed something meanwhile. */
  arm(): boolean {
    let more = false;
    for (const driver of this.#attached.keys()) if (driver.arm()) more = true;
    return more;
  }

  #find(driver: Driver): Attached {
    const attached = this.#attached.get(driver);
    if (attached === undefined) throw new RangeError('the device is not attached to this guest');
    return attached;
  }

  #anyInFlight(): boolean {
    for (const driver of this.#attached.keys()) if (driver.inFlight > 0) return true;
    return false;
  }

  /** @param name the driver's, as Linux calls it */
  #attach<Started extends Driver>(
    name: string,
    place: DevicePlace,
    mode: ExposureMode,
    start: (device: GuestDevice) => Started,
  ): Started {
    const transport = new MmioTransport(this.#ports.mmio, place.base);
    const { dma, device } = this.#deviceAt(name, place, mode, transport);
    const driver = this.#start(dma, () => start(device));
    const { base } = place;
    try {
      this.#attached.set(driver, { name, mode, base, dma, port: this.#connect(driver, place) });
    } catch (error) {
      this.#leave(dma, driver.close() ? nothing : () => driver.release());
      throw error;
    }
    return driver;
  }

  /** A device that refuses to start may have mapped rings already, and may not let go of them. */
  #start<Started extends Driver>(dma: DeviceDma, start: () => Started): Started {
    try {
      return start();
    } catch (error) {
      this.#leave(dma, nothing);
      throw error;
    }
  }

  #deviceAt(
    name: string,
    place: DevicePlace,
    mode: ExposureMode,
    transport: MmioTransport,
  ): { dma: DeviceDma; device: GuestDevice } {
    const { device: number, backend } = place;
    const restricted = place.access !== 'plain';
    const dma = this.dma.of({ driver: name, number, backend, restricted }, mode);
    const { id, memory, tracer } = this.#ports;
    const device = {
      transport,
      dma: dma.operations,
      restricted,
      recovery: this.recovery,
      memory,
      heap: this.heap,
      tracer,
      nextRequestId: () => this.#requests++,
      waiting: () => this.onWaiting(),
      anyInFlight: () => this.#anyInFlight(),
      domain: id,
      device: number,
    };
    return { dma, device };
  }

  /** Has the device's interrupts delivered to the driver. Throws DeviceRefused where no event channel is left. */
  #connect(driver: Driver, place: DevicePlace): EventPort {
    const { events, mmio } = this.#ports;
    const port = events.allocateUnbound(place.backend);
    if (port < 0)
      throw new DeviceRefused(`the guest has no event channel left for the device (error ${port})`);
    events.onEvent(port, () => driver.interrupt());
    mmio.routeInterrupt(place.base, port);
    return port;
  }

  /** Leaves a backend, unless that has been done. */
  #disconnect(attached: Attached, release = nothing): void {
    const { base, dma, port } = attached;
    if (port === undefined) return;
    // Whatever is served there next must not raise a port that is somebody else's by then.
    this.#ports.mmio.routeInterrupt(base, 0);
    this.#ports.events.close(port);
    attached.port = undefined;
    this.#leave(dma, release);
  }

  /** What a backend does not let go of stays in quarantine and is tried again; `release` is called in the end. */
  #leave({ operations, debug }: DeviceDma, release: Release): void {
    debug?.released();
    operations.close();
    this.#entered += operations.quarantine.entered;
    this.#leftBehind.set(operations, release);
    this.#releaseLeftBehind();
  }

  #releaseLeftBehind(): void {
    for (const [dma, release] of this.#leftBehind) {
      if (dma.quarantined > 0) continue;
      this.#leftBehind.delete(dma);
      release();
    }
  }

  /** To another host, where nothing is granted and no event channel is open. */
  #moveTo(ports: DomainPorts): void {
    // All that was granted was taken back when the guest was suspended, but for this.
    for (const dma of this.#leftBehind.keys()) dma.forget();
    this.#releaseLeftBehind();
    const { memory } = this.#ports;
    memory.moveTo(ports.memory);
    this.#ports = { ...ports, memory };
    const isCopied = [...this.#attached.values()].some(({ dma }) => dma.mode === 'copy');
    this.dma = new GuestDma(this.#ports, this.#clock);
    if (isCopied) this.dma.wantParts();
  }
}

/** Whether a driver waits for its own device, not for another to give references back. */
function isSilent(driver: Driver): boolean {
  return driver.inFlight > 0 || (driver.busy && driver.health === 'waiting');
}
