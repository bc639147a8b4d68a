// A backend in a driver domain, seen from the main thread, which stays free for signals, log and service manager: all
// work is done by one thread. After cli/xen-backend-run.ts, before xen-thread.ts.

import type { Worker } from 'node:worker_threads';
import { Arena } from '../hosts/linux/arena.ts';
import { Eventfds, newEventfd } from '../hosts/linux/epoll.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { startThread } from '../hosts/linux/thread.ts';
import type { Notice } from './control.ts';
import type { ExposureWatch } from './exposure-watch.ts';
import type { ProcessCounters } from './process-counters.ts';
import { leaveAtExit, quitWords } from './thread-exit.ts';
import type { FromXen, ToXen, XenThreadData, XenWork } from './xen-thread.ts';

/** How a backend is made. */
export interface XenServerOptions {
  readonly work: XenWork;
  /** Where devices are kept for a successor; undefined if they are not. */
  readonly folder: string | undefined;
  /** Follows what guests' grants are mapped for, with no workers; nobody does without. */
  readonly watch?: ExposureWatch | undefined;
  /** Has its one worker's counters, and learns of its devices. */
  readonly counters: ProcessCounters;
  readonly onNotice: (notice: Notice) => void;
}

/** A running backend. */
export class XenServer {
  /** The domain in which it runs, once all is served. Rejects when it cannot be. */
  readonly serving: Promise<number>;
  /** Resolves when all is over, with what went wrong. */
  readonly ended: Promise<Error | undefined>;
  readonly #thread: Worker;
  readonly #wake: () => void;
  readonly #pinging: (() => void)[] = [];

  /** Throws NativeUnavailable where the system's C library cannot be called. */
  constructor({ work, folder, watch, counters, onNotice }: XenServerOptions) {
    const libc = loadLibc('grantio xen-backend');
    const wake = newEventfd(libc);
    const eventfds = new Eventfds(libc, new Arena(libc, 4096));
    const quit = quitWords(1);
    this.#wake = () => eventfds.ring(wake);
    leaveAtExit(libc, quit, () => {
      watch?.close();
      this.#wake();
    });
    const [own] = counters.workers;
    const data: XenThreadData = { work, folder, wake, quit, counters: own, trace: watch?.control };
    this.#thread = startThread('xen-thread', import.meta.url, { workerData: data });
    const { promise: serving, resolve, reject } = settler<number>();
    const { promise: ended, resolve: end } = settler<Error | undefined>();
    this.serving = serving;
    this.ended = ended;
    // Whoever waits for the end hears of it there.
    serving.catch(() => undefined);
    const fail = (error: Error): void => {
      reject(error);
      end(error);
    };
    this.#thread.on('error', fail);
    this.#thread.on('message', (message: FromXen) => {
      if (message.kind === 'notice') {
        counters.heard(message.notice);
        onNotice(message.notice);
      } else if (message.kind === 'counted') counters.add(message.device);
      else if (message.kind === 'uncounted') counters.remove(message.name);
      else if (message.kind === 'pong') this.#pinging.shift()?.();
      else if (message.kind === 'serving') resolve(message.domain);
      else if (message.failure === undefined) end(undefined);
      else fail(new Error(message.failure));
    });
  }

  /** Resolves when the thread has answered, which a stuck one never does. */
  ping(): Promise<void> {
    return new Promise((resolve) => {
      this.#pinging.push(resolve);
      this.#send('ping');
    });
  }

  /** Ends everything. */
  async end(): Promise<void> {
    this.#send('end');
    await this.ended;
  }

  #send(message: ToXen): void {
    this.#thread.postMessage(message);
    this.#wake();
  }
}

/** A promise, and how it is settled. */
function settler<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((one, other) => {
    resolve = one;
    reject = other;
  });
  return { promise, resolve, reject };
}
