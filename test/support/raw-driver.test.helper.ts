// A driver that a test writes by hand: registers, rings and grants of one device of the deterministic
// machine, with nothing between the test and the bytes. What it does wrong is the test's business.

import { grantAddressHigh, grantAddressLow } from '../../src/abi/grant-address.ts';
import {
  splitRingSizes,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  virtqDesc,
} from '../../src/abi/split-ring.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from '../../src/abi/virtio.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { Grants } from '../../src/dma/grants.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { AvailableRing, DescriptorTable, UsedRing } from '../../src/virtqueue/split-ring.ts';
import type { DomainId } from '../../src/xen/ids.ts';

/** More steps than any script of a test takes: a machine that runs longer does not come to rest. */
const MAX_STEPS = 10_000;

/** An address as a descriptor has it. */
export interface DeviceAddress {
  readonly low: number;
  readonly high: number;
}

/** Whole pages of the guest that the backend's domain may map. */
export interface SharedPages extends DeviceAddress {
  readonly ref: number;
  readonly pages: number;
  /** The bytes, in the guest. */
  readonly bytes: Uint8Array;
  /** Guest-physical address of the first one. */
  readonly address: number;
}

/** One buffer of a chain. */
export interface RawBuffer {
  readonly at: DeviceAddress;
  readonly length: number;
  readonly writable?: boolean;
}

/** `pages` moved on by `offset` bytes, which must stay within the first 1 MiB pages of the reference. */
export function offsetBy(at: SharedPages, offset: number): DeviceAddress {
  return {
    low: grantAddressLow(at.ref + Math.floor(offset / XEN_PAGE_SIZE), offset % XEN_PAGE_SIZE),
    high: at.high,
  };
}

/** Writes a chain as an indirect table, `offset` bytes into `table`. */
export function fillTable(table: SharedPages, offset: number, buffers: readonly RawBuffer[]): void {
  for (const [i, { at, length, writable }] of buffers.entries()) {
    const last = i === buffers.length - 1;
    const record = virtqDesc.make({
      addrLow: at.low,
      addrHigh: at.high,
      len: length,
      flags: (writable ? VIRTQ_DESC_F_WRITE : 0) | (last ? 0 : VIRTQ_DESC_F_NEXT),
      next: last ? 0 : i + 1,
    });
    table.bytes.set(record.bytes, offset + i * virtqDesc.size);
  }
}

/** A queue in memory, as its driver may write it. */
export interface RawQueue {
  readonly index: number;
  readonly size: number;
  readonly pages: SharedPages;
  /** Offsets of driver and device area in `pages`. */
  readonly driver: number;
  readonly device: number;
  readonly table: DescriptorTable;
  readonly available: AvailableRing;
  readonly used: UsedRing;
}

export class RawDriver {
  readonly guest: GuestDomain;
  /** Events on the device's interrupt line since the last look. */
  interrupts = 0;
  readonly #machine: Machine;
  readonly #base: number;
  readonly #grants: Grants;
  readonly #shared: SharedPages[] = [];

  constructor(machine: Machine, guest: GuestDomain, backend: DomainId, base: number) {
    this.guest = guest;
    this.#machine = machine;
    this.#base = base;
    this.#grants = new Grants(guest.dma.granting, backend);
    const port = guest.ports.events.allocateUnbound(backend);
    guest.ports.events.onEvent(port, () => {
      this.interrupts++;
    });
    guest.ports.mmio.routeInterrupt(base, port);
  }

  read(register: number): number {
    return this.guest.ports.mmio.read(this.#base + register, 4) >>> 0;
  }

  write(register: number, value: number): void {
    this.guest.ports.mmio.write(this.#base + register, 4, value);
  }

  get status(): number {
    return this.read(mmio.MMIO_STATUS);
  }

  /** Lets every domain run until none has anything to do. */
  run(): void {
    for (let step = 0; this.#machine.step(); step++)
      if (step === MAX_STEPS) throw new Error(`the machine does not come to rest within ${MAX_STEPS} steps`);
  }

  /** Grants `pages` fresh pages. */
  share(pages: number, readonly = false): SharedPages {
    const { memory } = this.guest.ports;
    const address = memory.allocatePages(pages);
    if (address === undefined) throw new Error(`the guest has no ${pages} pages left`);
    return this.shareAt(address, pages, readonly);
  }

  /** Grants pages that the guest has, or claims to have. */
  shareAt(address: number, pages: number, readonly = false): SharedPages {
    const ref = this.#grants.share(address / XEN_PAGE_SIZE, pages, readonly);
    if (ref < 0) throw new Error(`no ${pages} grant references are free`);
    const { memory } = this.guest.ports;
    const shared = {
      ref,
      pages,
      get bytes() {
        return memory.bytes(address, pages * XEN_PAGE_SIZE);
      },
      address,
      low: grantAddressLow(ref, 0),
      high: grantAddressHigh(ref),
    };
    this.#shared.push(shared);
    return shared;
  }

  /** Ends all sharing. Returns how many pages the backend still maps. */
  revokeAll(): number {
    for (const { ref, pages } of this.#shared.splice(0)) this.#grants.unshare(ref, pages);
    return this.#grants.quarantined;
  }

  readFeatures(): bigint {
    this.write(mmio.MMIO_DEVICE_FEATURES_SEL, 1);
    const high = BigInt(this.read(mmio.MMIO_DEVICE_FEATURES));
    this.write(mmio.MMIO_DEVICE_FEATURES_SEL, 0);
    return (high << 32n) | BigInt(this.read(mmio.MMIO_DEVICE_FEATURES));
  }

  writeFeatures(features: bigint): void {
    this.write(mmio.MMIO_DRIVER_FEATURES_SEL, 0);
    this.write(mmio.MMIO_DRIVER_FEATURES, Number(features & 0xffff_ffffn));
    this.write(mmio.MMIO_DRIVER_FEATURES_SEL, 1);
    this.write(mmio.MMIO_DRIVER_FEATURES, Number((features >> 32n) & 0xffff_ffffn));
  }

  reset(): void {
    this.write(mmio.MMIO_STATUS, 0);
  }

  /** Resets the device and goes on to FEATURES_OK, with everything that is offered less `without`. */
  negotiate(without = 0n): void {
    this.reset();
    this.write(mmio.MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
    this.write(mmio.MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    this.writeFeatures(this.readFeatures() & ~without);
    this.write(mmio.MMIO_STATUS, this.status | VIRTIO_STATUS_FEATURES_OK);
  }

  driverOk(): void {
    this.write(mmio.MMIO_STATUS, this.status | VIRTIO_STATUS_DRIVER_OK);
  }

  /** A queue's memory, in pages of its own; the device does not know of it yet. */
  layOut(index: number, size: number): RawQueue {
    const sizes = splitRingSizes(size);
    const driver = sizes.descriptor;
    const device = (driver + sizes.driver + 3) & ~3;
    const pages = this.share(Math.ceil((device + sizes.device) / XEN_PAGE_SIZE));
    const { memory } = this.guest.ports;
    const { region } = memory;
    const offset = memory.offset(pages.address, pages.pages * XEN_PAGE_SIZE);
    return {
      index,
      size,
      pages,
      driver,
      device,
      table: new DescriptorTable({ region, offset }),
      available: new AvailableRing({ region, offset: offset + driver }, size),
      used: new UsedRing({ region, offset: offset + device }, size),
    };
  }

  /** Tells the device where a queue is. */
  enable(
    queue: RawQueue,
    {
      size = queue.size,
      descriptor = queue.pages as DeviceAddress,
      driver = offsetBy(queue.pages, queue.driver),
      device = offsetBy(queue.pages, queue.device),
    } = {},
  ): void {
    this.write(mmio.MMIO_QUEUE_SEL, queue.index);
    this.write(mmio.MMIO_QUEUE_SIZE, size);
    this.write(mmio.MMIO_QUEUE_DESC_LOW, descriptor.low);
    this.write(mmio.MMIO_QUEUE_DESC_HIGH, descriptor.high);
    this.write(mmio.MMIO_QUEUE_DRIVER_LOW, driver.low);
    this.write(mmio.MMIO_QUEUE_DRIVER_HIGH, driver.high);
    this.write(mmio.MMIO_QUEUE_DEVICE_LOW, device.low);
    this.write(mmio.MMIO_QUEUE_DEVICE_HIGH, device.high);
    this.write(mmio.MMIO_QUEUE_READY, 1);
  }

  /** Initialisation from the reset on, with queue 0 of `size`. */
  start(size = 16, without = 0n): RawQueue {
    this.negotiate(without);
    const queue = this.layOut(0, size);
    this.enable(queue);
    this.driverOk();
    return queue;
  }

  /** Writes a chain into consecutive descriptors from `first` on. */
  chain(queue: RawQueue, first: number, buffers: readonly RawBuffer[]): void {
    for (const [i, { at, length, writable }] of buffers.entries()) {
      const last = i === buffers.length - 1;
      const flags = (writable ? VIRTQ_DESC_F_WRITE : 0) | (last ? 0 : VIRTQ_DESC_F_NEXT);
      queue.table.write(first + i, at.low, at.high, length, flags, last ? 0 : first + i + 1);
    }
  }

  /** Makes `head` available; the device is not told yet. */
  offer(queue: RawQueue, head: number): void {
    const { available } = queue;
    available.setHead(available.index, head);
    available.index = (available.index + 1) & 0xffff;
  }

  notify(index: number): void {
    this.write(mmio.MMIO_QUEUE_NOTIFY, index);
  }

  /** Makes `head` available, notifies, and waits until the machine rests. */
  submit(queue: RawQueue, head: number): void {
    this.offer(queue, head);
    this.notify(queue.index);
    this.run();
  }
}
