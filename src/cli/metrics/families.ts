// The metrics that there are: name, meaning, labels, and how each is made of the figures of a process. Names follow the
// conventions of Prometheus; docs/operation.md has the same table. After metrics-server.ts, before render.ts.

import { DEPTHS, STATUSES } from '../../serving/counter-blocks.ts';
import { bucketOf } from '../../serving/log-buckets.ts';
import type { ExposureSums } from '../../serving/exposure-watch.ts';
import { movesData } from '../../serving/operations.ts';
import type {
  DeviceFigures,
  Distribution,
  OperationFigures,
  ServingFigures,
  WorkerFigures,
} from '../../serving/serving-figures.ts';

/** The process itself. */
export interface ProcessFigures {
  readonly version: string;
  /** Of all threads, user and system. */
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  /** Seconds since 1970. */
  readonly startTime: number;
}

/** All that metrics are made of. */
export interface Figures extends ServingFigures {
  readonly process: ProcessFigures;
}

type Labels = Readonly<Record<string, string>>;

/** One value. */
export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

/** How often a value was at most each bound, and the sum of all values. */
export interface HistogramSample {
  readonly labels: Labels;
  readonly bounds: readonly number[];
  /** One for each bound, and one for what is above all of them; not summed up. */
  readonly counts: readonly number[];
  readonly sum: number;
}

/** What every family has. */
interface FamilyHead {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
}

/** One metric with all its labels. */
export type Family =
  | (FamilyHead & { readonly type: 'counter' | 'gauge'; samples(figures: Figures): readonly Sample[] })
  | (FamilyHead & { readonly type: 'histogram'; samples(figures: Figures): readonly HistogramSample[] });

const NANOSECOND = 1e-9;

/** Bounds of the times that are exported, in nanoseconds: from 1 µs to 4.3 s, two for each power of two. */
const TIME_BOUNDS = Array.from({ length: 45 }, (_, i) => 2 ** (10 + (i >> 1)) * (i % 2 === 0 ? 1 : 1.5));
const DEPTH_BOUNDS = Array.from({ length: DEPTHS }, (_, i) => 2 ** i);

function times({ buckets, sum }: Distribution): Omit<HistogramSample, 'labels'> {
  const counts = TIME_BOUNDS.map(() => 0);
  counts.push(0);
  let place = 0;
  for (const [bucket, count] of buckets.entries()) {
    while (place < TIME_BOUNDS.length && bucket >= bucketOf(TIME_BOUNDS[place])) place++;
    counts[place] += count;
  }
  return { bounds: TIME_BOUNDS.map((bound) => bound * NANOSECOND), counts, sum: sum * NANOSECOND };
}

/** A family with one value for each device for which there is one. */
function ofDevice(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  value: (device: DeviceFigures) => number | undefined,
): Family {
  return {
    ...{ type, name, help, labels: ['device'] },
    samples: ({ devices }) =>
      devices.flatMap((device) => {
        const found = value(device);
        return found === undefined ? [] : [{ labels: { device: device.name }, value: found }];
      }),
  };
}

/** The same of what its backend could reach, where somebody follows that. */
function ofExposure(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  value: (sums: ExposureSums) => number,
): Family {
  return ofDevice(type, name, help, ({ exposure }) => exposure && value(exposure));
}

/** A family with values for each operation of each device. */
function ofOperation<S>(
  samples: (operation: OperationFigures, labels: Labels) => readonly S[],
): (figures: Figures) => readonly S[] {
  return ({ devices }) =>
    devices.flatMap(({ name, operations }) =>
      operations.flatMap((operation) => samples(operation, { device: name, op: operation.name })),
    );
}

/** A counter of each queue worker. */
function ofWorker(name: string, help: string, value: (worker: WorkerFigures) => number): Family {
  return {
    ...{ type: 'counter', name, help, labels: ['worker'] },
    samples: ({ workers }) =>
      workers.map((worker, number) => ({ labels: { worker: `${number}` }, value: value(worker) })),
  };
}

/** A value of the process. */
function ofProcess(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  value: (process: ProcessFigures) => number,
): Family {
  return {
    ...{ type, name, help, labels: [] },
    samples: (figures) => [{ labels: {}, value: value(figures.process) }],
  };
}

/** All of them, in the order in which they are printed. */
export const FAMILIES: readonly Family[] = [
  {
    ...{ type: 'gauge', name: 'grantio_device_info', labels: ['device', 'kind', 'guest'] },
    help: 'The devices that the process serves, and on a Xen host the domain that has each; always 1.',
    samples: ({ devices }) =>
      devices.map(({ name, kind, guest }) => ({
        labels: { device: name, kind, ...(guest !== undefined && { guest: `${guest}` }) },
        value: 1,
      })),
  },
  {
    ...{ type: 'counter', name: 'grantio_requests_total', labels: ['device', 'op'] },
    help: 'Requests that were answered, failed ones as well.',
    samples: ofOperation(({ requests }, labels) => [{ labels, value: requests }]),
  },
  {
    ...{ type: 'counter', name: 'grantio_data_bytes_total', labels: ['device', 'op'] },
    help: 'Data that requests without an error moved.',
    samples: ofOperation(({ name, bytes }, labels) => (movesData(name) ? [{ labels, value: bytes }] : [])),
  },
  {
    ...{ type: 'counter', name: 'grantio_request_errors_total', labels: ['device', 'op', 'status'] },
    help: 'Requests that failed, by the status that the driver was told.',
    samples: ofOperation(({ errors }, labels) =>
      errors.map((value, i) => ({ labels: { ...labels, status: STATUSES[i] }, value })),
    ),
  },
  {
    ...{ type: 'histogram', name: 'grantio_request_duration_seconds', labels: ['device', 'op'] },
    help: 'Time in the device, from taking a request from the ring to giving it back; at high rates from samples.',
    samples: ofOperation(({ duration }, labels) => [{ labels, ...times(duration) }]),
  },
  {
    ...{ type: 'histogram', name: 'grantio_queue_depth', labels: ['device'] },
    help: 'Requests that waited or were under way when the device began a turn at one of its queues.',
    samples: ({ devices }) =>
      devices.map(({ name, depth }) => ({
        ...{ labels: { device: name }, bounds: DEPTH_BOUNDS, counts: [...depth.buckets, 0], sum: depth.sum },
      })),
  },
  ofDevice(
    'gauge',
    'grantio_enabled_queues',
    'Queues that the driver has enabled, and that are served.',
    ({ enabledQueues }) => enabledQueues,
  ),
  ofDevice(
    'counter',
    'grantio_notifications_total',
    'Notifications from drivers that woke a worker.',
    ({ notifications }) => notifications,
  ),
  ofDevice('counter', 'grantio_interrupts_total', 'Interrupts that were sent to drivers.', (device) => {
    return device.interrupts;
  }),
  ofDevice(
    'counter',
    'grantio_refused_chains_total',
    'Requests of which the platform refused a buffer.',
    ({ refusedChains }) => refusedChains,
  ),
  ofDevice(
    'counter',
    'grantio_needed_bytes_total',
    'Bytes that the descriptors of requests spoke of: what the backend had to reach.',
    ({ neededBytes }) => neededBytes,
  ),
  ofDevice(
    'gauge',
    'grantio_exposed_bytes',
    "Bytes of the guest's memory that the backend can reach now: all that it was given, what the IOMMU maps, or the grants that it has mapped.",
    ({ exposedBytes }) => exposedBytes,
  ),
  ofExposure(
    'counter',
    'grantio_given_pages_total',
    'Pages that the backend was given to reach, each time one was.',
    ({ pages }) => pages,
  ),
  ofExposure(
    'gauge',
    'grantio_unneeded_pages',
    'Of the pages given, those that no request has spoken of.',
    ({ unneededPages }) => unneededPages,
  ),
  ofExposure(
    'counter',
    'grantio_foreign_readable_bytes_total',
    'Bytes in the pages given that requests did not speak of when they began to use the page.',
    ({ foreignReadableBytes }) => foreignReadableBytes,
  ),
  ofExposure(
    'counter',
    'grantio_foreign_writable_bytes_total',
    'The same in pages that the backend could write.',
    ({ foreignWritableBytes }) => foreignWritableBytes,
  ),
  ofExposure(
    'counter',
    'grantio_stale_windows_total',
    'Times that a page stayed within reach after its last use, and was taken away or used again later.',
    ({ staleWindows }) => staleWindows,
  ),
  ofExposure(
    'counter',
    'grantio_stale_seconds_total',
    'Time that they took, all together.',
    ({ staleSeconds }) => staleSeconds,
  ),
  ofExposure(
    'gauge',
    'grantio_longest_stale_seconds',
    'The longest of them, and of those that go on.',
    ({ longestStaleSeconds }) => longestStaleSeconds,
  ),
  {
    ...{ type: 'counter', name: 'grantio_trace_events_lost_total', labels: [] },
    help: 'Events that are not in these sums nor in the trace, because they came faster than they could be taken.',
    samples: ({ eventsLost }) => (eventsLost === undefined ? [] : [{ labels: {}, value: eventsLost }]),
  },
  ofDevice(
    'gauge',
    'grantio_mappings',
    "Mappings of the frontend's files in this process; of a Xen guest's, pages of it.",
    ({ mappings }) => mappings,
  ),
  ofDevice('gauge', 'grantio_mapped_bytes', 'Bytes of these mappings.', ({ mappedBytes }) => mappedBytes),
  ofDevice(
    'gauge',
    'grantio_frontend_connected',
    'Whether a frontend is connected; of a Xen guest, whether its driver uses the device.',
    ({ connected }) => (connected ? 1 : 0),
  ),
  ofDevice(
    'gauge',
    'grantio_frontend_connected_timestamp_seconds',
    'When the frontend that is connected came, in seconds since 1970; not there without one.',
    ({ connected, connectedSince }) => (connected ? connectedSince : undefined),
  ),
  ofDevice('counter', 'grantio_sessions_total', 'Frontends that were served.', ({ sessions }) => sessions),
  ofDevice(
    'counter',
    'grantio_frontends_refused_total',
    'Frontends that were turned away, because another one was being served.',
    ({ refused }) => refused,
  ),
  ofDevice(
    'counter',
    'grantio_connections_closed_total',
    'Connections that the backend closed: the frontend broke a rule, or the backend could not go on.',
    ({ closed }) => closed,
  ),
  {
    ...{ type: 'counter', name: 'grantio_violations_total', labels: ['device', 'clause'] },
    help: 'Rules that frontends and drivers broke, by the clause of virtio 1.3 or the request of vhost-user.',
    samples: ({ devices }) =>
      devices.flatMap(({ name, violations }) =>
        [...violations].map(([clause, value]) => ({ labels: { device: name, clause }, value })),
      ),
  },
  ofWorker('grantio_worker_looks_total', 'Looks of a worker at all of its rings.', ({ looks }) => looks),
  ofWorker(
    'grantio_worker_busy_looks_total',
    'Looks that found something to do.',
    ({ busyLooks }) => busyLooks,
  ),
  ofWorker('grantio_worker_sleeps_total', 'Times that a worker went to sleep.', ({ sleeps }) => sleeps),
  ofWorker(
    'grantio_worker_sleep_seconds_total',
    'Time that a worker has slept.',
    ({ sleptSeconds }) => sleptSeconds,
  ),
  ofProcess(
    'counter',
    'process_cpu_seconds_total',
    'Processor time of the process, user and system.',
    ({ cpuSeconds }) => cpuSeconds,
  ),
  ofProcess(
    'gauge',
    'process_resident_memory_bytes',
    "Memory of the process, with what it uses of guests' memory.",
    ({ residentBytes }) => residentBytes,
  ),
  ofProcess(
    'gauge',
    'process_start_time_seconds',
    'When the process was started, in seconds since 1970.',
    ({ startTime }) => startTime,
  ),
  {
    ...{ type: 'gauge', name: 'grantio_build_info', labels: ['version'] },
    help: 'The version of grantio; always 1.',
    samples: ({ process }) => [{ labels: { version: process.version }, value: 1 }],
  },
];
