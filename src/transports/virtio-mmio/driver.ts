// A virtio device behind MMIO registers, version 2, as its driver reaches it (virtio 1.3 §4.2).
// After drivers/, before hosts/model/ioreq/guest-io.ts.

import {
  MMIO_CONFIG,
  MMIO_CONFIG_GENERATION,
  MMIO_DEVICE_FEATURES,
  MMIO_DEVICE_FEATURES_SEL,
  MMIO_DEVICE_ID,
  MMIO_DRIVER_FEATURES,
  MMIO_DRIVER_FEATURES_SEL,
  MMIO_INTERRUPT_ACK,
  MMIO_INTERRUPT_CONFIG,
  MMIO_INTERRUPT_STATUS,
  MMIO_INTERRUPT_VRING,
  MMIO_MAGIC,
  MMIO_MAGIC_VALUE,
  MMIO_QUEUE_DESC_HIGH,
  MMIO_QUEUE_DESC_LOW,
  MMIO_QUEUE_DEVICE_HIGH,
  MMIO_QUEUE_DEVICE_LOW,
  MMIO_QUEUE_DRIVER_HIGH,
  MMIO_QUEUE_DRIVER_LOW,
  MMIO_QUEUE_NOTIFY,
  MMIO_QUEUE_READY,
  MMIO_QUEUE_RESET,
  MMIO_QUEUE_SEL,
  MMIO_QUEUE_SIZE,
  MMIO_QUEUE_SIZE_MAX,
  MMIO_STATUS,
  MMIO_VERSION,
  MMIO_VERSION_2,
} from '../../abi/virtio-mmio.ts';
import type { FieldLayout } from '../../abi/struct.ts';
import type { RingAddresses } from '../../virtqueue/driver-queue.ts';
import { DeviceRefused } from '../../virtio/negotiate.ts';
import type { DriverTransport } from '../../virtio/transport.ts';
import type { MmioBus } from '../../xen/mmio.ts';

/** How often a changing configuration space is read again before it is given up. */
const CONFIG_TRIES = 10;

/** The registers at `base`. */
export class MmioTransport implements DriverTransport {
  readonly deviceId: number;
  readonly #bus: MmioBus;
  readonly #base: number;

  /** @throws DeviceRefused when there is no virtio-mmio device of version 2 at `base` */
  constructor(bus: MmioBus, base: number) {
    this.#bus = bus;
    this.#base = base;
    const where = `MMIO at 0x${base.toString(16)}`;
    const magic = this.#read(MMIO_MAGIC_VALUE);
    if (magic !== MMIO_MAGIC)
      throw new DeviceRefused(`${where}: no virtio device (magic 0x${magic.toString(16)})`);
    const version = this.#read(MMIO_VERSION);
    if (version !== MMIO_VERSION_2)
      throw new DeviceRefused(
        `${where}: version ${version}; a legacy device cannot be restricted, 2 is needed`,
      );
    this.deviceId = this.#read(MMIO_DEVICE_ID);
  }

  readStatus(): number {
    return this.#read(MMIO_STATUS);
  }

  writeStatus(status: number): void {
    this.#write(MMIO_STATUS, status);
  }

  readFeatures(): bigint {
    this.#write(MMIO_DEVICE_FEATURES_SEL, 0);
    const low = this.#read(MMIO_DEVICE_FEATURES);
    this.#write(MMIO_DEVICE_FEATURES_SEL, 1);
    return (BigInt(this.#read(MMIO_DEVICE_FEATURES)) << 32n) | BigInt(low);
  }

  writeFeatures(features: bigint): void {
    this.#write(MMIO_DRIVER_FEATURES_SEL, 0);
    this.#write(MMIO_DRIVER_FEATURES, Number(features & 0xffff_ffffn));
    this.#write(MMIO_DRIVER_FEATURES_SEL, 1);
    this.#write(MMIO_DRIVER_FEATURES, Number(features >> 32n));
  }

  queueSizeMax(index: number): number {
    this.#write(MMIO_QUEUE_SEL, index);
    return this.#read(MMIO_QUEUE_SIZE_MAX);
  }

  enableQueue(index: number, size: number, addresses: RingAddresses): void {
    this.#write(MMIO_QUEUE_SEL, index);
    this.#write(MMIO_QUEUE_SIZE, size);
    this.#write(MMIO_QUEUE_DESC_LOW, addresses.descriptorLow);
    this.#write(MMIO_QUEUE_DESC_HIGH, addresses.descriptorHigh);
    this.#write(MMIO_QUEUE_DRIVER_LOW, addresses.driverLow);
    this.#write(MMIO_QUEUE_DRIVER_HIGH, addresses.driverHigh);
    this.#write(MMIO_QUEUE_DEVICE_LOW, addresses.deviceLow);
    this.#write(MMIO_QUEUE_DEVICE_HIGH, addresses.deviceHigh);
    this.#write(MMIO_QUEUE_READY, 1);
  }

  resetQueue(index: number): boolean {
    this.#write(MMIO_QUEUE_SEL, index);
    this.#write(MMIO_QUEUE_RESET, 1);
    return this.#read(MMIO_QUEUE_RESET) === 0 && this.#read(MMIO_QUEUE_READY) === 0;
  }

  notify(index: number): void {
    this.#write(MMIO_QUEUE_NOTIFY, index);
  }

  readConfig(fields: readonly FieldLayout[]): Uint8Array {
    const bytes = new Uint8Array(fields.reduce((end, field) => Math.max(end, field.offset + field.size), 0));
    for (let tries = 0; tries < CONFIG_TRIES; tries++) {
      const before = this.#read(MMIO_CONFIG_GENERATION);
      for (const field of fields) this.#readField(field, bytes);
      if (this.#read(MMIO_CONFIG_GENERATION) === before) return bytes;
    }
    throw new DeviceRefused('the configuration space does not stop changing (§2.5.3)');
  }

  takeInterrupt(): number {
    // §4.2.2.2: bits without a meaning are ignored, and not acknowledged.
    const bits = this.#read(MMIO_INTERRUPT_STATUS) & (MMIO_INTERRUPT_VRING | MMIO_INTERRUPT_CONFIG);
    if (bits !== 0) this.#write(MMIO_INTERRUPT_ACK, bits);
    return bits;
  }

  #readField({ kind, offset, size }: FieldLayout, into: Uint8Array): void {
    const width = typeof kind === 'object' ? 1 : Math.min(size, 4);
    for (let at = offset; at < offset + size; at += width) {
      const value = this.#bus.read(this.#base + MMIO_CONFIG + at, width);
      for (let byte = 0; byte < width; byte++) into[at + byte] = value >>> (8 * byte);
    }
  }

  #read(register: number): number {
    return this.#bus.read(this.#base + register, 4) >>> 0;
  }

  #write(register: number, value: number): void {
    this.#bus.write(this.#base + register, 4, value);
  }
}
