// The trace on disk: Chrome trace events as a JSON array, one object a line, which ui.perfetto.dev opens
// and `grantio audit` reads back event by event. Lines are drawn by trace-lines.ts, read by trace-reader.ts.
//
// Every line but the first starts with the comma that separates it from the one before, and tools take an
// array without its closing bracket: a file cut anywhere is good up to its last full line.

import type { TraceConsumer, TraceEvent } from './events.ts';
import { TraceLines } from './trace-lines.ts';

/** Version of this file format. */
export const TRACE_FORMAT = 1;

/** What a trace is of. */
export interface TraceHeader {
  /** grantio's version. */
  readonly version: string;
  /** Exposure mode of the run. */
  readonly mode: string;
  /** The devices by the numbers that events use. */
  readonly devices: readonly { readonly domain: number; readonly device: number; readonly name: string }[];
  /** When time 0 of the events was, as ISO 8601 text. */
  readonly startTime: string;
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
    const args = JSON.stringify({ format: TRACE_FORMAT, ...header });
    this.#chunk = `[{"name":"grantio","cat":"__metadata","ph":"M","ts":0,"pid":0,"tid":0,"args":${args}}\n`;
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
