// The counters of all threads of a process, as its main thread has them: of workers, and of devices as they come and go.
// Used by vhost-server.ts and xen-server.ts; before serving-figures.ts.

import type { Notice } from './control.ts';
import { newWorkerCounters } from './counter-blocks.ts';
import type { ExposureSums, ExposureWatch } from './exposure-watch.ts';
import { type CountedDevice, deviceFigures, type ServingFigures, workerFigures } from './serving-figures.ts';

/** A device that is counted from now on. */
export interface NewDevice extends Omit<CountedDevice, 'violations'> {
  /** What its backend could reach over time, where somebody follows that. */
  readonly exposure?: (() => ExposureSums) | undefined;
}

/** What a process counts. */
export class ProcessCounters {
  /** Of each worker, which is to write there. */
  readonly workers: readonly Float64Array[];
  readonly #devices = new Map<string, NewDevice & { readonly violations: Map<string, number> }>();
  readonly #watch: ExposureWatch | undefined;

  /** @param watch follows what may be reached; nobody does without */
  constructor(workers: number, watch?: ExposureWatch) {
    this.workers = Array.from({ length: workers }, newWorkerCounters);
    this.#watch = watch;
  }

  /** Its name is that of no other. */
  add(device: NewDevice): void {
    this.#devices.set(device.name, { ...device, violations: new Map() });
  }

  remove(name: string): void {
    this.#devices.delete(name);
  }

  /** Counts the rule that was broken, if the notice names one. */
  heard({ device, clause }: Notice): void {
    const violations = this.#devices.get(device)?.violations;
    if (clause !== undefined) violations?.set(clause, (violations.get(clause) ?? 0) + 1);
  }

  /** What has been counted until now. No other thread is asked. */
  get figures(): ServingFigures {
    return {
      devices: [...this.#devices.values()].map((device) => ({
        ...deviceFigures(device, this.workers.length),
        ...(device.exposure && { exposure: device.exposure() }),
      })),
      workers: this.workers.map(workerFigures),
      ...(this.#watch && { eventsLost: this.#watch.lost }),
    };
  }
}
