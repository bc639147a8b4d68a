// Descriptors that a thread watches for others beside its own work, and what they want done in its next turn: all in
// the one epoll in which it sleeps. After epoll.ts; used by console-stream.ts and by whoever runs the thread.

import type { Arena } from './arena.ts';
import { type Epoll, Eventfds, newEventfd } from './epoll.ts';
import { type Libc, SystemError } from './libc.ts';

/** Tokens of watches are from here on; whoever runs the thread has those below. */
const FIRST_TOKEN = 2 ** 31;

/** For `Watch.want`: only that the other end has gone. */
export const HANGUP = 0x10;

/** One descriptor. */
export interface Watch {
  /**
   * Says what to wait for from now on: EPOLLIN and EPOLLOUT, with which a hangup is always told of, or HANGUP alone;
   * 0 for nothing at all. It is told of again and again while it is so.
   */
  want(events: number): void;
  /** Watches it no longer. To be called before it is closed. */
  end(): void;
}

/** What a thread watches for others. */
export class Watches {
  readonly #libc: Libc;
  readonly #epoll: Epoll;
  readonly #eventfds: Eventfds;
  readonly #ready = new Map<number, () => void>();
  /** Wakes the thread for `#next`. */
  readonly #wakeup: number;
  #next: (() => void)[] = [];
  #token = FIRST_TOKEN;

  constructor(libc: Libc, arena: Arena, epoll: Epoll) {
    this.#libc = libc;
    this.#epoll = epoll;
    this.#eventfds = new Eventfds(libc, arena);
    this.#wakeup = newEventfd(libc);
    epoll.add(
      this.#wakeup,
      this.#newToken(() => this.#runNext()),
    );
  }

  /** Watches `fd`, which is to be wanted first. `ready` must not throw. */
  open(fd: number, ready: () => void): Watch {
    const token = this.#newToken(ready);
    let wanted = 0;
    // Files of disks and some devices are always ready, and epoll does not take them.
    let isFile = false;
    const want = (events: number): void => {
      if (events === wanted) return;
      if (isFile) this.#nextTurn(token, events);
      else if (events === 0) this.#epoll.remove(fd);
      else if (wanted !== 0) this.#epoll.change(fd, token, events);
      else if (!this.#watch(fd, token, events)) {
        isFile = true;
        this.#nextTurn(token, events);
      }
      // A file is told of once for each time that it is wanted.
      wanted = isFile ? 0 : events;
    };
    return {
      want,
      end: () => {
        if (wanted !== 0) this.#epoll.remove(fd);
        wanted = 0;
        this.#ready.delete(token);
      },
    };
  }

  /** Has `step` done in the thread's next turn, after others have had theirs. It must not throw. */
  later(step: () => void): void {
    if (this.#next.push(step) === 1) this.#eventfds.ring(this.#wakeup);
  }

  /** To be called for each token that epoll tells of. Returns whether it was one of these. */
  wake(token: number): boolean {
    if (token < FIRST_TOKEN) return false;
    this.#ready.get(token)?.();
    return true;
  }

  /** Ends all of them. */
  close(): void {
    this.#ready.clear();
    this.#next = [];
    this.#epoll.remove(this.#wakeup);
    this.#libc.close(this.#wakeup);
  }

  #newToken(ready: () => void): number {
    const token = this.#token++;
    this.#ready.set(token, ready);
    return token;
  }

  #nextTurn(token: number, events: number): void {
    if (events !== 0 && events !== HANGUP) this.later(() => this.#ready.get(token)?.());
  }

  /** Returns false for what is always ready. */
  #watch(fd: number, token: number, events: number): boolean {
    try {
      this.#epoll.watch(fd, token, events);
      return true;
    } catch (error) {
      if (error instanceof SystemError && error.code === 'EPERM') return false;
      throw error;
    }
  }

  #runNext(): void {
    this.#eventfds.clear(this.#wakeup);
    const steps = this.#next;
    this.#next = [];
    for (const step of steps) step();
  }
}
