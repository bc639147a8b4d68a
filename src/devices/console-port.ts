// One port of a console on its device's side (virtio 1.3 §5.3.6): bytes from the guest to the endpoint, as the
// endpoint takes them, and bytes to the guest, as the guest has buffers for them. After console.ts.

import type { ConsoleSize } from '../abi/virtio-console.ts';
import { assert } from '../errors.ts';
import type { Segments } from '../memory/segments.ts';
import type { DeviceHost } from '../virtio/device.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';
import { ByteRing } from './byte-ring.ts';
import type { ConsoleEndpoint, ConsoleLine } from './console-endpoint.ts';
import { HeldChains } from './held-chains.ts';

/** Bytes that wait for a guest without buffers, at most (cases D9, F33). */
export const CONSOLE_BACKLOG = 64 * 1024;
/** Bytes that an endpoint is given at once. */
const PIECE = 4096;

/** What a port's endpoint says that is not data. */
export type PortNotices = Pick<ConsoleLine, 'setOpen' | 'resize'>;

/** Data of one port. */
export class ConsolePort implements ConsoleLine {
  readonly #endpoint: ConsoleEndpoint;
  readonly #notices: PortNotices;
  readonly #backlog = new ByteRing(CONSOLE_BACKLOG);
  /** Buffers that the guest has posted, and what it has written and the endpoint has not taken. */
  readonly #empty = new HeldChains();
  readonly #full = new HeldChains();
  /** Bytes of the first full one that the endpoint has taken. */
  #taken = 0;
  /** The guest's bytes: copied once, so that they are the same for everyone who looks at them. */
  readonly #piece = new Uint8Array(PIECE);
  #host: DeviceHost | undefined;
  #guestOpen = false;
  /** Whether the endpoint waits for room. */
  #refused = false;
  #moving = false;
  #moveAgain = false;
  /** Buffers of the guest's that could not be reached. */
  unreachable = 0;

  /** @param notices takes what the endpoint has to say to the guest's driver */
  constructor(endpoint: ConsoleEndpoint, notices: PortNotices) {
    this.#endpoint = endpoint;
    this.#notices = notices;
  }

  /** To be called once, when the notices can be taken. */
  connect(): void {
    this.#endpoint.connect(this);
  }

  /** The driver has started the device. */
  start(host: DeviceHost): void {
    this.#host = host;
  }

  /** The device was reset: everything that was under way is dropped. */
  stop(): void {
    this.#host = undefined;
    this.#empty.clear();
    this.#full.clear();
    this.#taken = 0;
    this.#backlog.clear();
    this.setGuestOpen(false);
    this.#tellRoom();
  }

  /** What the guest says of its end; it is sent nothing while that is closed. */
  setGuestOpen(open: boolean): void {
    if (open === this.#guestOpen) return;
    this.#guestOpen = open;
    this.#endpoint.opened(open);
    this.#move();
  }

  /** The guest has posted a buffer. */
  post(queue: DeviceQueue, chain: Chain): void {
    this.#hold(this.#empty, queue, chain);
  }

  /** The guest has written something. */
  receive(queue: DeviceQueue, chain: Chain): void {
    // What was taken of a chain is forgotten with its queue.
    if (this.#full.first === undefined) this.#taken = 0;
    this.#hold(this.#full, queue, chain);
  }

  send(bytes: Uint8Array): number {
    let sent = 0;
    for (let taken = -1; taken !== 0 && sent < bytes.length; sent += taken) {
      taken = this.#backlog.push(bytes.subarray(sent));
      this.#move();
    }
    if (sent < bytes.length) this.#refused = true;
    return sent;
  }

  resume(): void {
    this.#move();
  }

  setOpen(open: boolean): void {
    this.#notices.setOpen(open);
  }

  resize(size: ConsoleSize): void {
    this.#notices.resize(size);
  }

  /** A buffer that was not granted, or not so, carries nothing. */
  #hold(held: HeldChains, queue: DeviceQueue, chain: Chain): void {
    if (chain.fault !== 0) {
      this.unreachable++;
      queue.complete(chain, 0, 0);
      return;
    }
    held.add(queue, chain);
    this.#move();
  }

  /** Moves what can be moved. What an endpoint asks for meanwhile is done afterwards, not in the middle. */
  #move(): void {
    this.#moveAgain = true;
    if (this.#moving) return;
    this.#moving = true;
    try {
      while (this.#moveAgain && this.#host !== undefined) {
        this.#moveAgain = false;
        this.#deliver(this.#host);
        this.#collect(this.#host);
        this.#tellRoom();
      }
    } finally {
      this.#moving = false;
    }
  }

  /** From the backlog to the guest's buffers. */
  #deliver(host: DeviceHost): void {
    while (this.#guestOpen && this.#backlog.length > 0) {
      const chain = this.#empty.first;
      if (chain === undefined) return;
      const written = this.#fill(chain.writable);
      // What did not arrive goes into the next buffer.
      if (this.#empty.complete(0, written, host)) this.#backlog.drop(written);
      else this.unreachable++;
    }
  }

  #fill(writable: Segments): number {
    const length = Math.min(writable.byteLength, this.#backlog.length);
    for (let done = 0; done < length; ) {
      const piece = this.#backlog.peek(done, length - done);
      writable.copyFrom(piece, done);
      done += piece.length;
    }
    return length;
  }

  /** From the guest's buffers to the endpoint. */
  #collect(host: DeviceHost): void {
    for (let chain = this.#full.first; chain !== undefined; chain = this.#full.first) {
      const { readable } = chain;
      const length = Math.min(readable.byteLength - this.#taken, PIECE);
      const taken = length === 0 ? 0 : this.#offer(readable, length);
      this.#taken += taken;
      if (taken < length) return;
      if (this.#taken < readable.byteLength) continue;
      this.#taken = 0;
      this.#full.complete(readable.byteLength, 0, host);
    }
  }

  #offer(readable: Segments, length: number): number {
    const piece = this.#piece.subarray(0, length);
    readable.copyTo(piece, this.#taken, length);
    const taken = this.#endpoint.take(piece);
    assert(taken >= 0 && taken <= length, 'an endpoint takes no more than it is given', taken, length);
    return taken;
  }

  #tellRoom(): void {
    if (!this.#refused || this.#backlog.full) return;
    this.#refused = false;
    this.#endpoint.hasRoom();
  }
}
