// The trace on disk: Chrome trace events as a JSON array, one object a line, which ui.perfetto.dev opens
// and `grantio audit` reads back event by event. Lines are drawn by trace-lines.ts, read by trace-reader.ts.
//
// Every line but the first starts with the comma that separates it from the one before, and tools take an
// array without its closing bracket: a file cut anywhere is good up to its last full line.

import type { TraceConsumer, TraceEvent } from './events.ts';
import { TraceLines } from './trace-lines.ts';

/** Version of this file format. */
export const TRACE_FORMAT = 1;

/** A device by the numbers that events use. */
export interface TracedDevice {
  readonly domain: number;
  readonly device: number;
  readonly name: string;
  /** Its exposure mode. */
  readonly mode?: string;
  /** The virtio device id, which says what the types of its requests mean. */
  readonly type?: number;
}

/** What a trace is of. */
export interface TraceHeader {
  /** grantio's version. */
  readonly version: string;
  /** Exposure modes of the runs, with commas between them. */
  readonly mode: string;
  readonly devices: readonly TracedDevice[];
  /** `backend` where the events are those of a backend alone, because nobody reports what the guest grants. */
  readonly side?: 'backend';
  /** When time 0 of the events was, as ISO 8601 text. */
  readonly startTime: string;
}

/** Names of the lines that say what is not an event. */
export const RUN_LINE = 'grantio_run';
export const STACK_LINE = 'grantio_stack';

function metadata(name: string, args: object): string {
  return `{"name":"${name}","cat":"__metadata","ph":"M","ts":0,"pid":0,"tid":0,"args":${JSON.stringify(args)}}\n`;
}

/** Writes events to a sink. A sink that fails ends the trace, never the run. */
export class TraceWriter implements TraceConsumer {
  readonly #write: (chunk: string) => void;
  readonly #chunkSize: number;
  readonly #lines = new TraceLines();
  #chunk: string;
  /** Events in the chunk. */
  #chunkEvents = 0;
  #lost = 0;
  #isOpen = true;
  #failure: unknown = undefined;

  /**
   * @param write takes the text piece by piece; when it throws, tracing stops
   * @param chunkSize characters collected before they are handed to `write`
   */
  constructor(header: TraceHeader, write: (chunk: string) => void, chunkSize = 65_536) {
    this.#write = write;
    this.#chunkSize = chunkSize;
    this.#chunk = `[${metadata('grantio', { format: TRACE_FORMAT, ...header })}`;
  }

  /** What follows is of a host that was booted anew: nothing of what was live before lives on. */
  beginRun(mode: string): void {
    this.#note(metadata(RUN_LINE, { mode }));
  }

  /** Adds the texts of the stacks of calls that events since the last beginRun() name by their numbers. */
  addStacks(stacks: ReadonlyMap<number, string>): void {
    for (const [stack, text] of stacks) this.#note(metadata(STACK_LINE, { stack, text }));
  }

  consume(event: TraceEvent): void {
    if (!this.#isOpen) {
      this.#lost++;
      return;
    }
    this.#chunk += this.#lines.of(event);
    this.#chunkEvents++;
    if (this.#chunk.length >= this.#chunkSize) this.flush();
  }

  #note(line: string): void {
    if (!this.#isOpen) return;
    this.#chunk += `,${line}`;
    if (this.#chunk.length >= this.#chunkSize) this.flush();
  }

  /** Hands what has been collected to the sink. */
  flush(): void {
    if (!this.#isOpen || this.#chunk === '') return;
    try {
      this.#write(this.#chunk);
    } catch (error) {
      this.stop(error);
      return;
    }
    this.#chunk = '';
    this.#chunkEvents = 0;
  }

  /** Completes the file; events that come later are counted as lost. */
  close(): void {
    if (!this.#isOpen) return;
    this.#chunk += ']\n';
    this.flush();
    this.#isOpen = false;
  }

  /** Ends tracing because the sink failed, for sinks that report it later than in `write`. */
  stop(reason: unknown): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#failure = reason;
    this.#lost += this.#chunkEvents;
    this.#chunk = '';
  }

  /** Events that are not in the file; of the chunk at which the sink failed, all. */
  get lost(): number {
    return this.#lost;
  }

  /** Why tracing ended early; undefined while it has not. */
  get failure(): unknown {
    return this.#failure;
  }
}
