// Waiting for many file descriptors at once, and eventfds, by which threads and virtual machines wake each
// other. After libc.ts.

import type { Arena, Scratch } from './arena.ts';
import { checked, type Libc } from './libc.ts';

const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 1;
/** struct epoll_event is packed on x86-64 and padded elsewhere (sys/epoll.h). */
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = EVENT_SIZE - 8;
const EFD_CLOEXEC_NONBLOCK = 0x80800;
/** Descriptors told of in one wait; the others come in the next. */
const BATCH = 64;
const EINTR = 4;

/** Waits until a descriptor can be read. */
export class Epoll {
  readonly fd: number;
  readonly #libc: Libc;
  readonly #events: Scratch;

  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#events = arena.take(BATCH * EVENT_SIZE);
    this.fd = checked(libc, 'epoll_create1', libc.epoll_create1(EPOLL_CLOEXEC), 'waiting for descriptors');
  }

  /** Tells of `fd`, as `token`, whenever it can be read. */
  add(fd: number, token: number): void {
    const { view, address } = this.#events;
    view.setUint32(0, EPOLLIN, true);
    view.setUint32(DATA_OFFSET, token, true);
    view.setUint32(DATA_OFFSET + 4, 0, true);
    checked(this.#libc, 'epoll_ctl', this.#libc.epoll_ctl(this.fd, EPOLL_CTL_ADD, fd, address), 'watching');
  }

  remove(fd: number): void {
    const result = this.#libc.epoll_ctl(this.fd, EPOLL_CTL_DEL, fd, this.#events.address);
    checked(this.#libc, 'epoll_ctl', result, 'watching no longer');
  }

  /**
   * Waits up to `milliseconds`, -1 for ever; 0 only looks. Calls `ready` with the token of each descriptor that
   * can be read. Returns how many those were.
   */
  wait(milliseconds: number, ready: (token: number) => void): number {
    const { view, address } = this.#events;
    const count = this.#libc.epoll_wait(this.fd, address, BATCH, milliseconds);
    if (count < 0) {
      if (this.#libc.errno() === EINTR) return 0;
      checked(this.#libc, 'epoll_wait', count, 'waiting for descriptors');
    }
    // `ready` may use the scratch memory itself.
    const tokens = Array.from({ length: count }, (_, i) =>
      view.getUint32(i * EVENT_SIZE + DATA_OFFSET, true),
    );
    for (const token of tokens) ready(token);
    return count;
  }

  close(): void {
    this.#libc.close(this.fd);
  }
}

/** Makes an eventfd; reading and writing it never blocks. */
export function newEventfd(libc: Libc): number {
  return checked(libc, 'eventfd', libc.eventfd(0, EFD_CLOEXEC_NONBLOCK), 'a descriptor to wake with');
}

/** Rings and clears eventfds of others, with one piece of memory for all of them. */
export class Eventfds {
  readonly #libc: Libc;
  readonly #one: Scratch;
  readonly #count: Scratch;

  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#one = arena.take(8);
    this.#one.view.setUint32(0, 1, true);
    this.#count = arena.take(8);
  }

  /** Adds one. A full counter (EAGAIN) has woken its reader already; a descriptor that is none is the peer's loss. */
  ring(fd: number): void {
    this.#libc.write(fd, this.#one.address, 8);
  }

  /** Sets it to zero. Blocks if the peer made it so and it is zero. */
  clear(fd: number): void {
    this.#libc.read(fd, this.#count.address, 8);
  }
}
