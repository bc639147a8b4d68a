// A vhost-user frontend that says what a test wants it to say: messages are bytes with descriptors, over a real
// socket. It waits by blocking, since the backend has threads or a process of its own; and not for ever.

import assert from 'node:assert/strict';
import { VHOST_USER_VERSION, vhostUserHeader, vhostUserU64 } from '../../src/abi/vhost-user.ts';
import { Arena, type Scratch } from '../../src/hosts/linux/arena.ts';
import { Epoll, newEventfd } from '../../src/hosts/linux/epoll.ts';
import { connectTo, FdSocket } from '../../src/hosts/linux/fd-socket.ts';
import { type Libc, loadLibc } from '../../src/hosts/linux/libc.ts';
import {
  MAX_PAYLOAD,
  MessageReader,
  type VhostMessage,
} from '../../src/transports/vhost-user/message-reader.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const F_SETPIPE_SZ = 1031;
/** Longest time for which something may be waited for: a hang of the backend ends the test. Milliseconds. */
const LIMIT = 30_000;

/** A message as bytes. */
export function messageOf(request: number, payload: Uint8Array = new Uint8Array(0), flags = 0): Uint8Array {
  const bytes = new Uint8Array(vhostUserHeader.size + payload.length);
  const header = vhostUserHeader.over(bytes);
  Object.assign(header, { request, flags: VHOST_USER_VERSION | flags, size: payload.length });
  bytes.set(payload, vhostUserHeader.size);
  return bytes;
}

/** One end of a connection to a backend, and the descriptors that a frontend makes for it. */
export class VhostFrontend {
  readonly libc: Libc;
  readonly #arena: Arena;
  #socket: FdSocket;
  readonly #epoll: Epoll;
  #reader = new MessageReader();
  readonly #owned: number[] = [];
  #open = true;

  /** Connects to the socket at `path`. */
  constructor(path: string) {
    this.libc = loadLibc();
    this.#arena = new Arena(this.libc, 32 * 1024);
    this.#socket = this.#connect(path);
    this.#epoll = new Epoll(this.libc, this.#arena);
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** Connects anew, after the backend has died. What this side has open stays open. */
  reconnect(path: string): void {
    this.#socket.close();
    this.#socket = this.#connect(path);
    this.#reader = new MessageReader();
  }

  #connect(path: string): FdSocket {
    return new FdSocket(this.libc, this.#arena, connectTo(this.libc, this.#arena, path), MAX_PAYLOAD + 64);
  }

  /** Closes `fd` with the frontend. Returns it. */
  own(fd: number): number {
    this.#owned.push(fd);
    return fd;
  }

  /** Makes an eventfd. */
  eventfd(): number {
    return this.own(newEventfd(this.libc));
  }

  /** Makes an eventfd that blocks who writes to it, from now on and until somebody reads it. */
  fullEventfd(): number {
    const fd = this.own(this.libc.eventfd(0, 0));
    this.ring(fd, 2n ** 64n - 2n);
    return fd;
  }

  /** Makes a socket whose other end is this side's as well. */
  socket(): number {
    return this.socketPair()[0];
  }

  socketPair(): [number, number] {
    const place = this.#arena.take(8);
    this.libc.socketpair(AF_UNIX, SOCK_STREAM, 0, place.address);
    return this.#ownBoth(place);
  }

  /** Makes a pipe that blocks who writes to it: it is full. Returns the end for reading and the one for writing. */
  fullPipe(): [read: number, write: number] {
    const place = this.#arena.take(8);
    this.libc.pipe2(place.address, 0);
    const ends = this.#ownBoth(place);
    const page = this.#arena.take(4096);
    this.libc.fcntl(ends[1], F_SETPIPE_SZ, 4096);
    this.libc.write(ends[1], page.address, 4096);
    return ends;
  }

  #ownBoth({ view }: Scratch): [number, number] {
    return [this.own(view.getInt32(0, true)), this.own(view.getInt32(4, true))];
  }

  /** Sends bytes as they are. Returns false when the backend has gone, or takes nothing at the moment. */
  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    return this.#socket.send(bytes, fds);
  }

  /** Sends bytes on another socket of this side. */
  sendOn(fd: number, bytes: Uint8Array, fds: readonly number[]): void {
    const arena = new Arena(this.libc, 8192);
    new FdSocket(this.libc, arena, fd, 64).send(bytes, fds);
    arena.close();
  }

  send(request: number, payload?: Uint8Array, fds: readonly number[] = [], flags = 0): boolean {
    return this.sendBytes(messageOf(request, payload, flags), fds);
  }

  /** Sends a message and returns its answer. */
  ask(request: number, payload?: Uint8Array, fds: readonly number[] = [], flags = 0): VhostMessage {
    assert.ok(this.send(request, payload, fds, flags), `request ${request} is taken`);
    const answer = this.receive();
    assert.ok(answer !== undefined, `request ${request} is answered, the connection was closed instead`);
    assert.equal(answer.request, request);
    for (const fd of answer.fds) this.own(fd);
    return answer;
  }

  /** The number that a request is answered with. */
  askNumber(request: number, payload?: Uint8Array, fds?: readonly number[], flags?: number): bigint {
    return vhostUserU64.over(this.ask(request, payload, fds, flags).payload).value;
  }

  /** The next message of the backend's; undefined when it has closed the connection. */
  receive(): VhostMessage | undefined {
    for (;;) {
      this.waitFor(this.fd);
      const { length, fds } = this.#socket.receive(this.#reader.room, false);
      if (length === 0) return undefined;
      if (length < 0) continue;
      const message = this.#reader.advance(length, fds);
      if (message !== undefined) return message;
    }
  }

  /** Whether the backend closes the connection, whatever it still says before. */
  isClosed(): boolean {
    for (let message = this.receive(); message !== undefined; message = this.receive())
      this.#socket.closeAll(message.fds);
    return true;
  }

  /** Waits until `fd` can be read. */
  waitFor(fd: number): void {
    this.#epoll.add(fd, 0);
    try {
      const count = this.#epoll.wait(LIMIT, () => undefined);
      assert.equal(count, 1, `descriptor ${fd} has something within ${LIMIT / 1000} s`);
    } finally {
      this.#epoll.remove(fd);
    }
  }

  /** Takes what an eventfd of this side has counted; waits for it. */
  take(fd: number): void {
    this.waitFor(fd);
    const into = this.#arena.take(8);
    this.libc.read(fd, into.address, 8);
    this.#arena.giveBack(into);
  }

  /** Reads what there is of a pipe. */
  takeAll(fd: number): void {
    const into = this.#arena.take(4096);
    this.libc.read(fd, into.address, 4096);
    this.#arena.giveBack(into);
  }

  /** Adds `count` to an eventfd. */
  ring(fd: number, count = 1n): void {
    const from = this.#arena.take(8);
    from.view.setBigUint64(0, count, true);
    this.libc.write(fd, from.address, 8);
    this.#arena.giveBack(from);
  }

  /** Goes without a word, with all that it has open. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#socket.closeAll([this.fd, ...this.#owned.splice(0)]);
    this.#epoll.close();
    this.#arena.close();
  }
}
