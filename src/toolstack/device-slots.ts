// Where a guest's virtio-mmio devices go: each has a window of registers and an interrupt, and Xen's address map has
// room for as many as it has interrupts for, which is eleven. Before virtio-nodes.ts, which announces a device there.

import {
  GUEST_VIRTIO_MMIO_SPI_FIRST,
  GUEST_VIRTIO_MMIO_SPI_LAST,
  VIRTIO_MMIO_DEV_SIZE,
} from '../abi/xen-arm.ts';

/** Devices that one guest can have at a time. */
export const MAX_DEVICES = GUEST_VIRTIO_MMIO_SPI_LAST - GUEST_VIRTIO_MMIO_SPI_FIRST + 1;

/** The guest has as many devices as it can have. */
export class NoDeviceSlot extends Error {
  constructor() {
    super(
      `the guest has ${MAX_DEVICES} virtio devices, and no more fit: there are interrupts ` +
        `${GUEST_VIRTIO_MMIO_SPI_FIRST} to ${GUEST_VIRTIO_MMIO_SPI_LAST} for them; unplug one first`,
    );
    this.name = 'NoDeviceSlot';
  }
}

/** The place of one device. */
export interface DeviceSlot {
  /** From 0; free to serve as the device's number, for no two devices of a guest have the same. */
  readonly index: number;
  /** Guest-physical address of its registers. */
  readonly base: number;
  readonly irq: number;
}

/** The places of one guest, given out lowest first, as libxl numbers them. */
export class DeviceSlots {
  readonly #firstWindow: number;
  readonly #taken = new Set<number>();

  /** @param firstWindow guest-physical address of the registers of device 0 */
  constructor(firstWindow: number) {
    this.#firstWindow = firstWindow;
  }

  /** Takes the lowest place that is free. Throws NoDeviceSlot when there is none. */
  take(): DeviceSlot {
    let index = 0;
    while (this.#taken.has(index)) index++;
    if (index === MAX_DEVICES) throw new NoDeviceSlot();
    this.#taken.add(index);
    return this.at(index);
  }

  /** The place with this index, whether it is taken or not. */
  at(index: number): DeviceSlot {
    return {
      index,
      base: this.#firstWindow + index * VIRTIO_MMIO_DEV_SIZE,
      irq: GUEST_VIRTIO_MMIO_SPI_FIRST + index,
    };
  }

  /** Gives a place back, once neither end has anything there. */
  give({ index }: Pick<DeviceSlot, 'index'>): void {
    this.#taken.delete(index);
  }
}
