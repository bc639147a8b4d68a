// The file of --trace: opened before anything is started, one file for all modes of a call. When it cannot be
// written any more, tracing ends and the run goes on (case O4).

import { closeSync, openSync, writeSync } from 'node:fs';
import type { TraceConsumer } from '../audit/events.ts';
import { TraceWriter } from '../audit/trace-file.ts';
import { devicesOf, modeLabel, type RunPlan } from './run-plan.ts';
import { UsageError } from './usage.ts';
import { version } from './version.ts';

/** Number in the trace of the first device of the mode at `index`. */
export function firstDevice(plan: RunPlan, index: number): number {
  return index * devicesOf(plan).length;
}

/** Where the events of a call go. */
export class TraceOutput {
  readonly #path: string;
  readonly #fd: number;
  readonly #writer: TraceWriter;
  /** Number of the next event: every host that is booted counts from 0. */
  #next = 0;

  /** @throws UsageError when the file cannot be written */
  constructor(path: string, plan: RunPlan, guest: number) {
    this.#path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (error) {
      throw new UsageError(`trace file ${path}: cannot be written: ${(error as Error).message}`);
    }
    const header = {
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
    };
    this.#writer = new TraceWriter(header, (chunk) => this.#write(chunk));
  }

  /** Takes the events of the next host that is booted, whose exposure mode is `mode`. */
  consumer(mode: string): TraceConsumer {
    const first = this.#next;
    this.#writer.beginRun(mode);
    return {
      consume: (event) => {
        const sequence = first + event.sequence;
        this.#next = sequence + 1;
        this.#writer.consume({ ...event, sequence });
      },
    };
  }

  /** Adds the texts of stacks of calls that the events of the last host name by their numbers. */
  addStacks(stacks: ReadonlyMap<number, string>): void {
    this.#writer.addStacks(stacks);
  }

  /** Completes the file, and says if it is not complete. */
  close(): void {
    this.#writer.close();
    closeSync(this.#fd);
    const { failure, lost } = this.#writer;
    if (failure !== undefined)
      process.stderr.write(
        `grantio: trace file ${this.#path}: ${(failure as Error).message}; ${lost} events are not in it\n`,
      );
  }

  #write(chunk: string): void {
    const bytes = Buffer.from(chunk);
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
  }
}
