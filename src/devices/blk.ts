// A block device (virtio 1.3 §5.2) on top of a block store.
// After virtqueue/device-queue.ts, before storage/.

import { VIRTIO_ID_BLOCK } from '../abi/virtio.ts';
import {
  SECTOR_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_RANGE_F_UNMAP,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  virtioBlkConfig,
  virtioBlkRange,
  virtioBlkRequestHeader,
} from '../abi/virtio-blk.ts';
import { ProtocolViolation } from '../errors.ts';
import type { Segments } from '../memory/segments.ts';
import type { BlockStore, StoreAnswer, StoreResult } from '../storage/block-store.ts';
import type { DeviceHost, VirtioDevice } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';
import { BlkRequest } from './blk-request.ts';

/** Ranges in one discard or write zeroes request, and sectors in one range: limits we announce. */
const MAX_RANGES = 16;
const MAX_RANGE_SECTORS = (1 << 30) / SECTOR_SIZE;

/**
 * Descriptors of the rings that QEMU gives its guests, however large ours may be. Linux believes seg_max even where
 * a request of so many segments is longer than the ring: chain-reader.ts takes that as far as our own size, other
 * drivers without indirect tables could not send it at all.
 */
const USUAL_RING = 128;

const HEADER_SIZE = virtioBlkRequestHeader.size;
const STATUS_SIZE = 1;

/** How a block device is made. */
export interface BlkOptions {
  /** Number of request queues, 1-64. */
  readonly queues: number;
  /** Descriptors of each, a power of two. */
  readonly queueSize: number;
  /** Up to 20 bytes of ASCII, for VIRTIO_BLK_T_GET_ID. */
  readonly id: string;
}

/** In place of a status: the store answers later. */
const LATER = -1;

export class BlkDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_BLOCK;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly config: Uint8Array;

  readonly #store: BlockStore;
  readonly #id: Uint8Array;
  readonly #header = virtioBlkRequestHeader.make();
  readonly #ranges = new Uint8Array(MAX_RANGES * virtioBlkRange.size);
  /** The request in hand, and those that are not under way. */
  #request: BlkRequest;
  readonly #idle: BlkRequest[] = [];
  #host: DeviceHost | undefined;
  #writeThrough = false;

  constructor(store: BlockStore, options: BlkOptions) {
    this.#store = store;
    this.#request = this.#newRequest();
    this.#id = new TextEncoder().encode(options.id.slice(0, VIRTIO_BLK_ID_BYTES));
    this.queueSizes = Array.from({ length: options.queues }, () => options.queueSize);
    this.features =
      VIRTIO_BLK_F_SEG_MAX |
      VIRTIO_BLK_F_BLK_SIZE |
      VIRTIO_BLK_F_FLUSH |
      VIRTIO_BLK_F_MQ |
      (store.readOnly ? VIRTIO_BLK_F_RO : VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES);
    this.config = virtioBlkConfig.make({
      capacity: store.size / SECTOR_SIZE,
      // Header and status take a descriptor each.
      seg_max: Math.max(Math.min(options.queueSize, USUAL_RING) - 2, 1),
      blk_size: SECTOR_SIZE,
      num_queues: options.queues,
      max_discard_sectors: MAX_RANGE_SECTORS,
      max_discard_seg: MAX_RANGES,
      discard_sector_alignment: 1,
      max_write_zeroes_sectors: MAX_RANGE_SECTORS,
      max_write_zeroes_seg: MAX_RANGES,
      write_zeroes_may_unmap: store.freesZeroes ? 1 : 0,
    }).bytes;
  }

  /** §5.2.6.2: a driver that cannot flush is promised that a completed write is stable. */
  start(features: bigint, host: DeviceHost): void {
    this.#writeThrough = (features & VIRTIO_BLK_F_FLUSH) === 0n;
    this.#host = host;
  }

  drain(): void {
    this.#store.drain?.();
  }

  stop(): void {
    this.#host = undefined;
  }

  /** §5.2.6: header, data, one status byte, in whatever descriptors the driver chose (§2.7.4.1). */
  handle(queue: DeviceQueue, chain: Chain): void {
    if (chain.fault !== 0) {
      this.#refuse(queue, chain, chain.answers);
      return;
    }
    if (chain.writable.byteLength === 0)
      throw new ProtocolViolation('§5.2.6', 'a request without room for its status');
    const request = this.#request;
    const status = this.#begin(request, queue, chain);
    if (status === LATER) this.#request = this.#idle.pop() ?? this.#newRequest();
    else if (!this.#answer(request, status)) this.#refuse(queue, chain, queue.mapAnswer(chain));
  }

  /** Tells the driver the outcome of a request. Returns false when the platform does not take what was written. */
  #answer({ queue, chain, written }: BlkRequest, status: number): boolean {
    const { readable, writable } = chain;
    chain.status = status;
    writable.setByte(writable.byteLength - 1, status);
    // §2.7.8.2: the length counts from the start of the writable part without gaps. What lies between short
    // data and the status has not been written, so only a full answer may claim the status byte as well.
    const data = status === VIRTIO_BLK_S_OK ? written : 0;
    const dataRoom = writable.byteLength - 1;
    const length = data === dataRoom ? writable.byteLength : Math.min(data, dataRoom);
    return queue.complete(chain, readable.byteLength, length, STATUS_SIZE) >= 0;
  }

  #newRequest(): BlkRequest {
    return new BlkRequest((request, result) => this.#finish(request, result));
  }

  /** The store has answered later. */
  #finish(request: BlkRequest, result: StoreResult): void {
    const { queue, chain } = request;
    // §2.4.1: what was under way when the driver took its queue away is for nobody.
    const status = queue.closed ? VIRTIO_BLK_S_IOERR : this.#after(request, result);
    if (status === LATER) return;
    this.#idle.push(request);
    if (queue.closed) return;
    try {
      // Buffers that cannot be written any more cannot have a status either: the driver gets them back as they are.
      if (!this.#answer(request, status)) {
        chain.status = VIRTIO_BLK_S_IOERR;
        queue.complete(chain, 0, 0);
      }
      this.#host?.completed(queue);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#host?.failed(queue, error);
    }
  }

  /** A buffer was not granted, or not so: only this request fails, with a status if that `answers`, which is mapped. */
  #refuse(queue: DeviceQueue, chain: Chain, answers: boolean): void {
    chain.status = VIRTIO_BLK_S_IOERR;
    if (answers) chain.writable.setByte(chain.writable.byteLength - 1, VIRTIO_BLK_S_IOERR);
    if (queue.complete(chain, 0, 0, answers ? STATUS_SIZE : 0) < 0) queue.complete(chain, 0, 0);
  }

  /** Hands a request to the store. Returns its status, or LATER. */
  #begin(request: BlkRequest, queue: DeviceQueue, chain: Chain): number {
    const { readable, writable } = chain;
    request.begin(queue, chain);
    if (readable.byteLength < HEADER_SIZE) return VIRTIO_BLK_S_IOERR;
    readable.copyTo(this.#header.bytes, 0, HEADER_SIZE);
    chain.type = this.#header.type;
    const readableData = readable.byteLength - HEADER_SIZE;
    const writableData = writable.byteLength - 1;
    switch (chain.type) {
      case VIRTIO_BLK_T_IN:
        request.data.slice(writable, 0, writableData);
        return this.#read(request);
      case VIRTIO_BLK_T_OUT:
        request.data.slice(readable, HEADER_SIZE, readableData);
        return this.#write(request);
      case VIRTIO_BLK_T_FLUSH:
        return this.#after(request, this.#store.flush(request));
      case VIRTIO_BLK_T_GET_ID:
        return this.#getId(request, writable, writableData);
      case VIRTIO_BLK_T_DISCARD:
      case VIRTIO_BLK_T_WRITE_ZEROES:
        return this.#applyRanges(request, readable, readableData);
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }

  /** A step of a request has come to `answer`: does what is left of it. Returns its status, or LATER. */
  #after(request: BlkRequest, answer: StoreAnswer): number {
    let last = answer;
    while (last === 'ok') {
      if (request.nextRange < request.ranges) last = this.#applyRange(request);
      else if (request.mustFlush) {
        request.mustFlush = false;
        last = this.#store.flush(request);
      } else return VIRTIO_BLK_S_OK;
    }
    return last === 'later' ? LATER : VIRTIO_BLK_S_IOERR;
  }

  #read(request: BlkRequest): number {
    const { data } = request;
    const offset = this.#place(data.byteLength);
    if (offset < 0) return VIRTIO_BLK_S_IOERR;
    request.written = data.byteLength;
    return this.#after(request, this.#store.read(offset, data, request));
  }

  #write(request: BlkRequest): number {
    const { data } = request;
    const offset = this.#place(data.byteLength);
    if (this.#store.readOnly || offset < 0) return VIRTIO_BLK_S_IOERR;
    request.mustFlush = this.#writeThrough;
    return this.#after(request, this.#store.write(offset, data, request));
  }

  #getId(request: BlkRequest, writable: Segments, room: number): number {
    const bytes = this.#id.subarray(0, Math.min(room, this.#id.length));
    writable.copyFrom(bytes, 0);
    // A shorter id ends with a zero byte, and the rest of the field is zero.
    for (let at = bytes.length; at < Math.min(room, VIRTIO_BLK_ID_BYTES); at++) writable.setByte(at, 0);
    request.written = Math.min(room, VIRTIO_BLK_ID_BYTES);
    return VIRTIO_BLK_S_OK;
  }

  /** Where a transfer of `length` bytes at the header's sector starts, or -1 when it may not be done. */
  #place(length: number): number {
    if (length === 0 || length % SECTOR_SIZE !== 0) return -1;
    return this.#inside(this.#header.sector, length / SECTOR_SIZE);
  }

  /** Byte offset of `count` sectors from `sector`, or -1 when they are not all on the disk. */
  #inside(sector: number, count: number): number {
    // Whole sums, checked as one: a part may be in range when the whole is not.
    return sector + count <= this.#store.size / SECTOR_SIZE ? sector * SECTOR_SIZE : -1;
  }

  /** §5.2.6.2: all ranges are validated before the first one is changed. */
  #applyRanges(request: BlkRequest, readable: Segments, length: number): number {
    const size = virtioBlkRange.size;
    if (this.#store.readOnly || length === 0 || length % size !== 0 || length > this.#ranges.length)
      return VIRTIO_BLK_S_IOERR;
    readable.copyTo(this.#ranges, HEADER_SIZE, length);
    const discard = request.chain.type === VIRTIO_BLK_T_DISCARD;
    const range = virtioBlkRange.over(this.#ranges);
    for (let at = 0; at < length; at += size) {
      const { sector, num_sectors, flags } = range.at(at);
      const fault = this.#rangeFault(range, discard);
      if (fault !== VIRTIO_BLK_S_OK) return fault;
      const mayUnmap = (flags & VIRTIO_BLK_RANGE_F_UNMAP) !== 0;
      request.addRange(sector * SECTOR_SIZE, num_sectors * SECTOR_SIZE, mayUnmap);
    }
    request.mustFlush = this.#writeThrough && !discard;
    return this.#after(request, 'ok');
  }

  #rangeFault(range: { sector: number; num_sectors: number; flags: number }, discard: boolean): number {
    const allowed = discard ? 0 : VIRTIO_BLK_RANGE_F_UNMAP;
    if (range.flags & ~allowed) return VIRTIO_BLK_S_UNSUPP;
    const tooLong = range.num_sectors > MAX_RANGE_SECTORS;
    return tooLong || this.#inside(range.sector, range.num_sectors) < 0
      ? VIRTIO_BLK_S_IOERR
      : VIRTIO_BLK_S_OK;
  }

  #applyRange(request: BlkRequest): StoreAnswer {
    const index = request.nextRange++;
    const offset = request.offsets[index];
    const length = request.lengths[index];
    if (request.chain.type === VIRTIO_BLK_T_DISCARD) return this.#store.discard(offset, length, request);
    return this.#store.writeZeroes(offset, length, request.mayUnmap[index], request);
  }
}
