// A guest for tests: memory with one ring in it, and a device that records what it is asked and answers at once or
// when it is told to.

import { type Region, regionOver } from '../../abi/region.ts';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../abi/split-ring.ts';
import type { VirtioDevice } from '../../virtio/device.ts';
import type { Chain, DeviceQueue } from '../../virtqueue/device-queue.ts';
import { AvailableRing, DescriptorTable, UsedRing } from '../../virtqueue/split-ring.ts';

/** Where a guest has its ring, from the start of its memory. */
export const DESCRIPTORS = 0x1000;
export const AVAILABLE = 0x2000;
export const USED = 0x3000;
export const BUFFERS = 0x4000;
export const GUEST_BYTES = 0x10000;

const HIGH = 2 ** 32;

/** A guest's memory with a ring of `size`. */
export class TestGuest {
  readonly file: ArrayBuffer;
  readonly region: Region;
  readonly size: number;
  readonly table: DescriptorTable;
  readonly available: AvailableRing;
  readonly used: UsedRing;

  /** @param region its memory, if it is not to have one of its own */
  constructor(size: number, region?: Region) {
    this.file = new ArrayBuffer(GUEST_BYTES);
    this.region = region ?? regionOver(this.file);
    this.size = size;
    this.table = new DescriptorTable({ region: this.region, offset: DESCRIPTORS });
    this.available = new AvailableRing({ region: this.region, offset: AVAILABLE }, size);
    this.used = new UsedRing({ region: this.region, offset: USED }, size);
  }

  /** Makes one descriptor available: a writable buffer at `address`. */
  offer(head: number, address: number, length: number): void {
    this.table.write(head, address % HIGH, Math.floor(address / HIGH), length, VIRTQ_DESC_F_WRITE, 0);
    this.publish(head);
  }

  /** Makes a chain available: pieces of [address, length, writable], in descriptors from `head` on. */
  offerChain(head: number, pieces: readonly (readonly [number, number, boolean])[]): void {
    for (const [i, [address, length, writable]] of pieces.entries()) {
      const next = i + 1 < pieces.length ? VIRTQ_DESC_F_NEXT : 0;
      this.table.write(
        head + i,
        address % HIGH,
        Math.floor(address / HIGH),
        length,
        next | (writable ? VIRTQ_DESC_F_WRITE : 0),
        head + i + 1,
      );
    }
    this.publish(head);
  }

  publish(head: number): void {
    this.available.setHead(this.available.index, head);
    this.available.index = (this.available.index + 1) & 0xffff;
  }

  /** Heads reported so far, from the used ring's entry `from`. */
  reported(from = 0): number[] {
    const heads: number[] = [];
    for (let i = from; i !== this.used.index; i = (i + 1) & 0xffff) heads.push(this.used.id(i));
    return heads;
  }
}

/** A device that writes 0x5a to the first byte of what it may write. */
export class RecordingDevice implements VirtioDevice {
  readonly deviceId = 42;
  readonly features = 1n << 5n;
  readonly queueSizes: readonly number[];
  readonly config = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  /** Heads in the order in which they came. */
  readonly done: number[] = [];
  readonly held: { readonly queue: DeviceQueue; readonly chain: Chain }[] = [];
  /** What start and stop were called with. */
  readonly life: string[] = [];
  /** Whether requests are kept until `release`. */
  holding = false;

  constructor(queueSizes: readonly number[] = [8, 8]) {
    this.queueSizes = queueSizes;
  }

  start(features: bigint): void {
    this.life.push(`start 0x${features.toString(16)}`);
  }

  stop(): void {
    this.held.length = 0;
    this.life.push('stop');
  }

  handle(queue: DeviceQueue, chain: Chain): void {
    this.done.push(chain.head);
    if (this.holding) this.held.push({ queue, chain });
    else this.answer(queue, chain);
  }

  answer(queue: DeviceQueue, chain: Chain): void {
    if (chain.fault === 0 && chain.writable.byteLength > 0) chain.writable.setByte(0, 0x5a);
    queue.complete(chain, 0, chain.fault === 0 ? Math.min(1, chain.writable.byteLength) : 0);
  }
}
