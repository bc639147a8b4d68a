// What the devices of a thread have under way in the kernel, if they have asked for io_uring: handed over and taken back
// once in a turn. Used by queue-worker.ts and xen-wakes.ts.

import type { Arena } from '../hosts/linux/arena.ts';
import type { Epoll } from '../hosts/linux/epoll.ts';
import { IoUring } from '../hosts/linux/io-uring.ts';
import type { Libc } from '../hosts/linux/libc.ts';

/** The rings of one thread, made when a device asks for them first. */
export class KernelWork {
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #epoll: Epoll;
  readonly #token: number;
  #uring: IoUring | undefined;

  /** @param token by which `epoll` tells that something has ended */
  constructor(libc: Libc, arena: Arena, epoll: Epoll, token: number) {
    this.#libc = libc;
    this.#arena = arena;
    this.#epoll = epoll;
    this.#token = token;
  }

  /** Throws IoUringUnavailable. */
  readonly uring = (): IoUring => {
    if (this.#uring === undefined) {
      this.#uring = new IoUring(this.#libc, this.#arena);
      this.#epoll.add(this.#uring.wakeFd, this.#token);
    }
    return this.#uring;
  };

  /** Whether anything is under way. */
  get isBusy(): boolean {
    return this.#uring !== undefined && this.#uring.inFlight > 0;
  }

  /** Hands over what this turn has begun, and takes what has ended. Returns whether anything has. */
  endTurn(): boolean {
    const uring = this.#uring;
    if (uring === undefined || uring.inFlight === 0) return false;
    uring.submit();
    return uring.reap() > 0;
  }

  /** To be called before a sleep. Returns true when something has ended meanwhile: take that first. */
  arm(): boolean {
    return this.#uring !== undefined && this.#uring.inFlight > 0 && this.#uring.arm();
  }

  close(): void {
    // What is under way when the process ends is the kernel's to end.
    if (this.#uring?.inFlight === 0) this.#uring.close();
  }
}
