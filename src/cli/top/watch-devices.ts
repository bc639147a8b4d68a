// Looks at the metrics of several processes, again and again, and makes rows of what was between. After top.ts, before
// read-metrics.ts and device-rows.ts.

import type { MetricsAddress } from '../metrics/metrics-address.ts';
import { type DeviceRow, deviceRows, type Look } from './device-rows.ts';
import { metricSamples } from './metric-samples.ts';

/** What a look at all processes gave. */
export interface Seen {
  readonly rows: readonly DeviceRow[];
  /** Sentences about processes that could not be asked. */
  readonly problems: readonly string[];
}

/** A process to be looked at. */
interface Watched {
  readonly place: string;
  readonly address: MetricsAddress;
  last: Look | undefined;
}

/** What is needed of the machine. */
export interface WatchIo {
  read(address: MetricsAddress): Promise<string>;
  /** Seconds of a clock that runs evenly, and seconds since 1970. */
  time(): number;
  wall(): number;
}

/** The processes whose devices are shown. */
export class DeviceWatch {
  readonly #watched: readonly Watched[];
  readonly #io: WatchIo;

  /** @param places each address, and what the user calls it */
  constructor(places: ReadonlyMap<string, MetricsAddress>, io: WatchIo) {
    this.#watched = [...places].map(([place, address]) => ({ place, address, last: undefined }));
    this.#io = io;
  }

  /** Asks all of them. Never rejects: whoever does not answer is a problem that is told. */
  async look(): Promise<Seen> {
    const answers = await Promise.all(this.#watched.map((watched) => this.#lookAt(watched)));
    return {
      rows: answers.flatMap((answer) => (typeof answer === 'string' ? [] : answer)),
      problems: answers.filter((answer) => typeof answer === 'string'),
    };
  }

  async #lookAt(watched: Watched): Promise<readonly DeviceRow[] | string> {
    const before = watched.last;
    try {
      const samples = metricSamples(await this.#io.read(watched.address));
      watched.last = { time: this.#io.time(), samples };
      return deviceRows(watched.last, before, this.#io.wall());
    } catch (error) {
      watched.last = undefined;
      return `metrics at ${watched.place}: ${error instanceof Error ? error.message : `${error}`}`;
    }
  }
}
