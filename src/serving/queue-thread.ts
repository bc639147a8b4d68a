// A queue worker's thread. Started by vhost-server.ts, before queue-worker.ts.

import { type MessagePort, workerData } from 'node:worker_threads';
import type { TraceRing } from '../audit/trace-ring.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { Eventfds } from '../hosts/linux/epoll.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { type MailboxEnds, MailboxServer } from './mailbox.ts';
import { QueueWorker } from './queue-worker.ts';
import { isQuitting, leave } from './thread-exit.ts';
import { workerTracing } from './thread-tracing.ts';

/** What the thread is started with. */
export interface QueueThreadData {
  readonly mail: MailboxEnds;
  /** Where it tells the control thread what happened, and the eventfd that wakes that. */
  readonly events: MessagePort;
  readonly wakeControl: number;
  readonly pollMicroseconds: number;
  /** Whether guests share the process that do not trust each other. */
  readonly sealed: boolean;
  /** Words that all threads share (thread-exit.ts). */
  readonly quit: Int32Array;
  /** Where it counts what it does (counter-blocks.ts). */
  readonly counters: Float64Array;
  /** Where it reports requests and what they have in hand, if somebody is to know. */
  readonly trace: TraceRing | undefined;
}

function start({ mail, events, wakeControl, quit, trace, ...rest }: QueueThreadData): void {
  const libc = loadLibc();
  const eventfds = new Eventfds(libc, new Arena(libc, 4096));
  new QueueWorker({
    libc,
    mail: new MailboxServer(mail),
    tell: (event) => {
      events.postMessage(event);
      eventfds.ring(wakeControl);
    },
    quitting: () => isQuitting(quit),
    tracing: trace && workerTracing(trace),
    ...rest,
  }).run();
  leave(quit);
}

start(workerData as QueueThreadData);
