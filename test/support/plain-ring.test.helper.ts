// Both sides of one split virtqueue over plain memory, without a machine around them: the driver's queue, the
// device's queue, and the bytes in between.

import assert from 'node:assert/strict';
import { type Region, regionOver } from '../../src/abi/region.ts';
import { splitRingSizes } from '../../src/abi/split-ring.ts';
import { GuestMemory } from '../../src/dma/guest-memory.ts';
import { PlainDma } from '../../src/dma/plain-dma.ts';
import { PlainMemory } from '../../src/memory/plain-memory.ts';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { type Chain, DeviceQueue } from '../../src/virtqueue/device-queue.ts';
import { ADDED, DriverQueue } from '../../src/virtqueue/driver-queue.ts';
import {
  AvailableRing,
  DescriptorTable,
  type QueueFeatures,
  UsedRing,
} from '../../src/virtqueue/split-ring.ts';

const HIGH = 2 ** 32;

export const PLAIN: QueueFeatures = { indirect: false, eventIndex: false };
export const ALL_FEATURES: readonly QueueFeatures[] = [false, true].flatMap((indirect) =>
  [false, true].map((eventIndex) => ({ indirect, eventIndex })),
);

/** "indirect, event index", for titles. */
export function nameOf({ indirect, eventIndex }: QueueFeatures): string {
  const names = [...(indirect ? ['indirect'] : []), ...(eventIndex ? ['event index'] : [])];
  return names.length === 0 ? 'no features' : names.join(', ');
}

export class PlainRing {
  readonly region: Region;
  readonly memory: GuestMemory;
  readonly driver: DriverQueue;
  readonly device: DeviceQueue;
  /** The same memory as raw rings. */
  readonly table: DescriptorTable;
  readonly available: AvailableRing;
  readonly used: UsedRing;
  /** Guest-physical addresses of the three areas. */
  readonly descriptorArea: number;
  readonly driverArea: number;
  readonly deviceArea: number;

  /** @param base where the memory begins; its first page is for buffers, which tests put where they like */
  constructor(size: number, features: QueueFeatures = PLAIN, bytes = 256 * 1024, base = 0) {
    this.region = regionOver(new ArrayBuffer(bytes));
    this.memory = new GuestMemory(this.region, base);
    this.memory.allocatePages(1);
    const driver = DriverQueue.create(size, new PlainDma(this.memory), this.memory, features);
    assert.ok(driver !== undefined, 'the guest has memory for its rings');
    this.driver = driver;
    const plain = new PlainMemory(this.region, base);
    const sizes = splitRingSizes(size);
    const at = driver.addresses;
    this.descriptorArea = at.descriptorHigh * HIGH + at.descriptorLow;
    this.driverArea = at.driverHigh * HIGH + at.driverLow;
    this.deviceArea = at.deviceHigh * HIGH + at.deviceLow;
    const areas = {
      descriptor: plain.mapRing(at.descriptorLow, at.descriptorHigh, sizes.descriptor),
      driver: plain.mapRing(at.driverLow, at.driverHigh, sizes.driver),
      device: plain.mapRing(at.deviceLow, at.deviceHigh, sizes.device),
    };
    this.device = new DeviceQueue(size, areas, plain, features);
    this.table = new DescriptorTable(areas.descriptor);
    this.available = new AvailableRing(areas.driver, size);
    this.used = new UsedRing(areas.device, size);
  }

  /** Adds a request of one writable buffer of 8 bytes. */
  add(token: number): void {
    const address = this.memory.base + 64 + (token & 63) * 8;
    const outcome = this.driver.add(new BufferList().addWritable(address, 8), token);
    assert.equal(outcome, ADDED);
  }

  /** Takes a chain that must be there. */
  pop(): Chain {
    const chain = this.device.pop();
    assert.ok(chain !== undefined, 'a chain is available');
    return chain;
  }
}
