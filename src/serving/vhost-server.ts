// Serves devices to virtual machines over vhost-user: one control thread, and queue workers that share the rings of
// all devices. The main thread stays free. After cli/serve.ts, before control-thread.ts and queue-thread.ts.

import { MessageChannel, type TransferListItem, type Worker } from 'node:worker_threads';
import { Arena } from '../hosts/linux/arena.ts';
import { Eventfds, newEventfd } from '../hosts/linux/epoll.ts';
import { type Libc, loadLibc } from '../hosts/linux/libc.ts';
import { startThread } from '../hosts/linux/thread.ts';
import type { Endpoint, Notice } from './control.ts';
import type { ControlThreadData, FromControl, ToControl } from './control-thread.ts';
import { newDeviceCounters } from './counter-blocks.ts';
import type { ExposureWatch } from './exposure-watch.ts';
import { mailboxWords } from './mailbox.ts';
import { ProcessCounters } from './process-counters.ts';
import type { QueueThreadData } from './queue-thread.ts';
import type { ServingFigures } from './serving-figures.ts';
import { leaveAtExit, quitWords } from './thread-exit.ts';

/** How a server is made. */
export interface ServerOptions {
  /** Threads that serve rings. */
  readonly workers: number;
  /** Longest time for which they look at rings that have nothing, in microseconds. */
  readonly pollMicroseconds: number;
  /** Offer VIRTIO_F_ACCESS_PLATFORM and serve no driver without: the guest's IOMMU says what may be reached. */
  readonly restricted: boolean;
  /** Refuse guests' memory that may shrink, which ends the process for all of its guests. */
  readonly sealed: boolean;
  /** Follows what may be reached, made for as many workers; nobody does without. */
  readonly watch?: ExposureWatch;
  readonly onNotice: (notice: Notice) => void;
  /**
   * All is over: `end` was called, or the last connection of a process without listening sockets has ended. With
   * `failure` when what was written could not be made to last, or a thread of ours is lost.
   */
  readonly onEnd: (failure?: Error) => void;
}

/** A running server. */
export class VhostServer {
  readonly #control: Worker;
  readonly #wake: () => void;
  /** Who waits for an endpoint to be served, first come first. */
  readonly #waiting: { resolve(): void; reject(error: Error): void }[] = [];
  readonly #options: ServerOptions;
  readonly #ended: Promise<void>;
  /** Who waits for the control thread's answer. */
  readonly #pinging: (() => void)[] = [];
  readonly #counters: ProcessCounters;
  #endpoints = 0;

  /** Throws NativeUnavailable where the system's C library cannot be called. */
  constructor(options: ServerOptions) {
    const libc = loadLibc('grantio serve');
    const wake = newEventfd(libc);
    const eventfds = new Eventfds(libc, new Arena(libc, 4096));
    this.#options = options;
    this.#wake = () => eventfds.ring(wake);
    const quit = quitWords(options.workers + 1);
    const { pollMicroseconds, restricted, sealed, watch } = options;
    this.#counters = new ProcessCounters(options.workers, watch);
    const workers = this.#counters.workers.map((counters, i) => {
      const trace = watch?.workers[i];
      return startQueueThread(libc, { wakeControl: wake, pollMicroseconds, sealed, quit, counters, trace });
    });
    const data: ControlThreadData = { wake, workers, restricted, sealed, quit, trace: watch?.control };
    const wakes = [wake, ...workers.map(({ mail }) => mail.wake)];
    leaveAtExit(libc, quit, () => {
      watch?.close();
      for (const fd of wakes) eventfds.ring(fd);
    });
    this.#control = startThread('control-thread', import.meta.url, {
      workerData: data,
      transferList: workers.flatMap(({ mail, events }): TransferListItem[] => [mail.port, events]),
    });
    this.#ended = new Promise((resolve) => {
      this.#control.on('message', (message: FromControl) => this.#hear(message, resolve));
      // What a thread of ours does not catch is a fault that nobody can go on after.
      this.#control.on('error', (error) => this.#fail(error, resolve));
    });
  }

  /** Serves one more device. Rejects when it cannot be made, in a sentence for the user. */
  add(endpoint: Endpoint): Promise<void> {
    const counters = newDeviceCounters(this.#options.workers);
    const { watch } = this.#options;
    const number = this.#endpoints++;
    const exposure = watch && (() => watch.of(number));
    this.#counters.add({ name: endpoint.name, kind: endpoint.device.kind, counters, exposure });
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#send({ kind: 'add', endpoint, counters });
    });
  }

  /** What has been counted until now. No other thread is asked. */
  get figures(): ServingFigures {
    return this.#counters.figures;
  }

  /** Resolves when the control thread has answered, which a stuck one never does. */
  ping(): Promise<void> {
    return new Promise((resolve) => {
      this.#pinging.push(resolve);
      this.#send({ kind: 'ping' });
    });
  }

  /** Ends all connections; requests that were taken have been served, and last, when it resolves. */
  async end(): Promise<void> {
    this.#send({ kind: 'end' });
    await this.#ended;
  }

  #send(message: ToControl): void {
    this.#control.postMessage(message);
    this.#wake();
  }

  #hear(message: FromControl, ended: () => void): void {
    const failure = 'failure' in message && message.failure ? new Error(message.failure) : undefined;
    if (message.kind === 'notice') {
      this.#counters.heard(message.notice);
      this.#options.onNotice(message.notice);
    } else if (message.kind === 'pong') this.#pinging.shift()?.();
    else if (message.kind === 'added') {
      const waiting = this.#waiting.shift();
      if (failure === undefined) waiting?.resolve();
      else waiting?.reject(failure);
    } else {
      ended();
      this.#options.onEnd(failure);
    }
  }

  #fail(error: Error, ended: () => void): void {
    ended();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#options.onEnd(error);
  }
}

/** Starts a queue worker. Returns the control thread's ends. */
function startQueueThread(
  libc: Libc,
  parts: Omit<QueueThreadData, 'mail' | 'events'>,
): ControlThreadData['workers'][number] {
  const mail = new MessageChannel();
  const events = new MessageChannel();
  const words = mailboxWords();
  const wake = newEventfd(libc);
  const data: QueueThreadData = {
    ...parts,
    mail: { words, wake, port: mail.port2 },
    events: events.port2,
  };
  const worker = startThread('queue-thread', import.meta.url, {
    workerData: data,
    transferList: [mail.port2, events.port2],
  });
  worker.unref();
  return { mail: { words, wake, port: mail.port1 }, events: events.port1 };
}
