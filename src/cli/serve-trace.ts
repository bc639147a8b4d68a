// Who follows what the devices of `grantio serve` can reach of their guests' memory: sums for the metrics, and the file
// of --trace. Loaded only where one of them is asked for. After serve-call.ts, before serving/exposure-watch.ts.

import { ExposureWatch } from '../serving/exposure-watch.ts';
import { DEVICE, guestAt } from '../serving/traced-numbers.ts';
import { SERVED_KINDS } from './serve-kinds.ts';
import type { ServePlan } from './serve-plan.ts';
import { WrittenTrace } from './trace-writing.ts';
import { version } from './version.ts';

/** Follows one process. */
export class ServeTrace {
  readonly watch: ExposureWatch;
  readonly #file: WrittenTrace | undefined;

  /** @throws UsageError when the file cannot be written */
  constructor(plan: ServePlan) {
    const { trace } = plan.operation;
    this.#file = trace === undefined ? undefined : new WrittenTrace(trace, headerOf(plan));
    this.watch = new ExposureWatch(plan.workers, this.#file?.writer);
  }

  /** Completes the file, when nobody reports any more. */
  close(): void {
    this.watch.close();
    this.#file?.close(this.watch.lost);
  }
}

function headerOf({ devices, restricted }: ServePlan) {
  return {
    version: version(),
    mode: restricted ? 'iommu' : 'plain',
    side: 'backend',
    devices: devices.map(({ name, spec }, endpoint) => ({
      domain: guestAt(endpoint),
      device: DEVICE,
      name,
      type: SERVED_KINDS[spec.kind].virtioId,
    })),
    startTime: new Date().toISOString(),
  } as const;
}
