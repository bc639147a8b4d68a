// A console's port at the standard input and output of the process, or at two descriptors of any other kind.
// Before console-stream.ts.

import { constants, fstatSync, openSync } from 'node:fs';
import type { ConsoleEndpoint } from '../../devices/console-endpoint.ts';
import { ConsoleStream, type ConsoleThread } from './console-stream.ts';
import { makeNonBlocking } from './epoll.ts';
import { checked, type Libc } from './libc.ts';

const STDIN = 0;
const STDOUT = 1;

/**
 * A descriptor of the same terminal or pipe that does not block. The one that is given stays as it is, because other
 * processes have it too: a shell whose terminal does not block breaks.
 */
function openWithoutBlocking(libc: Libc, fd: number, direction: 'read' | 'write'): number {
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

function openBoth(libc: Libc, input: number, output: number): readonly [number, number] {
  const own = openWithoutBlocking(libc, input, 'read');
  try {
    return [own, openWithoutBlocking(libc, output, 'write')];
  } catch (error) {
    libc.close(own);
    throw error;
  }
}

/** Two descriptors and the person, or the program, behind them. */
export class ConsoleTerminal {
  readonly #libc: Libc;
  readonly #own: readonly [input: number, output: number];
  readonly #stream: ConsoleStream;

  /** @param input, output descriptors that stay as they are; throws what opening them anew throws */
  constructor(thread: ConsoleThread, isConsole: boolean, input = STDIN, output = STDOUT) {
    const { libc } = thread;
    this.#libc = libc;
    this.#own = openBoth(libc, input, output);
    this.#stream = new ConsoleStream(thread, { isConsole, onGone: () => undefined });
    this.#stream.attach(this.#own[0], this.#own[1]);
  }

  get endpoint(): ConsoleEndpoint {
    return this.#stream;
  }

  close(): void {
    this.#stream.close();
    for (const fd of this.#own) this.#libc.close(fd);
  }
}
