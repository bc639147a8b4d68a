// Requests of a block driver on one queue (virtio 1.3 §5.2.6): the hot path. After blk.ts, before virtqueue/driver-queue.ts.

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

/** A request as its caller asked for it; kept until it is answered, for it may have to be asked again. */
export interface BlkRequest {
  /** Its place among all requests of the disk. */
  readonly order: number;
  /** VIRTIO_BLK_T_ */
  readonly type: number;
  readonly sector: number;
  /** Guest-physical address of the data, and its bytes; 0 for none. */
  readonly address: number;
  readonly length: number;
  /** Called from `poll`; not before `submit` returns. */
  readonly done: RequestDone;
}

/** A queue of block requests. */
export class BlkQueue {
  #queue: DriverQueue;
  #guest: GuestDevice;
  /** Guest-physical address of a header and a status for each token. */
  readonly #headers: number[] = [];
  #free: number[] = [];
  /** What is under way, by token. */
  readonly #underWay: BlkRequest[] = [];
  readonly #traceIds: number[] = [];
  #header;
  readonly #buffers = new BufferList();
  readonly #maxBuffers: number;
  readonly #isIdle: () => boolean;

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

  /** Goes on with another queue, after `withdraw`; the device and the guest's memory may be elsewhere. */
  restart(queue: DriverQueue, guest: GuestDevice): void {
    this.#queue = queue;
    this.#guest = guest;
    this.#header = virtioBlkRequestHeader.over(guest.memory.region.u8);
    this.#free = [...this.#headers.keys()].filter(
      (token) => !guest.memory.heldByOthers(this.#headers[token], REQUEST_SIZE),
    );
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /**
   * Puts a request on the queue; the caller notifies the device afterwards.
   *
   * @returns ADDED, QUEUE_FULL or DMA_EXHAUSTED, see virtqueue/driver-queue.ts
   */
  submit(request: BlkRequest): number {
    const { type, length } = request;
    if (!this.#queue.hasRoom(FRAMING_BUFFERS + (length > 0 ? 1 : 0))) return QUEUE_FULL;
    const token = this.#takeToken();
    if (token < 0) return DMA_EXHAUSTED;
    const place = this.#headers[token];
    const offset = this.#guest.memory.offset(place, REQUEST_SIZE);
    const header = this.#header.at(offset);
    header.type = type;
    header.reserved = 0;
    header.sector = request.sector;
    this.#guest.memory.region.u8[offset + HEADER_SIZE] = NO_STATUS;
    const buffers = this.#buffers.clear().addReadable(place, HEADER_SIZE);
    if (length > 0) {
      if (type === VIRTIO_BLK_T_IN) buffers.addWritable(request.address, length);
      else buffers.addReadable(request.address, length);
    }
    buffers.addWritable(place + HEADER_SIZE, 1);
    const { tracer, domain, device } = this.#guest;
    const id = tracer.enabled ? this.#guest.nextRequestId() : 0;
    if (tracer.enabled) tracer.requestBegin(domain, device, id, type, length);
    const outcome = this.#add(token);
    if (outcome !== ADDED) {
      if (tracer.enabled) tracer.requestEnd(domain, device, id, NO_STATUS);
      this.#free.push(token);
      return outcome;
    }
    this.#underWay[token] = request;
    this.#traceIds[token] = id;
    return ADDED;
  }

  /** Finishes what the device has completed. Returns how many requests that were. */
  poll(): number {
    let finished = 0;
    for (let token = this.#queue.poll(); token >= 0; token = this.#queue.poll()) {
      // A result that the backend can still rewrite is none.
      this.#finish(token, this.#queue.lastStillShared ? VIRTIO_BLK_S_IOERR : this.#statusOf(token));
      finished++;
    }
    return finished;
  }

  /** After a reset of the device: fails whatever was under way. */
  abandon(): void {
    for (let token = this.#queue.abandon(); token >= 0; token = this.#queue.abandon())
      this.#finish(token, VIRTIO_BLK_S_IOERR);
  }

  /**
   * After a reset of the device: takes back whatever was under way, without an answer to its caller. A request
   * whose own pages the device still reaches fails: they cannot be shared again before that has ended.
   */
  withdraw(into: BlkRequest[]): void {
    for (let token = this.#queue.abandon(); token >= 0; token = this.#queue.abandon()) {
      if (this.#queue.lastStillShared) this.#finish(token, VIRTIO_BLK_S_IOERR);
      else into.push(this.#end(token, NO_STATUS));
    }
  }

  /** Gives the memory of headers and statuses back, but for what the device can still reach. */
  close(): void {
    const { heap, memory } = this.#guest;
    for (const place of this.#headers)
      if (!memory.heldByOthers(place, REQUEST_SIZE)) heap.free(place, REQUEST_SIZE);
    this.#headers.length = 0;
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
    const place = this.#guest.heap.allocate(REQUEST_SIZE);
    if (place === undefined) return -1;
    return this.#headers.push(place) - 1;
  }

  /** The status byte, read once; a success that the device cannot have meant is an I/O error (B3, B14). */
  #statusOf(token: number): number {
    const { memory } = this.#guest;
    const status = memory.region.u8[memory.offset(this.#headers[token] + HEADER_SIZE, 1)];
    if (status === VIRTIO_BLK_S_UNSUPP) return status;
    const { type, length } = this.#underWay[token];
    // A success is believed when the device has written all of it.
    const complete = this.#queue.lastLength >= (type === VIRTIO_BLK_T_IN ? length + 1 : 1);
    return status === VIRTIO_BLK_S_OK && complete ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
  }

  #finish(token: number, status: number): void {
    this.#end(token, status).done(status);
  }

  /** Takes a request out of what is under way. */
  #end(token: number, status: number): BlkRequest {
    // A header and a status that the device still reaches are not used for another request.
    if (!this.#queue.lastStillShared) this.#free.push(token);
    const { tracer, domain, device } = this.#guest;
    if (tracer.enabled) tracer.requestEnd(domain, device, this.#traceIds[token], status);
    return this.#underWay[token];
  }
}
