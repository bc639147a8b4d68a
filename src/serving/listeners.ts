// The listening sockets of the control thread. A connection that cannot be taken, because this process or the machine
// has no descriptor left, stays in the kernel and would wake the thread again and again: its socket rests for a while.
// Used by control.ts.

import { acceptFrom } from '../hosts/linux/fd-socket.ts';
import { type Libc, SystemError } from '../hosts/linux/libc.ts';

/** Rest of a socket whose connection cannot be taken. Milliseconds. */
export const REST = 1000;
const EINTR = 4;
const EAGAIN = 11;
const ECONNABORTED = 103;
/** There is nothing to take, or no longer: the next time there may be. */
const PASSING: readonly number[] = [EINTR, EAGAIN, ECONNABORTED];

/** A listening socket. */
export interface Listener {
  readonly fd: number;
  /** A connection was taken; its descriptor is the listener's. */
  taken(fd: number): void;
  /** None can be taken at the moment; called once until one can. */
  stuck(reason: string): void;
}

/** What listeners are made of. */
export interface ListenersParts {
  readonly libc: Pick<Libc, 'accept4' | 'errno'>;
  /** Has `ready` called whenever `fd` can be read. Returns a token. */
  readonly watch: (fd: number, ready: () => void) => number;
  readonly unwatch: (fd: number, token: number) => void;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

interface Entry extends Listener {
  token: number;
  isStuck: boolean;
}

/** All listening sockets of a thread. */
export class Listeners {
  readonly #parts: ListenersParts;
  #resting: Entry[] = [];
  #until = 0;

  constructor(parts: ListenersParts) {
    this.#parts = parts;
  }

  /** Listens at one more socket, for good. */
  add(listener: Listener): void {
    this.#watch({ ...listener, token: 0, isStuck: false });
  }

  /** Milliseconds until `tick` has something to do, -1 for never. */
  get patience(): number {
    return this.#resting.length === 0 ? -1 : Math.max(0, Math.ceil(this.#until - this.#parts.now()));
  }

  /** Ends the rest of sockets that have had theirs. */
  tick(): void {
    if (this.patience === 0) this.wake();
  }

  /** A connection has ended, whose descriptors may be what was missing. */
  wake(): void {
    for (const entry of this.#resting.splice(0)) this.#watch(entry);
  }

  #watch(entry: Entry): void {
    entry.token = this.#parts.watch(entry.fd, () => this.#accept(entry));
  }

  #accept(entry: Entry): void {
    const { libc, unwatch, now } = this.#parts;
    const fd = acceptFrom(libc, entry.fd);
    if (fd >= 0) {
      entry.isStuck = false;
      entry.taken(fd);
      return;
    }
    const errno = libc.errno();
    if (PASSING.includes(errno)) return;
    unwatch(entry.fd, entry.token);
    this.#resting.push(entry);
    this.#until = now() + REST;
    if (entry.isStuck) return;
    entry.isStuck = true;
    entry.stuck(new SystemError('accept4', errno, 'no more connections can be taken').message);
  }
}
