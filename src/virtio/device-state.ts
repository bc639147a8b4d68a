// The device's side of initialisation, reset and failure (virtio 1.3 §2.1, §2.4, §3.1), the same for every
// kind of device and every transport. After transports/, before virtqueue/device-queue.ts and devices/.
//
// This is the one place where a ProtocolViolation of a driver is caught: the device is broken
// (DEVICE_NEEDS_RESET), lets go of everything, and stays quiet until the driver resets it.

import { isSplitRingSize } from '../abi/split-ring.ts';
import {
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from '../abi/virtio.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import type { DeviceMemory } from '../memory/device-memory.ts';
import { DeviceQueue } from '../virtqueue/device-queue.ts';
import type { DeviceMeter } from '../virtqueue/queue-meter.ts';
import { FRESH_QUEUE, type QueueJournals } from '../virtqueue/queue-journal.ts';
import { mapRingAreas } from '../virtqueue/ring-areas.ts';
import { UsedRing } from '../virtqueue/split-ring.ts';
import type { KeptRegisters } from './device-keeper.ts';
import { freshQueue, type QueueRegisters } from './queue-registers.ts';
import type { DeviceHost, VirtioDevice } from './device.ts';
import { serveTurn } from './serve-turn.ts';

/** §3.1.1: what comes before FEATURES_OK (case F23). */
const INTRODUCED = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

/** What the transport does for a device. */
export interface DeviceSignals {
  /** A buffer was used. */
  interruptQueue(): void;
  /** The configuration or the status changed. */
  interruptConfig(): void;
  /** The driver broke a rule: for whoever keeps a log. */
  broken?(violation: ProtocolViolation): void;
}

/** State of one device between its driver's first access and its last. */
export class DeviceState {
  readonly device: VirtioDevice;
  /** What is offered to the driver. */
  readonly offered: bigint;
  driverFeatures = 0n;
  /** Why the device broke, until it is reset. */
  fault: ProtocolViolation | undefined;

  readonly #memory: DeviceMemory;
  readonly #signals: DeviceSignals;
  readonly #host: DeviceHost;
  readonly #journals: QueueJournals | undefined;
  readonly #meter: DeviceMeter | undefined;
  #status = 0;
  #registers: QueueRegisters[];
  readonly #queues: (DeviceQueue | undefined)[] = [];

  /**
   * @param restricted offer VIRTIO_F_ACCESS_PLATFORM: the device reaches only what the driver grants
   * @param journals where what is under way is kept for a successor, if it is
   * @param meter counts what the queues do
   */
  constructor(
    device: VirtioDevice,
    memory: DeviceMemory,
    signals: DeviceSignals,
    restricted: boolean,
    journals?: QueueJournals,
    meter?: DeviceMeter,
  ) {
    this.device = device;
    this.#journals = journals;
    this.#meter = meter;
    this.offered =
      device.features |
      VIRTIO_F_VERSION_1 |
      VIRTIO_F_INDIRECT_DESC |
      VIRTIO_F_EVENT_IDX |
      VIRTIO_F_RING_RESET |
      (restricted ? VIRTIO_F_ACCESS_PLATFORM : 0n);
    this.#memory = memory;
    this.#signals = signals;
    this.#host = {
      completed: (queue) => {
        if (queue.takeInterrupt()) this.#interrupt(queue);
      },
      failed: (_, violation) => this.#break(violation),
      configChanged: () => signals.interruptConfig(),
    };
    this.#registers = device.queueSizes.map(freshQueue);
  }

  get status(): number {
    return this.#status;
  }

  /** Registers of queue `index`; undefined when the device has no such queue. */
  queue(index: number): QueueRegisters | undefined {
    return this.#registers[index];
  }

  /** §2.1.1: the driver sets status bits one after the other; 0 is a reset. */
  writeStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    // Bits are never cleared but by a reset, and a broken device answers to nothing else.
    const added = value & ~this.#status;
    if (this.#status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) return;
    this.#status |=
      added & ~(VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
    const introduced = (this.#status & INTRODUCED) === INTRODUCED;
    if (added & VIRTIO_STATUS_FEATURES_OK && introduced && this.#featuresAcceptable())
      this.#status |= VIRTIO_STATUS_FEATURES_OK;
    if (added & VIRTIO_STATUS_DRIVER_OK && this.#status & VIRTIO_STATUS_FEATURES_OK) {
      this.#status |= VIRTIO_STATUS_DRIVER_OK;
      this.device.start(this.driverFeatures, this.#host);
    }
  }

  /** §2.2.2: the driver's choice is frozen once FEATURES_OK is set. */
  writeDriverFeatures(features: bigint): void {
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) this.driverFeatures = features;
  }

  /** Whether the driver may still write the registers of a queue (case F21). */
  configurable(queue: QueueRegisters): boolean {
    return !queue.enabled && (queue.wasReset || (this.#status & VIRTIO_STATUS_DRIVER_OK) === 0);
  }

  /** The driver enables queue `index` as configured. A refused configuration breaks the device. */
  enableQueue(index: number): void {
    const registers = this.#registers[index];
    if (registers === undefined || !this.configurable(registers)) return;
    this.guard(() => {
      this.#queues[index] = this.#openQueue(index, registers, false);
      registers.enabled = true;
      registers.wasReset = false;
    });
  }

  /** The driver stops using queue `index`: its memory is let go of, and answers to come are dropped. */
  disableQueue(index: number): void {
    const registers = this.#registers[index];
    if (registers === undefined) return;
    this.device.drain?.();
    this.#queues[index]?.close();
    this.#queues[index] = undefined;
    registers.enabled = false;
  }

  /** §2.6.1.1: the driver resets queue `index` alone, if that was negotiated; the others go on. */
  resetQueue(index: number): void {
    if (!this.running || (this.driverFeatures & VIRTIO_F_RING_RESET) === 0n) return;
    if (this.#registers[index] === undefined) return;
    this.disableQueue(index);
    this.#registers[index] = { ...freshQueue(this.device.queueSizes[index]), wasReset: true };
  }

  /**
   * Serves queue `index` for a turn.
   *
   * @returns whether more is waiting: call again when others have had their turn
   */
  serve(index: number): boolean {
    const queue = this.#queues[index];
    // §2.1.2: no chain is taken before DRIVER_OK or after a failure.
    if (queue === undefined || !this.running) return false;
    let more = false;
    this.guard(() => {
      queue.meter?.turn();
      more = serveTurn(this.device, queue, index, () => this.#interrupt(queue));
    });
    return more;
  }

  /** Whether the driver has finished initialisation and the device is not broken. */
  get running(): boolean {
    const state = this.#status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_DEVICE_NEEDS_RESET);
    return state === VIRTIO_STATUS_DRIVER_OK;
  }

  /** §2.4: back to the beginning; nothing is written to guest memory after this. */
  reset(): void {
    this.#closeQueues();
    this.device.stop();
    this.#status = 0;
    this.driverFeatures = 0n;
    this.fault = undefined;
    this.#registers = this.device.queueSizes.map(freshQueue);
  }

  /** Its registers, for a successor. */
  get kept(): Omit<KeptRegisters, 'selectors'> {
    return { status: this.#status, driverFeatures: this.driverFeatures, queues: this.#registers };
  }

  /**
   * Goes on with a device that a predecessor served until it was killed, in place of a device that is as new. One that
   * cannot be gone on with is broken, and its driver is told.
   */
  resume({ status, driverFeatures, queues }: Omit<KeptRegisters, 'selectors'>): void {
    assert(queues.length === this.#registers.length, 'registers of this device', queues.length);
    this.driverFeatures = driverFeatures;
    this.#registers = queues.map((registers) => ({ ...registers }));
    this.#status = status;
    if ((status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) return;
    this.guard(() => {
      if ((driverFeatures & ~this.offered) !== 0n)
        throw new ProtocolViolation('§2.2', 'the driver uses features that the device has no more');
      for (const [index, registers] of this.#registers.entries())
        if (registers.enabled) this.#queues[index] = this.#openQueue(index, registers, true);
      if ((status & VIRTIO_STATUS_DRIVER_OK) === 0) return;
      if (this.device.resume !== undefined) this.device.resume(driverFeatures, this.#host);
      else this.device.start(driverFeatures, this.#host);
    });
  }

  /** Lets go of everything, and leaves the driver in its belief: a successor goes on. */
  leave(): void {
    this.#closeQueues();
    this.device.stop();
  }

  /** Runs what a driver caused; if the driver broke a rule, the device is broken and nothing else is. */
  guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#break(error);
    }
  }

  #break(violation: ProtocolViolation): void {
    // What is found while the queues are closed changes nothing any more.
    if (this.fault !== undefined) return;
    this.fault = violation;
    this.#closeQueues();
    this.device.stop();
    this.#status |= VIRTIO_STATUS_DEVICE_NEEDS_RESET;
    this.#signals.interruptConfig();
    this.#signals.broken?.(violation);
  }

  #interrupt(queue: DeviceQueue): void {
    queue.meter?.interrupted();
    this.#signals.interruptQueue();
  }

  #closeQueues(): void {
    this.device.drain?.();
    for (const queue of this.#queues) queue?.close();
    this.#queues.length = 0;
  }

  /** A restricted device MAY fail to operate without ACCESS_PLATFORM (§6.1); ours does. */
  #featuresAcceptable(): boolean {
    if ((this.driverFeatures & ~this.offered) !== 0n) return false;
    if ((this.driverFeatures & VIRTIO_F_VERSION_1) === 0n) return false;
    const restricted = (this.offered & VIRTIO_F_ACCESS_PLATFORM) !== 0n;
    return !restricted || (this.driverFeatures & VIRTIO_F_ACCESS_PLATFORM) !== 0n;
  }

  #openQueue(index: number, registers: QueueRegisters, again: boolean): DeviceQueue {
    const { size } = registers;
    if (!isSplitRingSize(size) || size > this.device.queueSizes[index])
      throw new ProtocolViolation(
        '§2.7',
        `queue ${index}: size ${size}, at most ${this.device.queueSizes[index]}`,
      );
    const areas = mapRingAreas(size, registers, (low, high, length) =>
      this.#memory.mapRing(low, high, length),
    );
    const features = {
      indirect: (this.driverFeatures & VIRTIO_F_INDIRECT_DESC) !== 0n,
      eventIndex: (this.driverFeatures & VIRTIO_F_EVENT_IDX) !== 0n,
      longestChain: this.device.queueSizes[index],
    };
    const journals = this.#journals;
    const start = again
      ? journals?.resume(index, size, new UsedRing(areas.device, size).index)
      : journals?.begin(index, size);
    const meter = this.#meter?.queue(index, size);
    return new DeviceQueue(size, areas, this.#memory, features, start ?? FRESH_QUEUE, meter);
  }
}
