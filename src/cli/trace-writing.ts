// The file of --trace: opened before anything is started. When it cannot be written any more, tracing ends and the run
// goes on (case O4). Used by trace-output.ts and backend-trace.ts.

import { closeSync, openSync, writeSync } from 'node:fs';
import { type TraceHeader, TraceWriter } from '../audit/trace-file.ts';
import { UsageError } from './usage.ts';

/** A trace on its way into a file. */
export class WrittenTrace {
  readonly writer: TraceWriter;
  readonly #path: string;
  readonly #fd: number;

  /** @throws UsageError when the file cannot be written */
  constructor(path: string, header: TraceHeader) {
    this.#path = path;
    try {
      this.#fd = openSync(path, 'w');
    } catch (error) {
      throw new UsageError(`trace file ${path}: cannot be written: ${(error as Error).message}`);
    }
    this.writer = new TraceWriter(header, (chunk) => this.#write(chunk));
  }

  /**
   * Completes the file, and says if it is not complete.
   *
   * @param unreported events that never came to the file
   */
  close(unreported = 0): void {
    this.writer.close();
    closeSync(this.#fd);
    const { failure, lost } = this.writer;
    const missing = lost + unreported;
    if (missing === 0) return;
    const why =
      failure === undefined ? 'they came faster than they could be taken' : (failure as Error).message;
    process.stderr.write(`grantio: trace file ${this.#path}: ${why}; ${missing} events are not in it\n`);
  }

  #write(chunk: string): void {
    const bytes = Buffer.from(chunk);
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
  }
}
