// A block device (virtio 1.3 §5.2) on top of a block store.
// After virtqueue/device-queue.ts, before storage/.

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
import { VIRTIO_ID_BLOCK } from '../abi/virtio.ts';
import { ProtocolViolation } from '../errors.ts';
import { Segments } from '../memory/segments.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';

/** Ranges in one discard or write zeroes request, and sectors in one range: limits we announce. */
const MAX_RANGES = 16;
const MAX_RANGE_SECTORS = (1 << 30) / SECTOR_SIZE;

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

/** What a request wrote: bytes of data before the status byte, and the status. */
interface Answer {
  written: number;
  status: number;
}

export class BlkDevice implements VirtioDevice {
  readonly deviceId = VIRTIO_ID_BLOCK;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly config: Uint8Array;

  readonly #store: BlockStore;
  readonly #id: Uint8Array;
  readonly #header = virtioBlkRequestHeader.make();
  readonly #ranges = new Uint8Array(MAX_RANGES * virtioBlkRange.size);
  /** The data part of the request in hand. */
  readonly #data = new Segments();
  readonly #answer: Answer = { written: 0, status: 0 };
  #writeThrough = false;

  constructor(store: BlockStore, options: BlkOptions) {
    this.#store = store;
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
      seg_max: Math.max(options.queueSize - 2, 1),
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
  start(features: bigint): void {
    this.#writeThrough = (features & VIRTIO_BLK_F_FLUSH) === 0n;
  }

  stop(): void {
    // Requests are served within `handle`; nothing is under way between two calls.
  }

  /** §5.2.6: header, data, one status byte, in whatever descriptors the driver chose (§2.7.4.1). */
  handle(queue: DeviceQueue, chain: Chain): void {
    if (chain.fault !== 0) {
      this.#refuse(queue, chain);
      return;
    }
    const { readable, writable } = chain;
    if (writable.byteLength === 0)
      throw new ProtocolViolation('§5.2.6', 'a request without room for its status');
    const answer = this.#answer;
    answer.written = 0;
    if (readable.byteLength < HEADER_SIZE) answer.status = VIRTIO_BLK_S_IOERR;
    else {
      readable.copyTo(this.#header.bytes, 0, HEADER_SIZE);
      chain.type = this.#header.type;
      answer.status = this.#serve(chain, answer);
    }
    chain.status = answer.status;
    writable.setByte(writable.byteLength - 1, answer.status);
    // §2.7.8.2: the length counts from the start of the writable part without gaps. What lies between short
    // data and the status has not been written, so only a full answer may claim the status byte as well.
    const dataRoom = writable.byteLength - 1;
    const length = answer.written === dataRoom ? writable.byteLength : Math.min(answer.written, dataRoom);
    if (queue.complete(chain, readable.byteLength, length, STATUS_SIZE) < 0) this.#refuse(queue, chain);
  }

  /** A buffer was not granted, or not so: only this request fails, if its status can be written. */
  #refuse(queue: DeviceQueue, chain: Chain): void {
    chain.status = VIRTIO_BLK_S_IOERR;
    const answers = queue.mapAnswer(chain);
    if (answers) chain.writable.setByte(chain.writable.byteLength - 1, VIRTIO_BLK_S_IOERR);
    if (queue.complete(chain, 0, 0, answers ? STATUS_SIZE : 0) < 0) queue.complete(chain, 0, 0);
  }

  #serve(chain: Chain, answer: Answer): number {
    const { readable, writable } = chain;
    const readableData = readable.byteLength - HEADER_SIZE;
    const writableData = writable.byteLength - 1;
    switch (this.#header.type) {
      case VIRTIO_BLK_T_IN:
        return this.#read(this.#data.slice(writable, 0, writableData), answer);
      case VIRTIO_BLK_T_OUT:
        return this.#write(this.#data.slice(readable, HEADER_SIZE, readableData));
      case VIRTIO_BLK_T_FLUSH:
        return statusOf(this.#store.flush() === 'ok');
      case VIRTIO_BLK_T_GET_ID:
        return this.#getId(writable, writableData, answer);
      case VIRTIO_BLK_T_DISCARD:
      case VIRTIO_BLK_T_WRITE_ZEROES:
        return this.#applyRanges(readable, readableData);
      default:
        return VIRTIO_BLK_S_UNSUPP;
    }
  }

  #read(data: Segments, answer: Answer): number {
    const offset = this.#place(data.byteLength);
    if (offset < 0 || this.#store.read(offset, data) !== 'ok') return VIRTIO_BLK_S_IOERR;
    answer.written = data.byteLength;
    return VIRTIO_BLK_S_OK;
  }

  #write(data: Segments): number {
    const offset = this.#place(data.byteLength);
    if (this.#store.readOnly || offset < 0) return VIRTIO_BLK_S_IOERR;
    return statusOf(this.#store.write(offset, data) === 'ok' && this.#stable());
  }

  /** After a change: flushes where the driver cannot ask for it. Returns false when that failed. */
  #stable(): boolean {
    return !this.#writeThrough || this.#store.flush() === 'ok';
  }

  #getId(writable: Segments, room: number, answer: Answer): number {
    const bytes = this.#id.subarray(0, Math.min(room, this.#id.length));
    writable.copyFrom(bytes, 0);
    // A shorter id ends with a zero byte, and the rest of the field is zero.
    for (let at = bytes.length; at < Math.min(room, VIRTIO_BLK_ID_BYTES); at++) writable.setByte(at, 0);
    answer.written = Math.min(room, VIRTIO_BLK_ID_BYTES);
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
  #applyRanges(readable: Segments, length: number): number {
    const size = virtioBlkRange.size;
    if (this.#store.readOnly || length === 0 || length % size !== 0 || length > this.#ranges.length)
      return VIRTIO_BLK_S_IOERR;
    readable.copyTo(this.#ranges, HEADER_SIZE, length);
    const discard = this.#header.type === VIRTIO_BLK_T_DISCARD;
    const range = virtioBlkRange.over(this.#ranges);
    for (let at = 0; at < length; at += size) {
      const fault = this.#rangeFault(range.at(at), discard);
      if (fault !== VIRTIO_BLK_S_OK) return fault;
    }
    for (let at = 0; at < length; at += size) {
      if (!this.#applyRange(range.at(at), discard)) return VIRTIO_BLK_S_IOERR;
    }
    return statusOf(discard || this.#stable());
  }

  #rangeFault(range: { sector: number; num_sectors: number; flags: number }, discard: boolean): number {
    const allowed = discard ? 0 : VIRTIO_BLK_RANGE_F_UNMAP;
    if (range.flags & ~allowed) return VIRTIO_BLK_S_UNSUPP;
    const tooLong = range.num_sectors > MAX_RANGE_SECTORS;
    return tooLong || this.#inside(range.sector, range.num_sectors) < 0
      ? VIRTIO_BLK_S_IOERR
      : VIRTIO_BLK_S_OK;
  }

  #applyRange(range: { sector: number; num_sectors: number; flags: number }, discard: boolean): boolean {
    const offset = range.sector * SECTOR_SIZE;
    const length = range.num_sectors * SECTOR_SIZE;
    if (discard) return this.#store.discard(offset, length) === 'ok';
    return this.#store.writeZeroes(offset, length, (range.flags & VIRTIO_BLK_RANGE_F_UNMAP) !== 0) === 'ok';
  }
}

function statusOf(ok: boolean): number {
  return ok ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}
