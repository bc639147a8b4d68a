// What devices did between two looks at their process's metrics. After watch-devices.ts, before top-table.ts.

import type { MetricSample } from './metric-samples.ts';

/** The metrics of a process at one moment. */
export interface Look {
  /** Seconds of any clock that runs evenly. */
  readonly time: number;
  readonly samples: readonly MetricSample[];
}

/** One device. What needs two looks, or requests between them, is undefined without. */
export interface DeviceRow {
  readonly device: string;
  readonly kind: string;
  /** Seconds for which its frontend has been connected. */
  readonly connected: number | undefined;
  /** Requests a second. */
  readonly iops: number | undefined;
  readonly bytesPerSecond: number | undefined;
  /** Seconds in the device, and the time that 99 of 100 requests do not exceed. */
  readonly mean: number | undefined;
  readonly p99: number | undefined;
  /** Requests that waited or were under way when a turn began, on average. */
  readonly depth: number | undefined;
  /** Processors that its process keeps busy. */
  readonly cpu: number | undefined;
  /** Bytes of the guest that the backend can reach. */
  readonly exposed: number;
  /** Bytes that it could read and that no request spoke of, since the process was started; where that is followed. */
  readonly foreign: number | undefined;
  /** Failed requests, and broken rules, since the process was started. */
  readonly errors: number;
  readonly violations: number;
}

/** A histogram's bounds and how many values are at most each. */
type Buckets = ReadonlyMap<number, number>;

/** The samples of one device, or of a process. */
class Samples {
  readonly #samples: readonly MetricSample[];

  constructor(samples: readonly MetricSample[]) {
    this.#samples = samples;
  }

  /** The sum of all samples of that name. */
  sum(name: string): number {
    return this.#named(name).reduce((sum, { value }) => sum + value, 0);
  }

  value(name: string): number | undefined {
    return this.#named(name)[0]?.value;
  }

  buckets(name: string): Buckets {
    const buckets = new Map<number, number>();
    for (const { labels, value } of this.#named(`${name}_bucket`)) {
      const bound = Number(labels.get('le')?.replace('+Inf', 'Infinity'));
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    }
    return buckets;
  }

  #named(name: string): readonly MetricSample[] {
    return this.#samples.filter((sample) => sample.name === name);
  }
}

/**
 * The devices of a process now, and what they did since an earlier look. A process that was started again in between
 * counts from nothing.
 *
 * @param wall seconds since 1970
 */
export function deviceRows(now: Look, before: Look | undefined, wall: number): readonly DeviceRow[] {
  const devices = now.samples.filter(({ name }) => name === 'grantio_device_info');
  const earlier = before !== undefined && startOf(before) === startOf(now) ? before : undefined;
  const current = byDevice(now);
  const previous = earlier && byDevice(earlier);
  const none = new Samples([]);
  const elapsed = now.time - (earlier?.time ?? 0);
  const cpu =
    earlier &&
    (new Samples(now.samples).sum('process_cpu_seconds_total') -
      new Samples(earlier.samples).sum('process_cpu_seconds_total')) /
      elapsed;
  return devices.map(({ labels }) => {
    const device = labels.get('device') ?? '';
    const samples = current.get(device) ?? none;
    const since = samples.value('grantio_frontend_connected_timestamp_seconds');
    return {
      ...{ device, kind: labels.get('kind') ?? '', cpu },
      connected: since === undefined ? undefined : Math.max(0, wall - since),
      ...work(samples, previous && sameDevice(samples, previous.get(device) ?? none), elapsed),
      exposed: samples.sum('grantio_exposed_bytes'),
      foreign: samples.value('grantio_foreign_readable_bytes_total'),
      errors: samples.sum('grantio_request_errors_total'),
      violations: samples.sum('grantio_violations_total'),
    };
  });
}

function startOf({ samples }: Look): number | undefined {
  return new Samples(samples).value('process_start_time_seconds');
}

function byDevice({ samples }: Look): ReadonlyMap<string, Samples> {
  const lists = new Map<string, MetricSample[]>();
  for (const sample of samples) {
    const device = sample.labels.get('device');
    if (device === undefined) continue;
    const list = lists.get(device) ?? [];
    lists.set(device, list);
    list.push(sample);
  }
  return new Map([...lists].map(([device, list]) => [device, new Samples(list)]));
}

/** What was counted of a device before, if it is the same still: another one of its name counts from nothing. */
function sameDevice(now: Samples, before: Samples): Samples {
  const requests = 'grantio_requests_total';
  return now.sum(requests) < before.sum(requests) ? new Samples([]) : before;
}

type Work = Pick<DeviceRow, 'iops' | 'bytesPerSecond' | 'mean' | 'p99' | 'depth'>;

function work(now: Samples, before: Samples | undefined, seconds: number): Work {
  if (before === undefined)
    return { iops: undefined, bytesPerSecond: undefined, mean: undefined, p99: undefined, depth: undefined };
  const grown = (name: string): number => now.sum(name) - before.sum(name);
  const time = 'grantio_request_duration_seconds';
  return {
    iops: grown('grantio_requests_total') / seconds,
    bytesPerSecond: grown('grantio_data_bytes_total') / seconds,
    mean: ratio(grown(`${time}_sum`), grown(`${time}_count`)),
    p99: quantile(0.99, now.buckets(time), before.buckets(time)),
    depth: ratio(grown('grantio_queue_depth_sum'), grown('grantio_queue_depth_count')),
  };
}

function ratio(sum: number, count: number): number | undefined {
  return count > 0 ? sum / count : undefined;
}

/** The value that `part` of what came between two looks does not exceed; within a bucket values are taken as even. */
function quantile(part: number, now: Buckets, before: Buckets): number | undefined {
  const bounds = [...now.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => now.get(bound)! - (before.get(bound) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (total <= 0) return undefined;
  const rank = part * total;
  const place = counts.findIndex((count) => count >= rank);
  const low = place === 0 ? 0 : bounds[place - 1];
  // Above the highest bound nothing more is known.
  if (bounds[place] === Number.POSITIVE_INFINITY) return low;
  const below = place === 0 ? 0 : counts[place - 1];
  return low + ((bounds[place] - low) * (rank - below)) / (counts[place] - below);
}
