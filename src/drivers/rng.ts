// Entropy driver (virtio 1.3 §5.4). What the device sends is one source among others: whoever uses it mixes
// it into a pool of his own and never relies on it alone.

import { VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { BufferList } from '../virtqueue/buffer-list.ts';
import { ADDED, DMA_EXHAUSTED } from '../virtqueue/driver-queue.ts';
import { Driver } from './driver.ts';
import type { GuestDevice } from './guest.ts';
import { DeviceFailed, VirtioDriver } from './virtio-driver.ts';

const QUEUE_SIZE = 8;
/** A device may answer with less than was asked for, but not for ever with nothing (case B17). */
const MAX_EMPTY_ANSWERS = 8;

/** An entropy source. Whoever runs the guest calls `poll` and `interrupt`. */
export class RngDriver extends Driver {
  /** One page, used by one request at a time; another one when the backend does not let go of it. */
  #page: number;
  #pending: { readonly length: number; readonly resolve: (length: number) => void } | undefined;
  #reading: Promise<unknown> = Promise.resolve();

  /** Starts the device. Throws DeviceRefused when it is unusable. */
  constructor(guest: GuestDevice) {
    super(new VirtioDriver(guest, VIRTIO_ID_RNG, 0n));
    const page = guest.memory.allocatePages(1);
    if (page === undefined) throw this.driver.refuse('the guest has no memory for the entropy buffer');
    this.#page = page;
    this.driver.onFailure = () => {
      this.#withdraw();
      this.#finish(-1);
    };
    this.driver.onStop = () => this.#withdraw();
    this.driver.onRestart = () => this.#askAgain();
    try {
      this.driver.start(1, QUEUE_SIZE);
    } catch (error) {
      guest.memory.freePages(page, 1);
      throw error;
    }
  }

  override get busy(): boolean {
    return this.#pending !== undefined;
  }

  /** Requests that the device has: one at most. */
  override get inFlight(): number {
    return this.driver.running ? this.driver.queues[0].inFlight : 0;
  }

  /** Exactly `length` random bytes. Rejects with DeviceFailed when the device does not deliver them. */
  read(length: number): Promise<Uint8Array> {
    const result = this.#reading.then(() => this.#fill(new Uint8Array(length)));
    this.#reading = result.catch(() => undefined);
    return result;
  }

  /** Takes what the device has completed. Returns how much that was. */
  override poll(): number {
    // It waits for a reference of another device of the guest.
    if (this.busy && this.inFlight === 0) this.#askAgain();
    return this.driver.guard(() => {
      const queue = this.driver.queues[0];
      if (queue.poll() < 0) return 0;
      if (queue.lastStillShared) {
        // What the backend can still rewrite is no entropy.
        this.#changePage();
        this.driver.relieve();
        this.#askAgain();
      } else this.#finish(queue.lastLength);
      return 1;
    }, 0);
  }

  /** Stops the device. Returns whether all pages could be taken back from the backend. */
  override close(): boolean {
    const clean = this.detach('the entropy device');
    // While the backend still maps it, the quarantine holds it too.
    this.driver.guest.memory.freePages(this.#page, 1);
    return clean;
  }

  async #fill(bytes: Uint8Array): Promise<Uint8Array> {
    let empty = 0;
    for (let done = 0; done < bytes.length; ) {
      const got = await this.#request(Math.min(bytes.length - done, XEN_PAGE_SIZE));
      if (got < 0) throw new DeviceFailed(this.failure ?? 'the entropy request could not be made');
      if (got === 0 && ++empty === MAX_EMPTY_ANSWERS)
        throw new DeviceFailed(`the entropy device answered ${empty} times with nothing`);
      bytes.set(this.driver.guest.memory.bytes(this.#page, got), done);
      done += got;
    }
    return bytes;
  }

  /** One request; resolves to the bytes received, or -1. */
  #request(length: number): Promise<number> {
    return new Promise((resolve) => {
      if (this.failure !== undefined) {
        resolve(-1);
        return;
      }
      this.#pending = { length, resolve };
      this.driver.guest.waiting();
      this.#askAgain();
    });
  }

  /**
   * Puts the request that is pending on the queue, if the device can be asked. It waits while other devices of the
   * guest may give a reference back.
   */
  #askAgain(): void {
    if (this.#pending === undefined || !this.driver.running) return;
    const buffers = new BufferList().addWritable(this.#page, this.#pending.length);
    const outcome = this.driver.guard(() => this.driver.queues[0].add(buffers, 0), -1);
    if (outcome === ADDED) this.driver.kick(0);
    else if (outcome !== DMA_EXHAUSTED || !this.driver.guest.anyInFlight()) this.#finish(-1);
  }

  #withdraw(): void {
    for (const queue of this.driver.queues)
      while (queue.abandon() >= 0) if (queue.lastStillShared) this.#changePage();
  }

  /** Leaves the page to the quarantine. */
  #changePage(): void {
    const { memory } = this.driver.guest;
    const page = memory.allocatePages(1);
    if (page === undefined) {
      this.driver.fail('the guest has no memory for another entropy buffer');
      return;
    }
    memory.freePages(this.#page, 1);
    this.#page = page;
  }

  #finish(length: number): void {
    const pending = this.#pending;
    this.#pending = undefined;
    pending?.resolve(length);
  }
}
