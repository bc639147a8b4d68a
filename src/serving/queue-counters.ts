// Counts what one queue does, in the block of its worker. It costs some nanoseconds a request, because the clock, which
// costs a hundred, is read for one request in many when there are many. After queue-worker.ts (which makes it), before
// counter-blocks.ts.

import type { QueueMeter } from '../virtqueue/queue-meter.ts';
import { DEPTHS, QUEUE_BLOCK, STATUSES } from './counter-blocks.ts';
import { BUCKETS, bucketOf } from './log-buckets.ts';
import { type QueueOperations, queueOperations } from './operations.ts';

const { at } = QUEUE_BLOCK;
/** Requests for one that is timed, at most. */
const MOST_STRIDE = 64;
/** Times between two that are timed: below, fewer are timed; above, more. Milliseconds. */
const CLOSE = 0.25;
const APART = 1;
const NANOSECONDS = 1e6;

/** How a queue's counters are made. */
export interface QueueCountersParts {
  /** The block of its worker and device, which this thread alone writes. */
  readonly block: Float64Array;
  /** Kind of the device. */
  readonly kind: string;
  readonly index: number;
  /** Descriptors. */
  readonly size: number;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  /** Called when the queue is served no more. */
  readonly closed: () => void;
}

/**
 * The counters of one queue. A request that is timed stands for those of its operation since the last one: the
 * histogram's count is therefore that of the requests, or a few behind.
 */
export class QueueCounters implements QueueMeter {
  readonly #block: Float64Array;
  readonly #operations: QueueOperations;
  readonly #now: () => number;
  readonly closed: () => void;
  /** When each head was taken; 0 when it is not timed. */
  readonly #takenAt: Float64Array;
  #firstOfTurn = false;
  /** Requests until one is timed. */
  #left = 1;
  #stride = 1;
  #timedAt = 0;
  #random = 1;

  constructor({ block, kind, index, size, now, closed }: QueueCountersParts) {
    this.#block = block;
    this.#operations = queueOperations(kind, index);
    this.#now = now;
    this.closed = closed;
    this.#takenAt = new Float64Array(size);
  }

  turn(): void {
    this.#firstOfTurn = true;
  }

  taken(head: number, byteLength: number, depth: number): void {
    const block = this.#block;
    block[at.neededBytes] += byteLength;
    if (this.#firstOfTurn) this.#countDepth(depth);
    if (--this.#left === 0) this.#begin(head);
  }

  refused(): void {
    this.#block[at.refusedChains]++;
  }

  completed(head: number, type: number, status: number, bytesRead: number, written: number): void {
    const block = this.#block;
    const { byType, untyped, header, trailer } = this.#operations;
    const operation = type >= 0 && type < byType.length ? byType[type] : untyped;
    block[at.requests + operation]++;
    if (status === 0) block[at.bytes + operation] += dataBytes(bytesRead - header, written - trailer);
    else block[at.errors + operation * STATUSES.length + Math.min(status, STATUSES.length) - 1]++;
    const began = this.#takenAt[head];
    if (began !== 0) this.#end(head, operation, began);
  }

  interrupted(): void {
    this.#block[at.interrupts]++;
  }

  #countDepth(depth: number): void {
    const block = this.#block;
    this.#firstOfTurn = false;
    block[at.turns]++;
    block[at.depthSum] += depth;
    // The least power of two that is not below it.
    block[at.depths + Math.min(32 - Math.clz32(depth - 1), DEPTHS - 1)]++;
  }

  #begin(head: number): void {
    const now = this.#now();
    const passed = now - this.#timedAt;
    this.#timedAt = now;
    this.#takenAt[head] = now;
    if (passed < CLOSE) this.#stride = Math.min(this.#stride * 2, MOST_STRIDE);
    else if (passed > APART) this.#stride = Math.max(this.#stride / 2, 1);
    this.#left = this.#nextLeft();
  }

  /** From 1 to twice the stride less one: a driver's own rhythm must not meet the same requests again and again. */
  #nextLeft(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    return 1 + Math.floor((this.#random / 2 ** 32) * (2 * this.#stride - 1));
  }

  #end(head: number, operation: number, began: number): void {
    const block = this.#block;
    this.#takenAt[head] = 0;
    const nanoseconds = Math.max(0, (this.#now() - began) * NANOSECONDS);
    const standsFor = block[at.requests + operation] - block[at.durationCount + operation];
    block[at.durationCount + operation] += standsFor;
    block[at.durationSum + operation] += standsFor * nanoseconds;
    block[at.durations + operation * BUCKETS + bucketOf(nanoseconds)] += standsFor;
  }
}

/** Data is what was read behind a header, or written before a status, whichever there was. */
function dataBytes(read: number, written: number): number {
  return Math.max(read, 0) + Math.max(written, 0);
}
