// Entropy driver (virtio 1.3 §5.4). What the device sends is one source among others: whoever uses it mixes
// it into a pool of his own and never relies on it alone.

import { VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { BufferList } from '../virtqueue/buffer-list.ts';
import { ADDED } from '../virtqueue/driver-queue.ts';
import type { GuestDevice } from './guest.ts';
import { DeviceFailed, VirtioDriver } from './virtio-driver.ts';

const QUEUE_SIZE = 8;
/** A device may answer with less than was asked for, but not for ever with nothing (case B17). */
const MAX_EMPTY_ANSWERS = 8;

/** An entropy source. Whoever runs the guest calls `poll` and `interrupt`. */
export class RngDriver {
  readonly #driver: VirtioDriver;
  readonly #guest: GuestDevice;
  /** One page, used by one request at a time. */
  readonly #page: number;
  #pending: ((length: number) => void) | undefined;
  #reading: Promise<unknown> = Promise.resolve();

  /** Starts the device. Throws DeviceRefused when it is unusable. */
  constructor(guest: GuestDevice) {
    this.#guest = guest;
    this.#driver = new VirtioDriver(guest, VIRTIO_ID_RNG, 0n);
    const page = guest.memory.allocatePages(1);
    if (page === undefined) throw this.#driver.refuse('the guest has no memory for the entropy buffer');
    this.#page = page;
    this.#driver.onFailure = () => this.#finish(-1);
    try {
      this.#driver.start(1, QUEUE_SIZE);
    } catch (error) {
      guest.memory.freePages(page, 1);
      throw error;
    }
  }

  get failure(): string | undefined {
    return this.#driver.failure;
  }

  get holdsDevice(): boolean {
    return this.#driver.holdsDevice;
  }

  get busy(): boolean {
    return this.#pending !== undefined;
  }

  /** Exactly `length` random bytes. Rejects with DeviceFailed when the device does not deliver them. */
  read(length: number): Promise<Uint8Array> {
    const result = this.#reading.then(() => this.#fill(new Uint8Array(length)));
    this.#reading = result.catch(() => undefined);
    return result;
  }

  /** Takes what the device has completed. Returns how much that was. */
  poll(): number {
    return this.#driver.guard(() => {
      const queue = this.#driver.queues[0];
      if (queue.poll() < 0) return 0;
      if (queue.lastStillShared) this.#driver.fail('the backend still maps a buffer that it has completed');
      else this.#finish(queue.lastLength);
      return 1;
    }, 0);
  }

  interrupt(): void {
    if (this.#driver.takeInterrupt()) this.poll();
  }

  /** Stops using a device that does not answer: it is reset, and what was asked of it fails. */
  fail(reason: string): void {
    this.#driver.fail(reason);
  }

  /** Asks for an interrupt at the next completion. Returns true when there is one to poll for already. */
  arm(): boolean {
    return this.#driver.guard(() => this.#driver.queues[0].enableInterrupts(), false);
  }

  /** Stops the device. Returns whether all pages could be taken back from the backend. */
  close(): boolean {
    this.#driver.fail('the entropy device was detached');
    for (const queue of this.#driver.queues) while (queue.abandon() >= 0);
    const clean = this.#driver.close();
    // While the backend still maps it, the quarantine holds it too.
    this.#guest.memory.freePages(this.#page, 1);
    return clean;
  }

  release(): void {
    // Nothing of it is held back by `close`.
  }

  async #fill(bytes: Uint8Array): Promise<Uint8Array> {
    let empty = 0;
    for (let done = 0; done < bytes.length; ) {
      const got = await this.#request(Math.min(bytes.length - done, XEN_PAGE_SIZE));
      if (got < 0) throw new DeviceFailed(this.failure ?? 'the entropy request could not be made');
      if (got === 0 && ++empty === MAX_EMPTY_ANSWERS)
        throw new DeviceFailed(`the entropy device answered ${empty} times with nothing`);
      bytes.set(this.#guest.memory.bytes(this.#page, got), done);
      done += got;
    }
    return bytes;
  }

  /** One request; resolves to the bytes received, or -1. */
  #request(length: number): Promise<number> {
    return new Promise((resolve) => {
      const buffers = new BufferList().addWritable(this.#page, length);
      const outcome = this.#driver.guard(() => this.#driver.queues[0].add(buffers, 0), -1);
      if (outcome !== ADDED) {
        resolve(-1);
        return;
      }
      this.#pending = resolve;
      this.#driver.kick(0);
      this.#guest.waiting();
    });
  }

  #finish(length: number): void {
    const pending = this.#pending;
    this.#pending = undefined;
    pending?.(length);
  }
}
