// The counters of a process, read and summed up: what metrics are made of. After process-counters.ts, before
// cli/metrics/.

import {
  CONTROL_BLOCK,
  controlBlock,
  DEPTHS,
  QUEUE_BLOCK,
  queueBlock,
  STATUSES,
  WORKER_BLOCK,
} from './counter-blocks.ts';
import type { ExposureSums } from './exposure-watch.ts';
import { BUCKETS } from './log-buckets.ts';
import { OPERATIONS, type Operation, operationsOf } from './operations.ts';

/** How often what was counted fell into each bucket. */
export interface Distribution {
  readonly buckets: readonly number[];
  /** Of all values. */
  readonly sum: number;
}

/** The requests of one operation. */
export interface OperationFigures {
  readonly name: Operation;
  readonly requests: number;
  /** Data of those that succeeded. */
  readonly bytes: number;
  /** Those that failed, in the order of STATUSES. */
  readonly errors: readonly number[];
  /** Nanoseconds from pop to complete, in the buckets of log-buckets.ts. */
  readonly duration: Distribution;
}

/** One device. */
export interface DeviceFigures {
  readonly name: string;
  readonly kind: string;
  /** The domain that has it, on a Xen host. */
  readonly guest?: number;
  readonly connected: boolean;
  /** Seconds since 1970; of no meaning where no frontend is connected. */
  readonly connectedSince: number;
  readonly sessions: number;
  /** Frontends that came while another one was served. */
  readonly refused: number;
  /** Connections that we have closed: the frontend broke a rule, or something of ours failed. */
  readonly closed: number;
  readonly mappings: number;
  readonly mappedBytes: number;
  /** Bytes of the guest that the device can reach now. */
  readonly exposedBytes: number;
  /** Bytes that descriptors spoke of. */
  readonly neededBytes: number;
  /** Queues that are served now. */
  readonly enabledQueues: number;
  readonly notifications: number;
  readonly interrupts: number;
  readonly refusedChains: number;
  /** Chains that were there when a turn began; bucket n holds depths up to 2^n. */
  readonly depth: Distribution;
  readonly operations: readonly OperationFigures[];
  /** Rules that its frontends broke, and how often. */
  readonly violations: ReadonlyMap<string, number>;
  /** What its backend could reach over time, where somebody follows that. */
  readonly exposure?: ExposureSums;
}

/** One queue worker. */
export interface WorkerFigures {
  readonly looks: number;
  readonly busyLooks: number;
  readonly sleeps: number;
  readonly sleptSeconds: number;
}

/** A whole process. */
export interface ServingFigures {
  readonly devices: readonly DeviceFigures[];
  readonly workers: readonly WorkerFigures[];
  /** Events that are not in the sums of exposure, where there are any. */
  readonly eventsLost?: number;
}

/** A device as it is counted. */
export interface CountedDevice {
  readonly name: string;
  readonly kind: string;
  /** The domain that has it, on a Xen host. */
  readonly guest?: number;
  readonly counters: SharedArrayBuffer;
  readonly violations: ReadonlyMap<string, number>;
}

/** Reads the counters of a device that `workers` threads serve. */
export function deviceFigures(device: CountedDevice, workers: number): DeviceFigures {
  const { name, kind, guest, counters, violations } = device;
  const control = controlBlock(counters);
  const blocks = Array.from({ length: workers }, (_, worker) => queueBlock(counters, worker));
  const { at } = QUEUE_BLOCK;
  const sum = (place: number): number => blocks.reduce((total, block) => total + block[place], 0);
  const sums = (start: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => sum(start + i));
  return {
    name,
    kind,
    ...(guest !== undefined && { guest }),
    violations,
    connected: control[CONTROL_BLOCK.at.connected] !== 0,
    connectedSince: control[CONTROL_BLOCK.at.connectedSince],
    sessions: control[CONTROL_BLOCK.at.sessions],
    refused: control[CONTROL_BLOCK.at.refused],
    closed: control[CONTROL_BLOCK.at.closed],
    mappings: control[CONTROL_BLOCK.at.mappings],
    mappedBytes: control[CONTROL_BLOCK.at.mappedBytes],
    // Each worker has been told of the same memory.
    exposedBytes: Math.max(0, ...blocks.map((block) => block[at.exposedBytes])),
    neededBytes: sum(at.neededBytes),
    enabledQueues: sum(at.enabledQueues),
    notifications: sum(at.notifications),
    interrupts: sum(at.interrupts),
    refusedChains: sum(at.refusedChains),
    depth: { buckets: sums(at.depths, DEPTHS), sum: sum(at.depthSum) },
    operations: operationsOf(kind).map((operation) => {
      const number = OPERATIONS.indexOf(operation);
      return {
        name: operation,
        requests: sum(at.requests + number),
        bytes: sum(at.bytes + number),
        errors: sums(at.errors + number * STATUSES.length, STATUSES.length),
        duration: {
          buckets: sums(at.durations + number * BUCKETS, BUCKETS),
          sum: sum(at.durationSum + number),
        },
      };
    }),
  };
}

/** Reads a worker's own counters. */
export function workerFigures(counters: Float64Array): WorkerFigures {
  const { at } = WORKER_BLOCK;
  return {
    looks: counters[at.looks],
    busyLooks: counters[at.busyLooks],
    sleeps: counters[at.sleeps],
    sleptSeconds: counters[at.sleptSeconds],
  };
}
