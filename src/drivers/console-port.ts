// One port of a console as programs in the guest use it (virtio 1.3 §5.3.6): two streams of bytes. After console.ts,
// before page-queues.ts.

import { type ConsoleSize, consoleQueueOf } from '../abi/virtio-console.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { Inbox, Outbox } from './page-queues.ts';
import { DeviceFailed, type VirtioDriver } from './virtio-driver.ts';

/** Pages for the device to fill, with those that nobody has read yet: it sends no more than that ahead (B16). */
const RECEIVE_BUFFERS = 4;

/** Something that a program writes. */
interface Write {
  readonly bytes: Uint8Array;
  /** Bytes that the device has taken. */
  taken: number;
  resolve(): void;
  reject(reason: DeviceFailed): void;
}

/**
 * A port. Open it, unless it is a console, which is open; then read and write: what the host does not take makes `write` wait, what is not read makes the
 * host wait. Over a reset or a move to another backend the streams go on; what had been sent and was not reported as
 * taken is sent again.
 */
export class GuestConsolePort {
  readonly id: number;
  /** As the device calls it; unprintable characters are replaced. Empty until that is known. */
  name = '';
  /** Whether it is for a person at a terminal. */
  isConsole = false;
  /** The terminal's, if that is known. */
  size: ConsoleSize | undefined;
  /** Whether anybody is at the host's end: `write` waits until then. */
  hostOpen = false;
  /** Whether the device has the port now. */
  present = false;
  /** Called when `size` is another. */
  onResize: (size: ConsoleSize) => void = () => undefined;

  readonly #driver: VirtioDriver;
  readonly #changed: () => void;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  #isOpen = false;
  readonly #received: Uint8Array[] = [];
  readonly #readers: ((bytes: Uint8Array | undefined) => void)[] = [];
  readonly #writes: Write[] = [];
  /** What the outbox carries, and how much of it. */
  #sending: { readonly write: Write; readonly length: number } | undefined;

  /** @param changed to be called when there is something to do, outside of `move` */
  constructor(id: number, driver: VirtioDriver, changed: () => void) {
    this.id = id;
    this.#driver = driver;
    this.#changed = changed;
    this.#inbox = new Inbox(driver, consoleQueueOf(id), RECEIVE_BUFFERS);
    this.#outbox = new Outbox(driver, consoleQueueOf(id) + 1);
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether something was written that the device has not taken. */
  get busy(): boolean {
    return this.#writes.length > 0;
  }

  open(): void {
    this.#isOpen = true;
    this.#changed();
  }

  /** Closes the guest's end: what was not read is dropped, writes that are not over fail. */
  close(): void {
    this.#isOpen = false;
    this.#received.length = 0;
    this.end(`port ${this.id} of the console was closed`);
    this.#changed();
  }

  /**
   * Writes all of `bytes`, which must not change until then. Resolves when the device has taken them. Rejects with
   * DeviceFailed when the port is not open, or the device does not have it any more: some may have been taken.
   */
  write(bytes: Uint8Array): Promise<void> {
    if (!this.#isOpen || !this.present)
      return Promise.reject(
        new DeviceFailed(
          this.#driver.failure ?? `port ${this.id} of the console is ${this.present ? 'not open' : 'gone'}`,
        ),
      );
    if (bytes.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#writes.push({ bytes, taken: 0, resolve, reject });
      this.#driver.guest.waiting();
      this.#changed();
    });
  }

  /** The next bytes, at least one; undefined when the port is not open, or the device does not have it any more. */
  read(): Promise<Uint8Array | undefined> {
    const bytes = this.#received.shift();
    if (bytes !== undefined) {
      this.#changed();
      return Promise.resolve(bytes);
    }
    if (!this.#isOpen || !this.present) return Promise.resolve(undefined);
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  /** Everything that `read` would return, until the end. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let bytes = await this.read(); bytes !== undefined; bytes = await this.read()) yield bytes;
  }

  /** The device has not got the port any more, or the guest closes it: ends both streams. */
  end(reason: string): void {
    for (const { reject } of this.#writes.splice(0)) reject(new DeviceFailed(reason));
    for (const resolve of this.#readers.splice(0)) resolve(undefined);
  }

  /** Moves what can be moved; may throw ProtocolViolation. Returns how many buffers the device is done with. */
  move(): number {
    const received = this.#receive();
    if (this.present) this.#inbox.post(RECEIVE_BUFFERS - this.#received.length);
    const taken = this.#outbox.poll() ? 1 : 0;
    if (taken > 0) this.#finishSending();
    this.#transmit();
    return received + taken;
  }

  /** After a reset: takes all buffers back. */
  withdraw(): void {
    this.#inbox.withdraw();
    this.#outbox.withdraw();
    this.#sending = undefined;
  }

  /** Gives the guest's memory back. */
  release(): void {
    this.#inbox.close();
    this.#outbox.close();
  }

  /** As many as there are buffers: a device that fills them without end does not keep others waiting. */
  #receive(): number {
    let count = 0;
    for (; count < RECEIVE_BUFFERS; count++) {
      const bytes = this.#inbox.take();
      if (bytes === undefined) break;
      if (bytes.length === 0 || !this.#isOpen) continue;
      const reader = this.#readers.shift();
      if (reader === undefined) this.#received.push(bytes);
      else reader(bytes);
    }
    return count;
  }

  #transmit(): void {
    const write = this.#writes[0];
    if (write === undefined || !this.hostOpen || this.#outbox.busy) return;
    const piece = write.bytes.subarray(write.taken, write.taken + XEN_PAGE_SIZE);
    if (this.#outbox.send(piece)) this.#sending = { write, length: piece.length };
  }

  #finishSending(): void {
    const sending = this.#sending;
    this.#sending = undefined;
    if (sending === undefined) return;
    const { write, length } = sending;
    write.taken += length;
    // Its writer may have been told that the port has gone.
    if (write.taken < write.bytes.length || this.#writes[0] !== write) return;
    this.#writes.shift();
    write.resolve();
  }
}
