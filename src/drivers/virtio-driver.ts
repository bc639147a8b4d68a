// What every driver does alike: negotiate, set up queues, take interrupts, and recover a device that went
// wrong. Before virtio/negotiate.ts and virtqueue/driver-queue.ts.
//
// This is the one place where a device's ProtocolViolation is caught: the device is reset, access to all that it
// shared is ended or quarantined, and what it has not answered is asked again. See docs/recovery.md.

import { MMIO_INTERRUPT_CONFIG } from '../abi/virtio-mmio.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_RESET,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
} from '../abi/virtio.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import { DeviceRefused, negotiate } from '../virtio/negotiate.ts';
import { DriverQueue } from '../virtqueue/driver-queue.ts';
import type { GuestDevice } from './guest.ts';
import { type DeviceHealth, ResetBudget } from './recovery.ts';

const RING_FEATURES = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_RESET;

/** A request to a device that is not used any more, or that answered nonsense. */
export class DeviceFailed extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'DeviceFailed';
  }
}

/** A device that has been started. */
export class VirtioDriver {
  readonly features: bigint;
  /** The queues in use; others after each reset. */
  readonly queues: DriverQueue[] = [];
  /** Why the device is no longer used. */
  failure: string | undefined;
  /** Why it is not used for the time being: its backend has gone, or the guest is suspended. */
  outage: string | undefined;
  /** Called once when the device is given up, after it was reset: takes back what is in the queues, and fails. */
  onFailure: () => void = () => undefined;
  /** Called after a reset: takes back what is in the queues, which are closed then. */
  onStop: () => void = () => undefined;
  /** Called before a device that was reset starts again: says what has changed so that it cannot be used. */
  inspect: () => string | undefined = () => undefined;
  /** Called when `queues` are new and the device works again: asks again for what is unfinished. */
  onRestart: () => void = () => undefined;

  /** Called when the device says that its configuration space has changed. */
  onConfigChange: () => void = () => undefined;

  readonly #deviceId: number;
  #guest: GuestDevice;
  #queueCount = 0;
  #queueSize = 0;
  #running = false;
  readonly #resets = new ResetBudget();
  /** The time of the last tick. */
  #now = 0;

  /**
   * Negotiates features; queues and DRIVER_OK come next.
   *
   * @param supported device features that the driver can use
   * @throws DeviceRefused when the device cannot be used, or not safely
   */
  constructor(guest: GuestDevice, deviceId: number, supported: bigint) {
    this.#guest = guest;
    this.#deviceId = deviceId;
    this.features = negotiate(guest.transport, deviceId, supported | RING_FEATURES, guest.restricted);
  }

  /** The device where it is now. */
  get guest(): GuestDevice {
    return this.#guest;
  }

  /** Whether requests can be put on the queues. */
  get running(): boolean {
    return this.#running;
  }

  get health(): DeviceHealth {
    if (this.failure !== undefined) return 'failed';
    if (!this.#running) return 'waiting';
    return this.#guest.dma.quarantined > 0 ? 'degraded' : 'working';
  }

  /** How often the device or its queues were reset because something was wrong. */
  get resets(): number {
    return this.#resets.total;
  }

  /** Whether the device is still the one that was started: neither reset by somebody else, nor replaced, nor gone. */
  get holdsDevice(): boolean {
    const status = this.guest.transport.readStatus();
    return (status & VIRTIO_STATUS_DRIVER_OK) !== 0 && isThere(status);
  }

  has(feature: bigint): boolean {
    return (this.features & feature) !== 0n;
  }

  /**
   * Sets up `count` queues of at most `size` descriptors and starts the device.
   *
   * @throws DeviceRefused, and then nothing of the driver's is left
   */
  start(count: number, size: number): void {
    this.#queueCount = count;
    this.#queueSize = size;
    this.#begin();
  }

  /** Gives the device up before it has started, or started again; to be thrown. */
  refuse(reason: string): DeviceRefused {
    const { transport } = this.#guest;
    transport.writeStatus(transport.readStatus() | VIRTIO_STATUS_FAILED);
    if (this.outage === undefined) this.close();
    else {
      transport.writeStatus(0);
      this.#closeQueues();
    }
    return new DeviceRefused(reason);
  }

  /** Tells the device of what was added to queue `index`, if it wants to know. */
  kick(index: number): void {
    if (this.queues[index].takeNotification()) this.#guest.transport.notify(index);
  }

  /**
   * Takes the device's interrupt.
   *
   * @returns whether queues are worth polling
   */
  takeInterrupt(): boolean {
    const { transport } = this.#guest;
    const bits = transport.takeInterrupt();
    if (this.#running && (bits & MMIO_INTERRUPT_CONFIG) !== 0) this.#takeConfigChange();
    return this.#running;
  }

  /** Runs what the device caused. Returns what `step` does, or `broken` when the device broke a rule. */
  guard<T>(step: () => T, broken: T): T {
    if (!this.#running) return broken;
    try {
      return step();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.recover(`the device broke the protocol: ${error.message}`);
      return broken;
    }
  }

  /**
   * Resets a device that went wrong and starts it again; what it had not answered is asked again. It is given up when
   * that has been necessary too often, or it is already waited for.
   */
  recover(reason: string): void {
    if (this.failure !== undefined) return;
    if (!this.#running || !this.#resets.take(this.#now, this.#guest.recovery)) {
      this.fail(reason);
      return;
    }
    this.stop(reason);
    this.#attempt(() => this.restart(this.#guest));
  }

  /** Resets the device and takes back all that it shares, to go on with `restart`. */
  stop(reason: string): void {
    if (!this.#running) return;
    // Before the reset: while it is under way, nothing is polled and nothing submitted.
    this.#running = false;
    this.outage = reason;
    this.#guest.transport.writeStatus(0);
    this.onStop();
    this.#closeQueues();
  }

  /**
   * Starts a device that was stopped, where it is now: the same, or another backend's, or in another host.
   *
   * @throws DeviceRefused when it is not what it was; it may be tried again
   */
  restart(guest: GuestDevice): void {
    assert(this.outage !== undefined && !this.#running, 'a device is stopped before it is started again');
    this.#guest = guest;
    const features = negotiate(guest.transport, this.#deviceId, this.features, guest.restricted);
    if (features !== this.features)
      throw this.refuse(
        `the device came back with features 0x${features.toString(16)}; it had 0x${this.features.toString(16)}`,
      );
    const fault = this.inspect();
    if (fault !== undefined) throw this.refuse(fault);
    this.#begin();
    this.onRestart();
  }

  /** Resets queues or device when the backend holds on to more pages than the guest puts up with. */
  relieve(): void {
    const { dma, recovery } = this.#guest;
    if (!this.#running || dma.quarantined <= recovery.quarantined) return;
    dma.recover();
    if (dma.quarantined <= recovery.quarantined) return;
    if (this.has(VIRTIO_F_RING_RESET) && this.#resets.take(this.#now, recovery)) this.#resetQueues();
    if (dma.quarantined > recovery.quarantined)
      this.recover(`the backend does not let go of ${dma.quarantined} pages whose sharing has ended`);
  }

  /** Does what is due at `now`; see DmaOperations.tick. */
  tick(now: number): number {
    this.#now = now;
    const due = this.#guest.dma.tick(now);
    this.relieve();
    return due;
  }

  /** Stops using the device: it is reset, so that it touches nothing any more. */
  fail(reason: string): void {
    if (this.failure !== undefined) return;
    this.failure = reason;
    this.#running = false;
    this.#guest.transport.writeStatus(0);
    this.onFailure();
    this.#closeQueues();
  }

  /**
   * Resets the device and gives back all memory of its queues, which must be empty.
   *
   * @returns whether every page could be taken back; if not, the rest is in quarantine
   */
  close(): boolean {
    this.#running = false;
    this.#guest.transport.writeStatus(0);
    this.failure ??= 'the device was detached';
    this.#closeQueues();
    const { dma } = this.#guest;
    dma.close();
    return dma.quarantined === 0;
  }

  /** Status, configuration space, or both. */
  #takeConfigChange(): void {
    const status = this.#guest.transport.readStatus();
    if (!isThere(status)) this.#lose('its registers read as all ones: nobody serves it any more');
    else if (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET)
      this.recover('the device says that it needs a reset: it found our requests in error');
    else this.onConfigChange();
  }

  /** The device has gone, by no fault of its own: another is waited for, where the guest waits for any. */
  #lose(reason: string): void {
    if (this.#guest.recovery.resets === 0) this.fail(reason);
    else this.stop(reason);
  }

  /** From FEATURES_OK to DRIVER_OK. */
  #begin(): void {
    const { transport } = this.#guest;
    this.#openQueues();
    transport.writeStatus(transport.readStatus() | VIRTIO_STATUS_DRIVER_OK);
    const status = transport.readStatus();
    if (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET || (status & VIRTIO_STATUS_DRIVER_OK) === 0)
      throw this.refuse(`the device did not start (status 0x${status.toString(16)})`);
    // Others run while a register is written: the device may have been given up meanwhile.
    if (this.failure !== undefined) throw this.refuse(this.failure);
    this.outage = undefined;
    this.#running = true;
  }

  /** §2.6.1: resets the queues but not the device. */
  #resetQueues(): void {
    const { transport } = this.#guest;
    this.#running = false;
    const done = this.queues.every((_, index) => transport.resetQueue(index));
    if (!done) {
      // Some may have been: the device is reset next.
      this.#running = true;
      return;
    }
    this.outage = 'its queues are being reset';
    this.onStop();
    this.#closeQueues();
    this.#attempt(() => {
      this.#openQueues();
      this.outage = undefined;
      this.#running = true;
      this.onRestart();
    });
  }

  /** A device that cannot be started again is waited for. */
  #attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof DeviceRefused)) throw error;
      this.outage = `${this.outage}; ${error.message}`;
    }
  }

  #closeQueues(): void {
    const { dma } = this.#guest;
    for (const queue of this.queues) queue.close();
    this.queues.length = 0;
    dma.revokeIdle();
    dma.recover();
  }

  #openQueues(): void {
    for (let index = 0; index < this.#queueCount; index++) this.#openQueue(index);
  }

  #openQueue(index: number): void {
    const { transport, dma, memory } = this.#guest;
    const most = transport.queueSizeMax(index);
    if (most === 0) throw this.refuse(`the device has no queue ${index}`);
    const size = 2 ** Math.floor(Math.log2(Math.min(this.#queueSize, most)));
    const queue = DriverQueue.create(size, dma, memory, {
      indirect: this.has(VIRTIO_F_INDIRECT_DESC),
      eventIndex: this.has(VIRTIO_F_EVENT_IDX),
    });
    if (queue === undefined) throw this.refuse(`no memory or grant references for queue ${index} of ${size}`);
    this.queues.push(queue);
    transport.enableQueue(index, size, queue.addresses);
  }
}

/** Whether a device answers: where there is none, all bits read as one. */
function isThere(status: number): boolean {
  return status <= 0xff;
}
