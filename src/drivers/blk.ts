// Block driver (virtio 1.3 §5.2): a disk for the guest, over as many queues as the device has.
// What reads and writes comes in here; before blk-queue.ts.

import {
  SECTOR_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_RANGE_F_UNMAP,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  virtioBlkConfig,
  virtioBlkRange,
} from '../abi/virtio-blk.ts';
import { VIRTIO_ID_BLOCK } from '../abi/virtio.ts';
import { ADDED, DMA_EXHAUSTED } from '../virtqueue/driver-queue.ts';
import { BlkQueue, type BlkRequest, type RequestDone } from './blk-queue.ts';
import { DiskError, type GuestBuffer, type GuestDisk } from './disk.ts';
import { Driver } from './driver.ts';
import type { GuestDevice } from './guest.ts';
import { GuestBuffers } from './guest-buffers.ts';
import { VirtioDriver } from './virtio-driver.ts';

const SUPPORTED =
  VIRTIO_BLK_F_SEG_MAX |
  VIRTIO_BLK_F_RO |
  VIRTIO_BLK_F_BLK_SIZE |
  VIRTIO_BLK_F_FLUSH |
  VIRTIO_BLK_F_MQ |
  VIRTIO_BLK_F_DISCARD |
  VIRTIO_BLK_F_WRITE_ZEROES;

/** Header, data and status. */
const REQUEST_BUFFERS = 3;
const MAX_CAPACITY_SECTORS = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR_SIZE);

/** Fields that only a device with the feature has (§2.5.1), as far as the driver looks at them. */
const OPTIONAL_FIELDS = new Map<string, bigint>([
  ['seg_max', VIRTIO_BLK_F_SEG_MAX],
  ['num_queues', VIRTIO_BLK_F_MQ],
  ['max_discard_sectors', VIRTIO_BLK_F_DISCARD],
  ['max_write_zeroes_sectors', VIRTIO_BLK_F_WRITE_ZEROES],
]);

/** The configuration, with zeroes for what the device does not have. */
function readConfig(driver: VirtioDriver) {
  const fields = virtioBlkConfig.fields.filter(
    ({ name }) => name === 'capacity' || driver.has(OPTIONAL_FIELDS.get(name) ?? 0n),
  );
  const config = virtioBlkConfig.make();
  config.bytes.set(driver.guest.transport.readConfig(fields));
  return config;
}

/** How much of the device the driver uses. */
export interface BlkDriverOptions {
  /** Most queues to use. */
  readonly queues: number;
  /** Most descriptors in each. */
  readonly queueSize: number;
}

function noRoomFor(length: number): string {
  return (
    `no grant references or pages are free to share ${length} bytes of data with the device, not even in ` +
    'pieces: give the guest more (max_grant_frames, memory), or ask for less at a time'
  );
}

/** A disk behind virtio-blk. Whoever runs the guest calls `poll` and `interrupt`. */
export class BlkDriver extends Driver implements GuestDisk {
  readonly capacity: number;
  readonly readOnly: boolean;
  readonly canFlush: boolean;
  readonly canDiscard: boolean;
  readonly canWriteZeroes: boolean;
  readonly maxTransfer: number;

  readonly #queues: BlkQueue[];
  readonly #buffers: GuestBuffers;
  readonly #maxDiscard: number;
  readonly #maxWriteZeroes: number;
  /** Requests that are on no queue, oldest first: there was no room, or no device. */
  readonly #waiting: BlkRequest[] = [];
  #nextQueue = 0;
  #requests = 0;

  /** Starts the device. Throws DeviceRefused when it is unusable, or its configuration is nonsense (B10). */
  constructor(guest: GuestDevice, options: BlkDriverOptions) {
    const driver = new VirtioDriver(guest, VIRTIO_ID_BLOCK, SUPPORTED);
    super(driver);
    const config = readConfig(driver);
    if (config.capacity > MAX_CAPACITY_SECTORS)
      throw driver.refuse(
        `the disk claims ${config.capacity} sectors; at most ${MAX_CAPACITY_SECTORS} make sense`,
      );
    if (driver.has(VIRTIO_BLK_F_SEG_MAX) && config.seg_max === 0)
      throw driver.refuse('the disk claims that a request holds no data (seg_max 0)');
    const queues = driver.has(VIRTIO_BLK_F_MQ) ? Math.min(options.queues, config.num_queues) : 1;
    if (queues === 0) throw driver.refuse('the disk claims to have no queues (num_queues 0)');
    this.capacity = config.capacity * SECTOR_SIZE;
    this.readOnly = driver.has(VIRTIO_BLK_F_RO);
    this.canFlush = driver.has(VIRTIO_BLK_F_FLUSH);
    this.canDiscard = driver.has(VIRTIO_BLK_F_DISCARD) && config.max_discard_sectors > 0;
    this.canWriteZeroes = driver.has(VIRTIO_BLK_F_WRITE_ZEROES) && config.max_write_zeroes_sectors > 0;
    this.maxTransfer = guest.dma.maxMappingSize;
    this.#maxDiscard = config.max_discard_sectors * SECTOR_SIZE;
    this.#maxWriteZeroes = config.max_write_zeroes_sectors * SECTOR_SIZE;
    driver.onFailure = () => this.#failAll();
    driver.onStop = () => this.#withdrawAll();
    driver.inspect = () => this.#changeOf();
    driver.onRestart = () => this.#askAgain();
    driver.start(queues, options.queueSize);
    if (driver.queues.some((queue) => queue.maxBuffers < REQUEST_BUFFERS))
      throw driver.refuse(`the disk's queues hold less than a request of ${REQUEST_BUFFERS} buffers`);
    // Without the feature the device has not said that it takes more than one.
    const segments = driver.has(VIRTIO_BLK_F_SEG_MAX) ? config.seg_max : 1;
    const isIdle = () => this.inFlight === 0;
    this.#queues = driver.queues.map((queue) => new BlkQueue(queue, guest, segments, isIdle));
    this.#buffers = new GuestBuffers(guest.memory);
  }

  /** Requests on the queues. */
  override get inFlight(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.inFlight, 0);
  }

  /** Whether anything was asked for and is not answered. */
  override get busy(): boolean {
    return this.#waiting.length > 0 || this.inFlight > 0;
  }

  buffer(length: number): Promise<GuestBuffer> {
    if (length > this.maxTransfer)
      return Promise.reject(
        new DiskError('EINVAL', `a buffer of ${length} bytes; at most ${this.maxTransfer}`),
      );
    return this.#buffers.take(length);
  }

  read(offset: number, buffer: GuestBuffer, length: number): Promise<void> {
    return this.#transfer(VIRTIO_BLK_T_IN, offset, buffer, length);
  }

  write(offset: number, buffer: GuestBuffer, length: number): Promise<void> {
    if (this.readOnly) return Promise.reject(new DiskError('EROFS', 'the disk is read-only'));
    return this.#transfer(VIRTIO_BLK_T_OUT, offset, buffer, length);
  }

  async flush(): Promise<void> {
    if (this.canFlush) await this.#request(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
  }

  discard(offset: number, length: number): Promise<void> {
    if (!this.canDiscard) return Promise.reject(new DiskError('ENOTSUP', 'the disk has no discard'));
    return this.#ranges(VIRTIO_BLK_T_DISCARD, offset, length, this.#maxDiscard, 0);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    if (!this.canWriteZeroes) return Promise.reject(new DiskError('ENOTSUP', 'the disk has no write zeroes'));
    const flags = mayUnmap ? VIRTIO_BLK_RANGE_F_UNMAP : 0;
    return this.#ranges(VIRTIO_BLK_T_WRITE_ZEROES, offset, length, this.#maxWriteZeroes, flags);
  }

  /**
   * Asks for one request without a promise: the hot path of those who have many in flight.
   *
   * @param address guest-physical address of `length` bytes of data; the caller has checked the range
   * @param done called when it is over, with a VIRTIO_BLK_S_ status or -1; at once when it cannot be made
   */
  submit(type: number, sector: number, address: number, length: number, done: RequestDone): void {
    if (this.failure !== undefined) {
      done(-1);
      return;
    }
    const request = { order: this.#requests++, type, sector, address, length, done };
    if (this.#waiting.length > 0 || !this.#trySubmit(request)) this.#waiting.push(request);
    this.driver.guest.waiting();
  }

  /** Finishes what the device has completed, and fills the room that made. Returns how much that was. */
  override poll(): number {
    let finished = 0;
    for (const queue of this.#queues) finished += this.driver.guard(() => queue.poll(), 0);
    if (finished > 0) this.driver.relieve();
    // With nothing in flight, the requests wait for what other devices of the guest give back.
    if (this.#waiting.length > 0 && (finished > 0 || this.inFlight === 0)) this.#submitWaiting();
    return finished;
  }

  /**
   * Stops the device and gives back everything. Requests that are still under way fail.
   *
   * @returns whether all pages could be taken back from the backend; if not, the rest is in quarantine
   */
  override close(): boolean {
    const clean = this.detach('the disk');
    this.#buffers.close(this.failure ?? 'the disk was detached');
    // Memory that the backend still reaches is not given to anyone else.
    if (clean) this.release();
    return clean;
  }

  override release(): void {
    for (const queue of this.#queues) queue.close();
  }

  #transfer(type: number, offset: number, buffer: GuestBuffer, length: number): Promise<void> {
    const fault =
      this.#rangeFault(offset, length) ??
      (length > buffer.bytes.length ? 'longer than its buffer' : undefined);
    if (fault) return Promise.reject(new DiskError('EINVAL', `${length} bytes at ${offset}: ${fault}`));
    const address = this.driver.guest.memory.addressOf(buffer.bytes);
    return this.#request(type, offset / SECTOR_SIZE, address, length);
  }

  /** A discard or write zeroes request for each `most` bytes. */
  async #ranges(type: number, offset: number, length: number, most: number, flags: number): Promise<void> {
    const fault = this.#rangeFault(offset, length);
    if (fault) throw new DiskError('EINVAL', `${length} bytes at ${offset}: ${fault}`);
    const buffer = await this.#buffers.take(virtioBlkRange.size);
    try {
      for (let done = 0; done < length; done += most) {
        const range = virtioBlkRange.over(buffer.bytes);
        range.sector = (offset + done) / SECTOR_SIZE;
        range.num_sectors = Math.min(length - done, most) / SECTOR_SIZE;
        range.flags = flags;
        await this.#request(type, 0, buffer.address, virtioBlkRange.size);
      }
    } finally {
      buffer.release();
    }
  }

  #rangeFault(offset: number, length: number): string | undefined {
    if (offset % SECTOR_SIZE !== 0 || length % SECTOR_SIZE !== 0 || length <= 0) return 'no whole sectors';
    if (offset < 0 || offset + length > this.capacity) return `outside the disk of ${this.capacity} bytes`;
    return undefined;
  }

  #request(type: number, sector: number, address: number, length: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const done: RequestDone = (status) => {
        if (status === VIRTIO_BLK_S_OK) resolve();
        else if (this.failure !== undefined) reject(new DiskError('ENODEV', this.failure));
        else if (status === VIRTIO_BLK_S_UNSUPP)
          reject(new DiskError('ENOTSUP', 'the device does not know the request'));
        else if (status < 0) reject(new DiskError('ENOMEM', noRoomFor(length)));
        else reject(new DiskError('EIO', 'the device reports an I/O error'));
      };
      this.submit(type, sector, address, length, done);
    });
  }

  /** Tries the queues in turn. Returns false when the request has to wait. */
  #trySubmit(request: BlkRequest): boolean {
    if (!this.driver.running) return false;
    for (let tries = 0; tries < this.#queues.length; tries++) {
      const index = this.#nextQueue;
      this.#nextQueue = (index + 1) % this.#queues.length;
      const outcome = this.#queues[index].submit(request);
      if (outcome === ADDED) {
        this.driver.kick(index);
        return true;
      }
      // With nothing in flight on any device of the guest, no completion will ever make room.
      if (outcome === DMA_EXHAUSTED && !this.driver.guest.anyInFlight()) {
        request.done(-1);
        return true;
      }
    }
    return false;
  }

  #submitWaiting(): void {
    while (this.#waiting.length > 0 && this.#trySubmit(this.#waiting[0])) this.#waiting.shift();
  }

  /** Before all that waits already: requests are asked again in the order in which they were asked. */
  #withdrawAll(): void {
    const unfinished: BlkRequest[] = [];
    for (const queue of this.#queues) queue.withdraw(unfinished);
    this.#waiting.push(...unfinished);
    this.#waiting.sort((one, other) => one.order - other.order);
  }

  /** What has changed about the disk so that what was asked of it may not be asked again. */
  #changeOf(): string | undefined {
    const { capacity } = readConfig(this.driver);
    if (capacity * SECTOR_SIZE === this.capacity) return undefined;
    return `the disk came back with ${capacity * SECTOR_SIZE} bytes; it had ${this.capacity}`;
  }

  #askAgain(): void {
    const { queues, guest } = this.driver;
    for (const [index, queue] of this.#queues.entries()) queue.restart(queues[index], guest);
    this.#submitWaiting();
  }

  #failAll(): void {
    for (const queue of this.#queues ?? []) queue.abandon();
    for (const request of this.#waiting.splice(0)) request.done(-1);
  }
}
