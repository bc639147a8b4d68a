// A thread that serves a console, for tests of its endpoints: turns are taken one by one, and the guest's end is in the
// hands of the test.

import assert from 'node:assert/strict';
import { readSync } from 'node:fs';
import type { ConsoleSize } from '../../abi/virtio-console.ts';
import type { ConsoleEndpoint, ConsoleLine } from '../../devices/console-endpoint.ts';
import type { ConsoleThread } from './console-stream.ts';
import { Epoll, EPOLLIN, makeNonBlocking } from './epoll.ts';
import { connectTo } from './fd-socket.ts';
import { arenaOfTest, libcOfTest } from './native.test.helper.ts';
import { Watches } from './watches.ts';

/** More turns than any test needs: one that never rests fails here. */
const MOST_TURNS = 10_000;
/** Milliseconds after which nothing will happen any more. */
const PATIENCE = 10_000;

export class TestThread implements ConsoleThread {
  readonly libc = libcOfTest();
  readonly arena = arenaOfTest(this.libc);
  readonly epoll = new Epoll(this.libc, this.arena);
  readonly watches = new Watches(this.libc, this.arena, this.epoll);

  /** Takes turns until there is nothing to do. Returns how many were needed. */
  rest(): number {
    for (let turns = 0; turns < MOST_TURNS; turns++) if (!this.turn()) return turns;
    assert.fail('the thread never comes to rest: it would not sleep');
  }

  /** Takes turns, and sleeps between them, until `isSo`: the kernel carries a terminal's bytes in its own time. */
  until(isSo: () => boolean): void {
    while (!isSo()) assert.ok(this.turn(PATIENCE), 'something happens');
  }

  /** One look, or a wait of some milliseconds. Returns whether there was anything to do. */
  turn(milliseconds = 0): boolean {
    return this.epoll.wait(milliseconds, (token) => assert.ok(this.watches.wake(token))) > 0;
  }

  /** The bytes that come from `fd`, which does not block, from now on. */
  hearing(fd: number): number[] {
    const heard: number[] = [];
    const watch = this.watches.open(fd, () => {
      const bytes = readNow(fd);
      if (bytes === 'end') watch.end();
      else for (const byte of bytes) heard.push(byte);
    });
    watch.want(EPOLLIN);
    return heard;
  }

  /** A client of the socket at `path`, which never blocks. */
  client(path: string): number {
    const fd = connectTo(this.libc, this.arena, path);
    makeNonBlocking(this.libc, fd);
    return fd;
  }

  close(): void {
    this.watches.close();
    this.epoll.close();
  }
}

/** The guest's end of a port: takes as much as the test allows. */
export class TestLine implements ConsoleLine {
  readonly received: number[] = [];
  readonly openings: boolean[] = [];
  readonly sizes: ConsoleSize[] = [];
  room = Number.POSITIVE_INFINITY;
  /** What the guest has written and the endpoint has not taken. */
  #unsent = new Uint8Array(0);
  readonly #endpoint: ConsoleEndpoint;
  #moving = false;
  #moveAgain = false;

  constructor(endpoint: ConsoleEndpoint) {
    this.#endpoint = endpoint;
    endpoint.connect(this);
  }

  /** The guest writes. Returns how many bytes have to wait. */
  write(bytes: Uint8Array): number {
    this.#unsent = Buffer.concat([this.#unsent, bytes]);
    this.resume();
    return this.#unsent.length;
  }

  /** Bytes that wait. */
  get waiting(): number {
    return this.#unsent.length;
  }

  /** What the endpoint asks for within `take` is done after it, as the device does it. */
  resume(): void {
    this.#moveAgain = true;
    if (this.#moving) return;
    this.#moving = true;
    while (this.#moveAgain && this.#unsent.length > 0) {
      const taken = this.#endpoint.take(this.#unsent.subarray(0, 4096));
      if (taken === 0) this.#moveAgain = false;
      this.#unsent = this.#unsent.slice(taken);
    }
    this.#moving = false;
  }

  /** The guest takes `count` bytes more. */
  allow(count: number): void {
    this.room = count;
    this.#endpoint.hasRoom();
  }

  send(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    for (const byte of bytes.subarray(0, taken)) this.received.push(byte);
    return taken;
  }

  setOpen(open: boolean): void {
    this.openings.push(open);
  }

  resize(size: ConsoleSize): void {
    this.sizes.push(size);
  }
}

/** What can be read from `fd` now; 'end' where the other end has gone. */
export function readNow(fd: number): Buffer | 'end' {
  const pieces: Buffer[] = [];
  const piece = Buffer.alloc(65_536);
  for (;;) {
    try {
      const length = readSync(fd, piece);
      if (length === 0) return pieces.length === 0 ? 'end' : Buffer.concat(pieces);
      pieces.push(Buffer.from(piece.subarray(0, length)));
    } catch (error) {
      assert.ok(error instanceof Error && 'code' in error && error.code === 'EAGAIN', String(error));
      return Buffer.concat(pieces);
    }
  }
}

/** Bytes that differ from place to place. */
export function numbered(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7) ^ (i >>> 8) ^ (i >>> 16)));
}
