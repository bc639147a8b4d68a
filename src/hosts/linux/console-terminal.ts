// A console's port at the standard input and output of the process, or at two descriptors of any other kind.
// Before console-stream.ts.

import { constants, fstatSync, openSync } from 'node:fs';
import type { ConsoleEndpoint } from '../../devices/console-endpoint.ts';
import { ConsoleStream, type ConsoleThread } from './console-stream.ts';
import { EPOLLIN, Eventfds, makeNonBlocking } from './epoll.ts';
import { checked, type Libc } from './libc.ts';
import type { Watch } from './watches.ts';

/** Descriptors for `ConsoleTerminal`. */
export interface TerminalEnds {
  readonly input: number;
  readonly output: number;
  /** An eventfd that is rung when the size of the terminal has changed (SIGWINCH); -1 for none. */
  readonly resized: number;
}

/**
 * A descriptor of the same terminal or pipe that does not block, to be closed by the caller. The one that is given
 * stays as it is, because other processes have it too: a shell whose terminal does not block breaks.
 */
export function openWithoutBlocking(libc: Libc, fd: number, direction: 'read' | 'write'): number {
  const stat = fstatSync(fd);
  // A file goes on at its place and never blocks; a socket cannot be opened anew.
  if (stat.isFile() || stat.isSocket()) {
    const own = checked(libc, 'dup', libc.dup(fd), `descriptor ${fd}`);
    if (stat.isSocket()) makeNonBlocking(libc, own);
    return own;
  }
  const { O_RDONLY, O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
  const flags = (direction === 'read' ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_NOCTTY;
  return openSync(`/proc/self/fd/${fd}`, flags);
}

/** Two descriptors and the person, or the program, behind them. */
export class ConsoleTerminal {
  readonly #resized: Watch | undefined;
  readonly #stream: ConsoleStream;

  /** @param ends stay the caller's, and must not block */
  constructor(thread: ConsoleThread, { input, output, resized }: TerminalEnds, isConsole: boolean) {
    const { libc, arena, watches } = thread;
    const eventfds = new Eventfds(libc, arena);
    this.#stream = new ConsoleStream(thread, { isConsole, onGone: () => undefined });
    this.#stream.attach(input, output);
    if (resized < 0) return;
    this.#resized = watches.open(resized, () => {
      eventfds.clear(resized);
      this.#stream.checkSize();
    });
    this.#resized.want(EPOLLIN);
  }

  get endpoint(): ConsoleEndpoint {
    return this.#stream;
  }

  close(): void {
    this.#resized?.end();
    this.#stream.close();
  }
}
