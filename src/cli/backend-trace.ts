// Who follows what the devices of a backend can reach of their guests' memory: sums for the metrics, and the file of
// --trace. Loaded only where one of them is asked for. After serve-trace.ts and xen-backend-trace.ts, before
// serving/exposure-watch.ts.

import type { TraceHeader } from '../audit/trace-file.ts';
import { ExposureWatch } from '../serving/exposure-watch.ts';
import { WrittenTrace } from './trace-writing.ts';
import { version } from './version.ts';

/** Follows one process. */
export class BackendTrace {
  readonly watch: ExposureWatch;
  readonly #file: WrittenTrace | undefined;

  /**
   * @param path of the file, if there is to be one
   * @param workers threads that report, besides the one that deals with guests
   * @throws UsageError when the file cannot be written
   */
  constructor(path: string | undefined, about: Pick<TraceHeader, 'mode' | 'devices'>, workers: number) {
    const startTime = new Date().toISOString();
    const header: TraceHeader = { version: version(), side: 'backend', startTime, ...about };
    this.#file = path === undefined ? undefined : new WrittenTrace(path, header);
    this.watch = new ExposureWatch(workers, this.#file?.writer);
  }

  /** Completes the file, when nobody reports any more. */
  close(): void {
    this.watch.close();
    this.#file?.close(this.watch.lost);
  }
}
