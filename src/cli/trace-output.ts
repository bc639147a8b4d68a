// The trace of `grantio run`: one file for all modes of a call. After trace-writing.ts, before audit/trace-file.ts.

import type { TraceConsumer } from '../audit/events.ts';
import { devicesOf, modeLabel, type RunPlan } from './run-plan.ts';
import { WrittenTrace } from './trace-writing.ts';
import { version } from './version.ts';

/** Number in the trace of the first device of the mode at `index`. */
export function firstDevice(plan: RunPlan, index: number): number {
  return index * devicesOf(plan).length;
}

/** Where the events of a call go. */
export class TraceOutput {
  readonly #file: WrittenTrace;
  /** Number of the next event: every host that is booted counts from 0. */
  #next = 0;

  /** @throws UsageError when the file cannot be written */
  constructor(path: string, plan: RunPlan, guest: number) {
    this.#file = new WrittenTrace(path, {
      version: version(),
      mode: plan.modes.map((mode) => modeLabel(plan, mode)).join(','),
      devices: plan.modes.flatMap((mode, index) =>
        devicesOf(plan).map((device, devid) => ({
          domain: guest,
          device: firstDevice(plan, index) + devid,
          ...device,
          mode: modeLabel(plan, mode),
        })),
      ),
      startTime: new Date().toISOString(),
    });
  }

  /** Takes the events of the next host that is booted, whose exposure mode is `mode`. */
  consumer(mode: string): TraceConsumer {
    const first = this.#next;
    this.#file.writer.beginRun(mode);
    return {
      consume: (event) => {
        const sequence = first + event.sequence;
        this.#next = sequence + 1;
        this.#file.writer.consume({ ...event, sequence });
      },
    };
  }

  /** Adds the texts of stacks of calls that the events of the last host name by their numbers. */
  addStacks(stacks: ReadonlyMap<number, string>): void {
    this.#file.writer.addStacks(stacks);
  }

  /** Completes the file, and says if it is not complete. */
  close(): void {
    this.#file.close();
  }
}
