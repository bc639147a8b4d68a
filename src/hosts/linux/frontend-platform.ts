// The machine of a vhost-user frontend: sockets that carry descriptors, and eventfds. After libc.ts and fd-socket.ts;
// the port is transports/vhost-user/frontend-port.ts.

import { performance } from 'node:perf_hooks';
import type { FrontendPlatform, Incoming } from '../../transports/vhost-user/frontend-port.ts';
import type { Arena, Scratch } from './arena.ts';
import { Epoll, Eventfds, newEventfd } from './epoll.ts';
import { FdSocket } from './fd-socket.ts';
import { checked, type Libc } from './libc.ts';
import { PeerEventfds } from './peer-eventfds.ts';

/** Longest piece of a message that is read or sent at a time. */
const MOST = 4096 + 64;
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0x80001;

/** The machine for one connection. */
export class LinuxFrontendPlatform implements FrontendPlatform {
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #sockets = new Map<number, FdSocket>();
  readonly #eventfds: Eventfds;
  /** Rings those that the backend shares. */
  readonly #peers: PeerEventfds;
  readonly #pair: Scratch;
  readonly #waiting: Epoll;

  /**
   * Throws SystemError, with nothing open, when this process has no descriptor left.
   *
   * @param arena scratch memory, 16 KiB of it, for as long as this object is used
   */
  constructor(libc: Libc, arena: Arena) {
    this.#libc = libc;
    this.#arena = arena;
    this.#eventfds = new Eventfds(libc, this.#arena);
    this.#pair = this.#arena.take(8);
    this.#waiting = new Epoll(libc, this.#arena);
    try {
      this.#peers = new PeerEventfds(libc, this.#arena);
    } catch (error) {
      this.#waiting.close();
      throw error;
    }
  }

  now(): number {
    return performance.now();
  }

  receive(socket: number, room: Uint8Array, milliseconds: number): Incoming {
    const from = this.#socket(socket);
    const there = from.receive(room, false);
    if (there.length >= 0 || milliseconds === 0) return there;
    this.#waiting.add(socket, 0);
    this.#waiting.wait(Math.ceil(milliseconds), () => undefined);
    this.#waiting.remove(socket);
    return from.receive(room, false);
  }

  send(socket: number, bytes: Uint8Array, fds: readonly number[]): boolean {
    return this.#socket(socket).send(bytes, fds);
  }

  socketPair(): readonly [number, number] {
    const { address, view } = this.#pair;
    const made = this.#libc.socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, address);
    checked(this.#libc, 'socketpair', made, "a socket for the backend's requests");
    return [view.getInt32(0, true), view.getInt32(4, true)];
  }

  newEvent(): number {
    return newEventfd(this.#libc);
  }

  /** Does not wait either, however full the backend has made the count. */
  signal(event: number): void {
    this.#peers.ring(event);
  }

  /** Does not wait even where the backend, which shares the eventfd, has made it one that does. */
  takeSignal(event: number): boolean {
    return this.#eventfds.clear(event);
  }

  close(fd: number): void {
    this.#sockets.delete(fd);
    this.#libc.close(fd);
  }

  /** Ends the use of this object. */
  release(): void {
    this.#waiting.close();
    this.#peers.close();
  }

  #socket(fd: number): FdSocket {
    const known = this.#sockets.get(fd);
    if (known !== undefined) return known;
    const socket = new FdSocket(this.#libc, this.#arena, fd, MOST);
    this.#sockets.set(fd, socket);
    return socket;
  }
}
