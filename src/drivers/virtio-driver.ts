// What every driver does alike: negotiate, set up queues, take interrupts, and stop using a device that
// breaks the rules. Before virtio/negotiate.ts and virtqueue/driver-queue.ts.
//
// This is the one place where a device's ProtocolViolation is caught: the device is reset, its requests
// fail, and nothing it shared is handed out again before access to it has ended.

import { MMIO_INTERRUPT_CONFIG } from '../abi/virtio-mmio.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
} from '../abi/virtio.ts';
import { ProtocolViolation } from '../errors.ts';
import { DeviceRefused, negotiate } from '../virtio/negotiate.ts';
import { DriverQueue } from '../virtqueue/driver-queue.ts';
import type { GuestDevice } from './guest.ts';

/** A request to a device that is not used any more, or that answered nonsense. */
export class DeviceFailed extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'DeviceFailed';
  }
}

/** A device that has been started. */
export class VirtioDriver {
  readonly guest: GuestDevice;
  readonly features: bigint;
  readonly queues: DriverQueue[] = [];
  /** Why the device is no longer used. */
  failure: string | undefined;
  /** Called once when it comes to that, after the device was reset. */
  onFailure: () => void = () => undefined;

  /**
   * Negotiates features; queues and DRIVER_OK come next.
   *
   * @param supported device features that the driver can use
   * @throws DeviceRefused when the device cannot be used, or not safely
   */
  constructor(guest: GuestDevice, deviceId: number, supported: bigint) {
    this.guest = guest;
    this.features = negotiate(
      guest.transport,
      deviceId,
      supported | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX,
      guest.restricted,
    );
  }

  /** Whether the device is still the one that was started: neither reset by somebody else, nor replaced, nor gone. */
  get holdsDevice(): boolean {
    const status = this.guest.transport.readStatus();
    // Where no device is, all bits read as one.
    return (status & VIRTIO_STATUS_DRIVER_OK) !== 0 && status <= 0xff;
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
    const { transport } = this.guest;
    for (let index = 0; index < count; index++) this.#openQueue(index, size);
    transport.writeStatus(transport.readStatus() | VIRTIO_STATUS_DRIVER_OK);
    const status = transport.readStatus();
    if (status & VIRTIO_STATUS_DEVICE_NEEDS_RESET || (status & VIRTIO_STATUS_DRIVER_OK) === 0)
      throw this.refuse(`the device did not start (status 0x${status.toString(16)})`);
  }

  /** Gives the device up before it has started; to be thrown. */
  refuse(reason: string): DeviceRefused {
    const { transport } = this.guest;
    transport.writeStatus(transport.readStatus() | VIRTIO_STATUS_FAILED);
    this.close();
    return new DeviceRefused(reason);
  }

  /** Tells the device of what was added to queue `index`, if it wants to know. */
  kick(index: number): void {
    if (this.queues[index].takeNotification()) this.guest.transport.notify(index);
  }

  /**
   * Takes the device's interrupt.
   *
   * @returns whether queues are worth polling
   */
  takeInterrupt(): boolean {
    const { transport } = this.guest;
    const bits = transport.takeInterrupt();
    const statusMayHaveChanged = (bits & MMIO_INTERRUPT_CONFIG) !== 0;
    if (statusMayHaveChanged && transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET)
      this.fail('the device says that it needs a reset: it found our requests in error');
    return this.failure === undefined;
  }

  /** Runs what the device caused. Returns what `step` does, or `broken` when the device broke a rule. */
  guard<T>(step: () => T, broken: T): T {
    if (this.failure !== undefined) return broken;
    try {
      return step();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.fail(`the device broke the protocol: ${error.message}`);
      return broken;
    }
  }

  /** Stops using the device: it is reset, so that it touches nothing any more. */
  fail(reason: string): void {
    if (this.failure !== undefined) return;
    this.failure = reason;
    this.guest.transport.writeStatus(0);
    this.onFailure();
  }

  /**
   * Resets the device and gives back all memory of its queues, which must be empty.
   *
   * @returns whether every page could be taken back; if not, the rest is in quarantine
   */
  close(): boolean {
    this.guest.transport.writeStatus(0);
    this.failure ??= 'the device was detached';
    for (const queue of this.queues) queue.close();
    this.queues.length = 0;
    const { dma } = this.guest;
    dma.recover();
    if (dma.quarantined === 0 && dma.live === 0) dma.close();
    return dma.quarantined === 0;
  }

  #openQueue(index: number, wanted: number): void {
    const { transport, dma, memory } = this.guest;
    const most = transport.queueSizeMax(index);
    if (most === 0) throw this.refuse(`the device has no queue ${index}`);
    const size = 2 ** Math.floor(Math.log2(Math.min(wanted, most)));
    const queue = DriverQueue.create(size, dma, memory, {
      indirect: this.has(VIRTIO_F_INDIRECT_DESC),
      eventIndex: this.has(VIRTIO_F_EVENT_IDX),
    });
    if (queue === undefined) throw this.refuse(`no memory or grant references for queue ${index} of ${size}`);
    this.queues.push(queue);
    transport.enableQueue(index, size, queue.addresses);
  }
}
