// A queue worker's thread. Started by vhost-server.ts, before queue-worker.ts.

import { type MessagePort, workerData } from 'node:worker_threads';
import { Arena } from '../hosts/linux/arena.ts';
import { Eventfds } from '../hosts/linux/epoll.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { type MailboxEnds, MailboxServer } from './mailbox.ts';
import { QueueWorker } from './queue-worker.ts';

/** What the thread is started with. */
export interface QueueThreadData {
  readonly mail: MailboxEnds;
  /** Where it tells the control thread what happened, and the eventfd that wakes that. */
  readonly events: MessagePort;
  readonly wakeControl: number;
  readonly pollMicroseconds: number;
  readonly quit: Int32Array;
}

function start({ mail, events, wakeControl, pollMicroseconds, quit }: QueueThreadData): void {
  const libc = loadLibc();
  const eventfds = new Eventfds(libc, new Arena(libc, 4096));
  new QueueWorker({
    libc,
    mail: new MailboxServer(mail),
    tell: (event) => {
      events.postMessage(event);
      eventfds.ring(wakeControl);
    },
    pollMicroseconds,
    quitting: () => Atomics.load(quit, 0) !== 0,
  }).run();
}

start(workerData as QueueThreadData);
