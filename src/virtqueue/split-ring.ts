// The three areas of a split virtqueue as typed-array indices, for either side (virtio 1.3 §2.7).
//
// Indices and flags that the other side changes meanwhile are read and written through Atomics, which also
// order them against the plain accesses around them; ring entries and descriptors are plain, since they
// are only looked at after the index that publishes them.

import type { Region } from '../abi/region.ts';

/** Where one area lies: a region and a byte offset, which may be beyond 4 GiB and has the area's alignment. */
export interface RingArea {
  readonly region: Region;
  readonly offset: number;
}

/** The descriptor table. */
export class DescriptorTable {
  readonly #u32: Uint32Array;
  readonly #u16: Uint16Array;
  /** Index in `u32` and in `u16` of the first descriptor. */
  readonly #word: number;
  readonly #half: number;

  constructor({ region, offset }: RingArea) {
    this.#u32 = region.u32;
    this.#u16 = region.u16;
    this.#word = offset / 4;
    this.#half = offset / 2;
  }

  addressLow(index: number): number {
    return this.#u32[this.#word + index * 4];
  }

  addressHigh(index: number): number {
    return this.#u32[this.#word + index * 4 + 1];
  }

  len(index: number): number {
    return this.#u32[this.#word + index * 4 + 2];
  }

  flags(index: number): number {
    return this.#u16[this.#half + index * 8 + 6];
  }

  next(index: number): number {
    return this.#u16[this.#half + index * 8 + 7];
  }

  write(index: number, low: number, high: number, len: number, flags: number, next: number): void {
    const word = this.#word + index * 4;
    this.#u32[word] = low;
    this.#u32[word + 1] = high;
    this.#u32[word + 2] = len;
    this.#u32[word + 3] = (next << 16) | flags;
  }
}

/** The driver area, "available ring": flags, idx, ring[size], used_event. */
export class AvailableRing {
  readonly #u16: Uint16Array;
  readonly #base: number;
  readonly #mask: number;

  constructor({ region, offset }: RingArea, size: number) {
    this.#u16 = region.u16;
    this.#base = offset / 2;
    this.#mask = size - 1;
  }

  get flags(): number {
    return Atomics.load(this.#u16, this.#base);
  }

  set flags(value: number) {
    Atomics.store(this.#u16, this.#base, value);
  }

  get index(): number {
    return Atomics.load(this.#u16, this.#base + 1);
  }

  set index(value: number) {
    Atomics.store(this.#u16, this.#base + 1, value);
  }

  head(index: number): number {
    return this.#u16[this.#base + 2 + (index & this.#mask)];
  }

  setHead(index: number, head: number): void {
    this.#u16[this.#base + 2 + (index & this.#mask)] = head;
  }

  /** With VIRTIO_F_EVENT_IDX: the used index at which the driver wants an interrupt. */
  get usedEvent(): number {
    return Atomics.load(this.#u16, this.#base + 3 + this.#mask);
  }

  set usedEvent(value: number) {
    Atomics.store(this.#u16, this.#base + 3 + this.#mask, value);
  }
}

/** The device area, "used ring": flags, idx, ring[size] of { id, len }, avail_event. */
export class UsedRing {
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #word: number;
  readonly #half: number;
  readonly #mask: number;

  constructor({ region, offset }: RingArea, size: number) {
    this.#u16 = region.u16;
    this.#u32 = region.u32;
    this.#word = offset / 4;
    this.#half = offset / 2;
    this.#mask = size - 1;
  }

  get flags(): number {
    return Atomics.load(this.#u16, this.#half);
  }

  set flags(value: number) {
    Atomics.store(this.#u16, this.#half, value);
  }

  get index(): number {
    return Atomics.load(this.#u16, this.#half + 1);
  }

  set index(value: number) {
    Atomics.store(this.#u16, this.#half + 1, value);
  }

  id(index: number): number {
    return this.#u32[this.#word + 1 + (index & this.#mask) * 2];
  }

  len(index: number): number {
    return this.#u32[this.#word + 2 + (index & this.#mask) * 2];
  }

  setElement(index: number, id: number, len: number): void {
    const word = this.#word + 1 + (index & this.#mask) * 2;
    this.#u32[word] = id;
    this.#u32[word + 1] = len;
  }

  /** With VIRTIO_F_EVENT_IDX: the available index at which the device wants a notification. */
  get availEvent(): number {
    return Atomics.load(this.#u16, this.#half + 2 + (this.#mask + 1) * 4);
  }

  set availEvent(value: number) {
    Atomics.store(this.#u16, this.#half + 2 + (this.#mask + 1) * 4, value);
  }
}

/** What two sides negotiated for a queue. */
export interface QueueFeatures {
  /** VIRTIO_F_INDIRECT_DESC. */
  readonly indirect: boolean;
  /** VIRTIO_F_EVENT_IDX. */
  readonly eventIndex: boolean;
}
