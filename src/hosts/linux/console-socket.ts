// A console's port at a listening Unix socket: whoever connects is at its other end, one client at a time.
// Before console-stream.ts.

import type { ConsoleEndpoint } from '../../devices/console-endpoint.ts';
import { ConsoleStream, type ConsoleThread } from './console-stream.ts';
import { EPOLLIN, makeNonBlocking } from './epoll.ts';
import { acceptFrom } from './fd-socket.ts';
import type { Watch } from './watches.ts';

/** Clients refused in one turn, at most: more wait for the next. */
const TURN = 16;

/** A listening socket and its client. */
export class ConsoleSocket {
  /** Clients that found somebody else there. */
  refused = 0;
  readonly #thread: ConsoleThread;
  readonly #listening: number;
  readonly #watch: Watch;
  readonly #stream: ConsoleStream;
  #client = -1;

  /** @param listening stays the caller's, and must not block */
  constructor(thread: ConsoleThread, listening: number, isConsole: boolean) {
    this.#thread = thread;
    this.#listening = listening;
    this.#stream = new ConsoleStream(thread, { isConsole, onGone: () => this.#hangUp() });
    this.#watch = thread.watches.open(listening, () => this.#acceptAll());
    this.#watch.want(EPOLLIN);
  }

  get endpoint(): ConsoleEndpoint {
    return this.#stream;
  }

  /** Hangs up and listens no longer. */
  close(): void {
    this.#watch.end();
    this.#stream.close();
    this.#hangUp();
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
