// A console's port at a listening Unix socket: whoever connects is at its other end, one client at a time.
// Before console-stream.ts.

import { type BigIntStats, lstatSync, unlinkSync } from 'node:fs';
import type { ConsoleEndpoint } from '../../devices/console-endpoint.ts';
import { ConsoleStream, type ConsoleThread } from './console-stream.ts';
import { EPOLLIN, makeNonBlocking } from './epoll.ts';
import { acceptFrom, connectTo, listenOn } from './fd-socket.ts';
import { SystemError } from './libc.ts';
import type { Watch } from './watches.ts';

/** Clients refused in one turn, at most: more wait for the next. */
const TURN = 16;

/** A listening socket and its client. */
export class ConsoleSocket {
  /** Clients that found somebody else there. */
  refused = 0;
  readonly #thread: ConsoleThread;
  readonly #path: string;
  readonly #listening: number;
  readonly #own: BigIntStats;
  readonly #watch: Watch;
  readonly #stream: ConsoleStream;
  #client = -1;

  /**
   * Listens at `path`, in place of a dead server's socket.
   *
   * @throws SystemError or Error when something else is there, RangeError when no socket can have that path
   */
  constructor(thread: ConsoleThread, path: string, isConsole: boolean) {
    this.#thread = thread;
    this.#path = path;
    makeWay(thread, path);
    this.#listening = listenOn(thread.libc, thread.arena, path);
    makeNonBlocking(thread.libc, this.#listening);
    this.#own = lstatSync(path, { bigint: true });
    this.#stream = new ConsoleStream(thread, { isConsole, onGone: () => this.#hangUp() });
    this.#watch = thread.watches.open(this.#listening, () => this.#acceptAll());
    this.#watch.want(EPOLLIN);
  }

  get endpoint(): ConsoleEndpoint {
    return this.#stream;
  }

  /** Hangs up and listens no longer. The socket is removed, if it is still this one. */
  close(): void {
    this.#watch.end();
    this.#stream.close();
    this.#hangUp();
    this.#thread.libc.close(this.#listening);
    const found = lstatSync(this.#path, { bigint: true, throwIfNoEntry: false });
    if (found?.ino === this.#own.ino && found.dev === this.#own.dev) unlinkSync(this.#path);
  }

  #acceptAll(): void {
    for (let i = 0; i < TURN; i++) {
      const fd = acceptFrom(this.#thread.libc, this.#listening);
      if (fd < 0) return;
      if (this.#client < 0) this.#serve(fd);
      else {
        this.#thread.libc.close(fd);
        this.refused++;
      }
    }
  }

  #serve(fd: number): void {
    makeNonBlocking(this.#thread.libc, fd);
    this.#client = fd;
    this.#stream.attach(fd, fd);
  }

  #hangUp(): void {
    if (this.#client >= 0) this.#thread.libc.close(this.#client);
    this.#client = -1;
  }
}

/** Removes a socket at which nobody listens. */
function makeWay({ libc, arena }: ConsoleThread, path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw new Error(`console socket ${path} is there and not a socket; remove it or choose another path`);
  try {
    libc.close(connectTo(libc, arena, path));
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'ECONNREFUSED') throw error;
    unlinkSync(path);
    return;
  }
  throw new Error(`console socket ${path} has a running server; stop that or choose another path`);
}
