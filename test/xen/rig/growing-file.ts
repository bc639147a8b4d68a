// A file that somebody else writes, line by line, through a file system that tells nobody of changes: it is looked at
// again and again.

import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** How often the file is looked at, in milliseconds. */
const PERIOD = 50;

/** How long one wait may take before what writes the file counts as hung: far more than a busy machine needs. */
const LIMIT = 480_000;

/** A line that says that the writer has failed; who waits for another line need not wait any longer. */
const FAILURE = /^GRANTIO failed|Kernel panic|^BUG:/;

/** The lines of a file that need not be there yet. */
export class GrowingFile {
  readonly path: string;
  #offset = 0;
  #rest = '';

  constructor(path: string) {
    this.path = path;
  }

  /** Resolves with the first line after the ones already read that has `pattern`, which is then read too. */
  async says(pattern: RegExp, limit = LIMIT): Promise<RegExpExecArray> {
    const end = Date.now() + limit;
    for (;;) {
      for (let line = this.#line(); line !== undefined; line = this.#line()) {
        const match = pattern.exec(line);
        if (match) return match;
        if (FAILURE.test(line)) throw new Error(`${this.path} says: ${line}`);
      }
      if (Date.now() > end) throw new Error(`${this.path} did not say ${pattern} within ${limit / 1000} s`);
      if (this.read() === '') await delay(PERIOD);
    }
  }

  /** What was added since the last time, beside what `says` has looked at. */
  read(): string {
    const text = this.#added();
    this.#rest += text;
    return text;
  }

  #line(): string | undefined {
    const end = this.#rest.indexOf('\n');
    if (end < 0) return undefined;
    const line = this.#rest.slice(0, end).replaceAll('\r', '');
    this.#rest = this.#rest.slice(end + 1);
    return line;
  }

  #added(): string {
    let file: number;
    try {
      file = openSync(this.path, 'r');
    } catch {
      return '';
    }
    try {
      const buffer = Buffer.alloc(65536);
      const length = readSync(file, buffer, 0, buffer.length, this.#offset);
      this.#offset += length;
      return buffer.toString('latin1', 0, length);
    } finally {
      closeSync(file);
    }
  }
}
