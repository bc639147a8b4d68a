// The registers of a virtio-mmio device, version 2 (virtio 1.3 §4.2.2), on top of virtio/device-state.ts.
// After hosts/model/ioreq/device-model.ts or another MMIO trap.

import {
  MMIO_CONFIG,
  MMIO_CONFIG_GENERATION,
  MMIO_DEVICE_FEATURES,
  MMIO_DEVICE_FEATURES_SEL,
  MMIO_DEVICE_ID,
  MMIO_DRIVER_FEATURES,
  MMIO_DRIVER_FEATURES_SEL,
  MMIO_MAGIC,
  MMIO_MAGIC_VALUE,
  MMIO_QUEUE_DESC_HIGH,
  MMIO_QUEUE_DESC_LOW,
  MMIO_QUEUE_DEVICE_HIGH,
  MMIO_QUEUE_DEVICE_LOW,
  MMIO_QUEUE_DRIVER_HIGH,
  MMIO_QUEUE_DRIVER_LOW,
  MMIO_QUEUE_READY,
  MMIO_QUEUE_RESET,
  MMIO_QUEUE_SEL,
  MMIO_QUEUE_SIZE,
  MMIO_QUEUE_SIZE_MAX,
  MMIO_SHM_BASE_HIGH,
  MMIO_SHM_BASE_LOW,
  MMIO_SHM_LEN_HIGH,
  MMIO_SHM_LEN_LOW,
  MMIO_STATUS,
  MMIO_VENDOR_ID,
  MMIO_VERSION,
  MMIO_VERSION_2,
} from '../../abi/virtio-mmio.ts';
import type { KeptRegisters, QueueRegisters } from '../../virtio/device-keeper.ts';
import type { DeviceState } from '../../virtio/device-state.ts';
import type { MmioHandler } from '../../xen/mmio.ts';

/** "grio", little endian: who made the device (§4.2.2, VendorID). */
const VENDOR_ID = 0x6f697267;

/** Which half of a ring address a register sets. */
const addressRegisters = new Map<number, keyof QueueRegisters & `${string}${'Low' | 'High'}`>([
  [MMIO_QUEUE_DESC_LOW, 'descriptorLow'],
  [MMIO_QUEUE_DESC_HIGH, 'descriptorHigh'],
  [MMIO_QUEUE_DRIVER_LOW, 'driverLow'],
  [MMIO_QUEUE_DRIVER_HIGH, 'driverHigh'],
  [MMIO_QUEUE_DEVICE_LOW, 'deviceLow'],
  [MMIO_QUEUE_DEVICE_HIGH, 'deviceHigh'],
]);

/** One device's registers. Accesses that mean nothing read as 0 and write to nowhere. */
export class MmioDevice implements MmioHandler {
  readonly #state: DeviceState;
  readonly #clearInterrupts: () => void;
  #deviceFeaturesWord = 0;
  #driverFeaturesWord = 0;
  #queueIndex = 0;

  /** @param clearInterrupts clears all bits of InterruptStatus, which lies with whoever traps the accesses */
  constructor(state: DeviceState, clearInterrupts: () => void) {
    this.#state = state;
    this.#clearInterrupts = clearInterrupts;
  }

  read(offset: number, size: number): number {
    if (offset >= MMIO_CONFIG) return this.#readConfig(offset - MMIO_CONFIG, size);
    // §4.2.2.2: the registers below configuration space are only read as aligned 32-bit words.
    if (size !== 4) return 0;
    switch (offset) {
      case MMIO_MAGIC_VALUE:
        return MMIO_MAGIC;
      case MMIO_VERSION:
        return MMIO_VERSION_2;
      case MMIO_DEVICE_ID:
        return this.#state.device.deviceId;
      case MMIO_VENDOR_ID:
        return VENDOR_ID;
      case MMIO_DEVICE_FEATURES:
        return Number((this.#state.offered >> BigInt(32 * this.#deviceFeaturesWord)) & 0xffff_ffffn);
      case MMIO_QUEUE_SIZE_MAX:
        return this.#state.device.queueSizes[this.#queueIndex] ?? 0;
      case MMIO_QUEUE_READY:
        return this.#queue?.enabled ? 1 : 0;
      case MMIO_STATUS:
        return this.#state.status;
      case MMIO_CONFIG_GENERATION:
        return this.#state.device.configGeneration ?? 0;
      // §2.6.1.1: a reset is over when the write that asked for it is.
      case MMIO_QUEUE_RESET:
        return 0;
      // §4.2.2: what a region of shared memory that does not exist reads as; there is none.
      case MMIO_SHM_LEN_LOW:
      case MMIO_SHM_LEN_HIGH:
      case MMIO_SHM_BASE_LOW:
      case MMIO_SHM_BASE_HIGH:
        return 0xffff_ffff;
      default:
        return 0;
    }
  }

  write(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    switch (offset) {
      case MMIO_DEVICE_FEATURES_SEL:
        this.#deviceFeaturesWord = value;
        return;
      case MMIO_DRIVER_FEATURES_SEL:
        this.#driverFeaturesWord = value;
        return;
      case MMIO_DRIVER_FEATURES:
        this.#writeFeatures(value);
        return;
      case MMIO_QUEUE_SEL:
        this.#queueIndex = value;
        return;
      case MMIO_STATUS:
        this.#state.writeStatus(value & 0xff);
        // §4.2.2.1: what a device reported before its reset is over.
        if (this.#state.status === 0) this.#clearInterrupts();
        return;
      default:
        this.#writeQueue(offset, value);
    }
  }

  /** What the driver has selected: DeviceFeaturesSel, DriverFeaturesSel, QueueSel. */
  get selectors(): KeptRegisters['selectors'] {
    return [this.#deviceFeaturesWord, this.#driverFeaturesWord, this.#queueIndex];
  }

  set selectors([deviceFeatures, driverFeatures, queue]: KeptRegisters['selectors']) {
    this.#deviceFeaturesWord = deviceFeatures;
    this.#driverFeaturesWord = driverFeatures;
    this.#queueIndex = queue;
  }

  get #queue(): QueueRegisters | undefined {
    return this.#state.queue(this.#queueIndex);
  }

  #writeFeatures(value: number): void {
    // Words above 1 hold no feature that is offered: nothing can be accepted there.
    if (this.#driverFeaturesWord > 1) return;
    const shift = BigInt(32 * this.#driverFeaturesWord);
    const others = this.#state.driverFeatures & ~(0xffff_ffffn << shift);
    this.#state.writeDriverFeatures(others | (BigInt(value) << shift));
  }

  #writeQueue(offset: number, value: number): void {
    if (offset === MMIO_QUEUE_READY && value === 0) this.#state.disableQueue(this.#queueIndex);
    else if (offset === MMIO_QUEUE_RESET && value === 1) this.#state.resetQueue(this.#queueIndex);
    const queue = this.#queue;
    // Case F21: an enabled queue's registers are frozen.
    if (queue === undefined || !this.#state.configurable(queue)) return;
    if (offset === MMIO_QUEUE_SIZE) queue.size = value;
    else if (offset === MMIO_QUEUE_READY && value === 1) this.#state.enableQueue(this.#queueIndex);
    const half = addressRegisters.get(offset);
    if (half !== undefined) queue[half] = value;
  }

  /** §4.2.2.2: configuration space may be read in units of 1, 2 or 4 bytes. */
  #readConfig(offset: number, size: number): number {
    const { config } = this.#state.device;
    let value = 0;
    for (let i = 0; i < Math.min(size, 4); i++) value += (config[offset + i] ?? 0) * 2 ** (8 * i);
    return value;
  }
}
