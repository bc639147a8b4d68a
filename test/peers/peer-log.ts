// The log of one try of a peer: all that was said goes into it, and it is kept on failure only.

import { appendFileSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

/** Characters of a log's end that a failure repeats. */
const LOG_END = 6000;

/** A log beside the folder of its try, which goes when that ends. */
export class PeerLog {
  readonly path: string;

  constructor(folder: string) {
    this.path = join(tmpdir(), `${basename(folder)}.log`);
  }

  note(text: string): void {
    appendFileSync(this.path, `${text}\n`);
  }

  /** `error` with the end of the log and the place of all of it. */
  failure(error: unknown): Error {
    const said = error instanceof Error ? error.message : String(error);
    const end = readFileSync(this.path, 'utf8').slice(-LOG_END);
    return new Error(`${said}\nThe log is ${this.path}; it ends with:\n${end}`, { cause: error });
  }

  remove(): void {
    rmSync(this.path);
  }
}
