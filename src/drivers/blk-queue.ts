// Requests of a block driver on one queue (virtio 1.3 §5.2.6): the hot path. Nothing is allocated for a
// request but what its caller hands in. After blk.ts, before virtqueue/driver-queue.ts.

import {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_IN,
  virtioBlkRequestHeader,
} from '../abi/virtio-blk.ts';
import { BufferList } from '../virtqueue/buffer-list.ts';
import { ADDED, DMA_EXHAUSTED, type DriverQueue, QUEUE_FULL } from '../virtqueue/driver-queue.ts';
import type { GuestDevice } from './guest.ts';

const HEADER_SIZE = virtioBlkRequestHeader.size;
/** Header and status byte of one request, allocated together as Linux's virtio_blk has them. */
const REQUEST_SIZE = HEADER_SIZE + 1;
/** What no device writes: the status is not there yet. */
const NO_STATUS = 0xff;
/** Buffers of a request beside its data: header and status. */
const FRAMING_BUFFERS = 2;

/** Called with a VIRTIO_BLK_S_ status when a request is over and its buffer is the caller's again. */
export type RequestDone = (status: number) => void;

const nobody: RequestDone = () => undefined;

/** A queue of block requests. */
export class BlkQueue {
  readonly #queue: DriverQueue;
  readonly #guest: GuestDevice;
  /** Guest-physical address of each request's header and status, by token. */
  readonly #requests: number[] = [];
  readonly #free: number[] = [];
  readonly #done: RequestDone[] = [];
  /** Bytes that the device must have written before a success is believed. */
  readonly #expected: number[] = [];
  readonly #traceIds: number[] = [];
  readonly #header;
  readonly #buffers = new BufferList();
  readonly #maxBuffers: number;
  readonly #isIdle: () => boolean;
  /** A completed request whose buffer the device still reaches, seen since the last look. */
  stillShared = false;

  /**
   * @param maxSegments most buffers of data in a request
   * @param isIdle whether nothing is in flight on any queue of the device
   */
  constructor(queue: DriverQueue, guest: GuestDevice, maxSegments: number, isIdle: () => boolean) {
    this.#queue = queue;
    this.#guest = guest;
    this.#maxBuffers = Math.min(queue.maxBuffers, maxSegments + FRAMING_BUFFERS);
    this.#isIdle = isIdle;
    this.#header = virtioBlkRequestHeader.over(guest.memory.region.u8);
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /**
   * Puts a request on the queue; the caller notifies the device afterwards.
   *
   * @param data guest-physical address of the data, and `length` its bytes, 0 for none
   * @param done called from `poll`; not before this returns
   * @returns ADDED, QUEUE_FULL or DMA_EXHAUSTED, see virtqueue/driver-queue.ts
   */
  submit(
    type: number,
    sector: number,
    data: number,
    length: number,
    reads: boolean,
    done: RequestDone,
  ): number {
    if (!this.#queue.hasRoom(FRAMING_BUFFERS + (length > 0 ? 1 : 0))) return QUEUE_FULL;
    const token = this.#takeToken();
    if (token < 0) return DMA_EXHAUSTED;
    const request = this.#requests[token];
    const offset = this.#guest.memory.offset(request, REQUEST_SIZE);
    const header = this.#header.at(offset);
    header.type = type;
    header.reserved = 0;
    header.sector = sector;
    this.#guest.memory.region.u8[offset + HEADER_SIZE] = NO_STATUS;
    const buffers = this.#buffers.clear().addReadable(request, HEADER_SIZE);
    if (length > 0) {
      if (reads) buffers.addWritable(data, length);
      else buffers.addReadable(data, length);
    }
    buffers.addWritable(request + HEADER_SIZE, 1);
    const { tracer, domain, device } = this.#guest;
    const id = tracer.enabled ? this.#guest.nextRequestId() : 0;
    if (tracer.enabled) tracer.requestBegin(domain, device, id, type, length);
    const outcome = this.#add(token);
    if (outcome !== ADDED) {
      if (tracer.enabled) tracer.requestEnd(domain, device, id, NO_STATUS);
      this.#free.push(token);
      return outcome;
    }
    this.#done[token] = done;
    this.#expected[token] = type === VIRTIO_BLK_T_IN ? length + 1 : 1;
    this.#traceIds[token] = id;
    return ADDED;
  }

  /** Finishes what the device has completed. Returns how many requests that were. */
  poll(): number {
    let finished = 0;
    for (let token = this.#queue.poll(); token >= 0; token = this.#queue.poll()) {
      // A result that the backend can still rewrite is none.
      const shared = this.#queue.lastStillShared;
      this.stillShared ||= shared;
      this.#finish(token, shared ? VIRTIO_BLK_S_IOERR : this.#statusOf(token));
      finished++;
    }
    return finished;
  }

  /** After a reset of the device: fails whatever was under way. */
  abandon(): void {
    for (let token = this.#queue.abandon(); token >= 0; token = this.#queue.abandon()) {
      this.stillShared ||= this.#queue.lastStillShared;
      this.#finish(token, VIRTIO_BLK_S_IOERR);
    }
  }

  /** Gives the memory of headers and statuses back. Not while the device can still reach any of it. */
  close(): void {
    for (const request of this.#requests) this.#guest.heap.free(request, REQUEST_SIZE);
    this.#requests.length = 0;
    this.#free.length = 0;
  }

  /** Adds the request; with its data in pieces where no completion of the device will ever make room for it. */
  #add(token: number): number {
    const buffers = this.#buffers;
    let outcome = this.#queue.add(buffers, token);
    if (outcome !== DMA_EXHAUSTED || !this.#isIdle()) return outcome;
    while (outcome === DMA_EXHAUSTED && buffers.count < this.#maxBuffers) {
      if (!buffers.split(this.#queue.lastRefused)) return DMA_EXHAUSTED;
      outcome = this.#queue.add(buffers, token);
    }
    return outcome;
  }

  #takeToken(): number {
    if (this.#free.length > 0) return this.#free.pop()!;
    const request = this.#guest.heap.allocate(REQUEST_SIZE);
    if (request === undefined) return -1;
    this.#done.push(nobody);
    return this.#requests.push(request) - 1;
  }

  /** The status byte, read once; a success that the device cannot have meant is an I/O error (B3, B14). */
  #statusOf(token: number): number {
    const { memory } = this.#guest;
    const status = memory.region.u8[memory.offset(this.#requests[token] + HEADER_SIZE, 1)];
    if (status === VIRTIO_BLK_S_UNSUPP) return status;
    const complete = this.#queue.lastLength >= this.#expected[token];
    return status === VIRTIO_BLK_S_OK && complete ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
  }

  #finish(token: number, status: number): void {
    const done = this.#done[token];
    this.#done[token] = nobody;
    this.#free.push(token);
    const { tracer, domain, device } = this.#guest;
    if (tracer.enabled) tracer.requestEnd(domain, device, this.#traceIds[token], status);
    done(status);
  }
}
