// The control thread: starts control.ts when it is told what to serve. Started by vhost-server.ts.

import { parentPort, receiveMessageOnPort, type MessagePort, workerData } from 'node:worker_threads';
import type { TraceRing } from '../audit/trace-ring.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { Eventfds } from '../hosts/linux/epoll.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { Control, type Endpoint, type Notice } from './control.ts';
import { MailboxCaller, type MailboxEnds } from './mailbox.ts';
import type { RingEvent } from './ring-commands.ts';
import { isQuitting, leave } from './thread-exit.ts';

/** What the thread is started with. */
export interface ControlThreadData {
  /** Eventfd that wakes it. */
  readonly wake: number;
  readonly workers: readonly { readonly mail: MailboxEnds; readonly events: MessagePort }[];
  readonly restricted: boolean;
  readonly sealed: boolean;
  /** Words that all threads share (thread-exit.ts). */
  readonly quit: Int32Array;
  /** Where it reports what devices can reach, if somebody is to know. */
  readonly trace: TraceRing | undefined;
}

/** A disk that does not answer for so long after all was told to end is not waited for. Milliseconds. */
const END_LIMIT = 5000;

/** What the main thread asks for. */
export type ToControl =
  | { readonly kind: 'add'; readonly endpoint: Endpoint; readonly counters: SharedArrayBuffer }
  | { readonly kind: 'ping' }
  | { readonly kind: 'end' };

/** What the main thread hears. */
export type FromControl =
  | { readonly kind: 'added'; readonly failure: string | undefined }
  | { readonly kind: 'notice'; readonly notice: Notice }
  | { readonly kind: 'pong' }
  | { readonly kind: 'ended'; readonly failure: string | undefined };

async function start(data: ControlThreadData, port: MessagePort): Promise<void> {
  const { wake, workers, restricted, sealed, quit, trace } = data;
  const libc = loadLibc();
  const eventfds = new Eventfds(libc, new Arena(libc, 4096));
  const callers = workers.map(
    ({ mail }) =>
      new MailboxCaller(
        mail,
        (fd) => eventfds.ring(fd),
        (fd) => eventfds.clear(fd),
      ),
  );
  const say = (message: FromControl): void => port.postMessage(message);
  const control = new Control({
    libc,
    wake,
    workers: callers.map((caller) => (command) => caller.call(command)),
    nextEvent: () => {
      for (const { events } of workers) {
        const received = receiveMessageOnPort(events);
        if (received !== undefined) return received.message as RingEvent;
      }
      return undefined;
    },
    notify: (notice) => say({ kind: 'notice', notice }),
    restricted,
    sealed,
    quitting: () => isQuitting(quit),
    hurry: () => {
      for (const caller of callers) caller.hurry(END_LIMIT);
    },
    traceRings: trace && (await import('./thread-tracing.ts')).ringsTracedIn(trace),
  });
  control.run(() => {
    for (let mail = receiveMessageOnPort(port); mail !== undefined; mail = receiveMessageOnPort(port))
      obey(control, mail.message as ToControl, say);
  });
  if (!isQuitting(quit)) {
    for (const caller of callers) if (!caller.isLost) caller.call({ kind: 'end' });
    say({ kind: 'ended', failure: control.failure });
  }
  leave(quit);
}

function obey(control: Control, message: ToControl, say: (message: FromControl) => void): void {
  if (message.kind === 'end') {
    control.end();
    return;
  }
  if (message.kind === 'ping') {
    say({ kind: 'pong' });
    return;
  }
  try {
    control.add(message.endpoint, message.counters);
    say({ kind: 'added', failure: undefined });
  } catch (error) {
    say({ kind: 'added', failure: error instanceof Error ? error.message : String(error) });
  }
}

await start(workerData as ControlThreadData, parentPort!);
