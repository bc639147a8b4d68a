// Waiting for many file descriptors at once, and eventfds, by which threads and virtual machines wake each
// other. After libc.ts.

import type { Arena, Scratch } from './arena.ts';
import { checked, type Libc } from './libc.ts';

const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
export const EPOLLIN = 1;
export const EPOLLOUT = 4;
const EPOLLET = 0x80000000;
/** struct epoll_event is packed on x86-64 and padded elsewhere (sys/epoll.h). */
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = EVENT_SIZE - 8;
const EFD_CLOEXEC_NONBLOCK = 0x80800;
/** Descriptors told of in one wait; the others come in the next. */
const BATCH = 64;
const EINTR = 4;
const EOPNOTSUPP = 95;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0x800;
const RWF_NOWAIT = 8;
/** For preadv2: not from a place in a file. */
const STREAM = -1;

/** Waits until a descriptor can be read, or written. */
export class Epoll {
  readonly fd: number;
  readonly #libc: Libc;
  readonly #events: Scratch;
  readonly #tokens = new Uint32Array(BATCH);

  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#events = arena.take(BATCH * EVENT_SIZE);
    this.fd = checked(libc, 'epoll_create1', libc.epoll_create1(EPOLL_CLOEXEC), 'waiting for descriptors');
  }

  /**
   * Tells of `fd`, as `token`, whenever it can be read or its other end is gone. Throws SystemError, for a file of a
   * disk (EPERM) or what is no descriptor: a frontend can send either.
   */
  add(fd: number, token: number): void {
    this.watch(fd, token, EPOLLIN);
  }

  /**
   * Tells of `fd`, as `token`, once for each time that something is written to it; nobody has to read it, so a peer
   * that reads it itself, or has made it block, keeps nobody waiting.
   */
  addEdges(fd: number, token: number): void {
    this.watch(fd, token, EPOLLIN | EPOLLET);
  }

  /** Tells of `fd`, as `token`, while one of `events` is so; of the hangup of its other end also where none is given. */
  watch(fd: number, token: number, events: number): void {
    this.#control(EPOLL_CTL_ADD, fd, token, events);
  }

  /** Tells of `fd`, which is watched, while one of other `events` is so. */
  change(fd: number, token: number, events: number): void {
    this.#control(EPOLL_CTL_MOD, fd, token, events);
  }

  #control(operation: number, fd: number, token: number, events: number): void {
    const { view, address } = this.#events;
    view.setUint32(0, events >>> 0, true);
    view.setUint32(DATA_OFFSET, token, true);
    view.setUint32(DATA_OFFSET + 4, 0, true);
    checked(this.#libc, 'epoll_ctl', this.#libc.epoll_ctl(this.fd, operation, fd, address), 'watching');
  }

  remove(fd: number): void {
    const result = this.#libc.epoll_ctl(this.fd, EPOLL_CTL_DEL, fd, this.#events.address);
    checked(this.#libc, 'epoll_ctl', result, 'watching no longer');
  }

  /**
   * Waits up to `milliseconds`, -1 for ever; 0 only looks. Calls `ready` with the token of each descriptor that
   * can be read; one that `ready` removes may still be told of, once. Returns how many those were.
   */
  wait(milliseconds: number, ready: (token: number) => void): number {
    const { view } = this.#events;
    const count = this.#waitOut(milliseconds);
    // All of them first: `ready` may use the scratch memory itself.
    for (let i = 0; i < count; i++) this.#tokens[i] = view.getUint32(i * EVENT_SIZE + DATA_OFFSET, true);
    for (let i = 0; i < count; i++) ready(this.#tokens[i]);
    return count;
  }

  close(): void {
    this.#libc.close(this.fd);
  }

  /** A signal, such as the one of a child that has ended, is no reason to wait for less long. */
  #waitOut(milliseconds: number): number {
    const end = milliseconds > 0 ? performance.now() + milliseconds : 0;
    for (let left = milliseconds; ; ) {
      const count = this.#libc.epoll_wait(this.fd, this.#events.address, BATCH, left);
      if (count >= 0) return count;
      if (this.#libc.errno() !== EINTR)
        return checked(this.#libc, 'epoll_wait', count, 'waiting for descriptors');
      if (milliseconds > 0) left = Math.max(0, Math.ceil(end - performance.now()));
    }
  }
}

/** Makes an eventfd; reading and writing it never blocks. */
export function newEventfd(libc: Libc): number {
  return checked(libc, 'eventfd', libc.eventfd(0, EFD_CLOEXEC_NONBLOCK), 'a descriptor to wake with');
}

/**
 * Makes reading and writing a descriptor of a peer's never block, for one that is full would hold up all whom this
 * thread serves. Throws SystemError for what is no descriptor.
 */
export function makeNonBlocking(libc: Libc, fd: number): void {
  const about = "a descriptor of the peer's";
  const flags = checked(libc, 'fcntl', libc.fcntl(fd, F_GETFL, 0), about);
  checked(libc, 'fcntl', libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK), about);
}

/** Rings and clears eventfds of others, with one piece of memory for all of them. */
export class Eventfds {
  readonly #libc: Libc;
  readonly #one: Scratch;
  readonly #count: Scratch;
  readonly #vector: Scratch;

  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#one = arena.take(8);
    this.#one.view.setUint32(0, 1, true);
    this.#count = arena.take(8);
    this.#vector = arena.take(16);
    this.#vector.view.setBigUint64(0, BigInt(this.#count.address), true);
    this.#vector.view.setUint32(8, 8, true);
  }

  /** Adds one. A full counter (EAGAIN) has woken its reader already; a descriptor that is none is the peer's loss. */
  ring(fd: number): void {
    this.#libc.write(fd, this.#one.address, 8);
  }

  /**
   * Sets it to zero. Never blocks, also where its owner has made it blocking and reads it at the same time; kernels
   * that cannot promise this for the kind of descriptor (EOPNOTSUPP) read it as it is.
   *
   * @returns whether anybody had rung it
   */
  clear(fd: number): boolean {
    const length = this.#libc.preadv2(fd, this.#vector.address, 1, STREAM, RWF_NOWAIT);
    if (length >= 0 || this.#libc.errno() !== EOPNOTSUPP) return length === 8;
    return this.#libc.read(fd, this.#count.address, 8) === 8;
  }
}
