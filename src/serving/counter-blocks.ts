// Counters in memory that threads share: blocks of plain numbers, each with one thread that writes it, so that to count
// is to add to an array, and to read is to look. What is read may be a request behind. Nobody is asked or stopped.
// Written by queue-counters.ts, control.ts, queue-worker.ts and xen-counters.ts; read by serving-figures.ts.

import { BUCKETS } from './log-buckets.ts';
import { OPERATIONS } from './operations.ts';

/** Answers other than success, as they are counted: VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, and any other. */
export const STATUSES = ['ioerr', 'unsupp', 'other'] as const;
/** Depths up to 2^0, 2^1, and so on: no queue has more than 2^15 descriptors. */
export const DEPTHS = 16;

/** Where the fields of a block are, and how long it is: each field has `count` numbers. */
function layout<const Names extends string>(fields: Readonly<Record<Names, number>>): Layout<Names> {
  let length = 0;
  const places = Object.entries<number>(fields).map(([name, count]) => {
    const at = length;
    length += count;
    return [name, at] as const;
  });
  // The names are those of the argument, one for one.
  return { at: Object.fromEntries(places) as Record<Names, number>, length };
}

interface Layout<Names extends string> {
  readonly at: Readonly<Record<Names, number>>;
  /** Numbers in all fields. */
  readonly length: number;
}

/** What a queue worker counts of one device. Times are nanoseconds. */
export const QUEUE_BLOCK = layout({
  notifications: 1,
  interrupts: 1,
  refusedChains: 1,
  neededBytes: 1,
  /** Now, and not since the beginning. */
  exposedBytes: 1,
  enabledQueues: 1,
  turns: 1,
  depthSum: 1,
  depths: DEPTHS,
  requests: OPERATIONS.length,
  bytes: OPERATIONS.length,
  errors: OPERATIONS.length * STATUSES.length,
  durationCount: OPERATIONS.length,
  durationSum: OPERATIONS.length,
  durations: OPERATIONS.length * BUCKETS,
});

/** What the control thread counts of one device; a Xen backend's one thread counts all. */
export const CONTROL_BLOCK = layout({
  /** Whether a frontend is connected now, and since when, in seconds since 1970. */
  connected: 1,
  connectedSince: 1,
  sessions: 1,
  refused: 1,
  /** Connections that we have closed. */
  closed: 1,
  mappings: 1,
  mappedBytes: 1,
});

/** What a queue worker counts of itself. */
export const WORKER_BLOCK = layout({
  /** Looks at all of its rings. */
  looks: 1,
  busyLooks: 1,
  sleeps: 1,
  sleptSeconds: 1,
});

/** Memory for the counters of one device, served by so many workers. It can be sent to a thread, which shares it. */
export function newDeviceCounters(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer((CONTROL_BLOCK.length + workers * QUEUE_BLOCK.length) * 8);
}

/** The control thread's part of it. */
export function controlBlock(counters: SharedArrayBuffer): Float64Array {
  return new Float64Array(counters, 0, CONTROL_BLOCK.length);
}

/** The part of worker number `worker`. */
export function queueBlock(counters: SharedArrayBuffer, worker: number): Float64Array {
  const start = CONTROL_BLOCK.length + worker * QUEUE_BLOCK.length;
  return new Float64Array(counters, start * 8, QUEUE_BLOCK.length);
}

/** Memory for a worker's own counters. */
export function newWorkerCounters(): Float64Array {
  return new Float64Array(new SharedArrayBuffer(WORKER_BLOCK.length * 8));
}
