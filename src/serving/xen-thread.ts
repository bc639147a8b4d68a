// The thread of a backend in a driver domain: opens the Xen of this machine and its store, and serves.
// Started by xen-server.ts, before xen-loop.ts.

import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { setImmediate as turn } from 'node:timers/promises';
import { RingTracer, type TraceRing } from '../audit/trace-ring.ts';
import { Arena } from '../hosts/linux/arena.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { openXenHost } from '../hosts/linux/xen/host.ts';
import { openStoreChannel, ownDomainId } from '../hosts/linux/xen/store.ts';
import { nanoseconds } from '../parallel/clock.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import type { Notice } from './control.ts';
import type { NewDevice } from './process-counters.ts';
import { isQuitting, leave } from './thread-exit.ts';
import type { XenDeviceOptions } from './xen-devices.ts';
import { type AttachedDevice, XenLoop } from './xen-loop.ts';
import { XenRecords } from './xen-records.ts';
import { XenWakes } from './xen-wakes.ts';

/** Scratch memory for system calls, bytes. */
const ARENA = 1 << 20;

/** What is served: devices of this list, or what xenstore announces. */
export type XenWork = { readonly attach: readonly AttachedDevice[] } | { readonly watch: XenDeviceOptions };

/** What the thread is started with. */
export interface XenThreadData {
  readonly work: XenWork;
  /** Where devices are kept for a successor; undefined if they are not. */
  readonly folder: string | undefined;
  /** Eventfd that wakes it. */
  readonly wake: number;
  /** The words of thread-exit.ts, for one thread. */
  readonly quit: Int32Array;
  /** Where it counts what it does (counter-blocks.ts). */
  readonly counters: Float64Array;
  /** Where it reports what guests' grants are mapped for; it waits for room there. */
  readonly trace?: TraceRing | undefined;
}

/** What the main thread asks for. */
export type ToXen = 'ping' | 'end';

/** What the main thread hears. */
export type FromXen =
  | { readonly kind: 'serving'; readonly domain: number }
  | { readonly kind: 'notice'; readonly notice: Notice }
  /** A device is counted from now on, or no more. */
  | { readonly kind: 'counted'; readonly device: NewDevice }
  | { readonly kind: 'uncounted'; readonly name: string }
  | { readonly kind: 'pong' }
  | { readonly kind: 'ended'; readonly failure: string | undefined };

async function serve(data: XenThreadData, port: MessagePort): Promise<void> {
  const { work, folder, wake, quit, counters, trace } = data;
  const say = (message: FromXen): void => port.postMessage(message);
  const libc = loadLibc();
  const arena = new Arena(libc, ARENA);
  const channel = openStoreChannel(libc, arena);
  const wakes = new XenWakes(libc, arena, channel, wake, counters);
  const store = new XenstoreClient(channel);
  const id = await answered(ownDomainId(store), wakes);
  const records = folder === undefined ? undefined : new XenRecords(libc, arena, folder);
  const tracer = trace && new RingTracer(trace, nanoseconds);
  const host = openXenHost({
    ...{ libc, arena, id },
    ...(tracer && { tracer }),
    ...(records && { ioreqServers: records }),
  });
  wakes.addEvents(host.descriptors);
  const loop = new XenLoop({
    ...{ host, store, hosting: wakes.hosting, wakes, records, counters },
    notify: (notice) => say({ kind: 'notice', notice }),
    counted: {
      add: (device) => say({ kind: 'counted', device }),
      remove: (name) => say({ kind: 'uncounted', name }),
    },
  });
  begin(loop, work).then(
    () => say({ kind: 'serving', domain: id }),
    (error: unknown) => loop.fail(error),
  );
  try {
    await loop.run(
      () => readMail(port, loop, say),
      () => isQuitting(quit),
    );
  } finally {
    // What was to end has ended; whatever else there is, is for a successor.
    host.close({ keepServers: records !== undefined });
    records?.close();
    wakes.close();
  }
  say({ kind: 'ended', failure: loop.failure });
}

/** What the store answers, before there is a loop that waits for it. */
async function answered<T>(answer: Promise<T>, wakes: XenWakes): Promise<T> {
  let isThere = false;
  const there = (): void => {
    isThere = true;
  };
  answer.then(there, there);
  for (await turn(); !isThere; await turn()) wakes.look(true);
  return answer;
}

function begin(loop: XenLoop, work: XenWork): Promise<void> {
  return 'watch' in work ? loop.watch(work.watch) : loop.attach(work.attach);
}

function readMail(port: MessagePort, loop: XenLoop, say: (message: FromXen) => void): void {
  for (let mail = receiveMessageOnPort(port); mail !== undefined; mail = receiveMessageOnPort(port)) {
    const message = mail.message as ToXen;
    if (message === 'ping') say({ kind: 'pong' });
    else loop.end().catch((error: unknown) => loop.fail(error));
  }
}

const data = workerData as XenThreadData;
try {
  await serve(data, parentPort!);
} finally {
  // What has gone wrong ends the thread, and the main thread is told why.
  leave(data.quit);
}
