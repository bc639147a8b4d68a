// A program that a rig started: what it says, line by line, and how it ends. It runs in a process group of its
// own, so that what it started in its turn (User-Mode Linux starts helpers) ends with it.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';

/** How long one wait may take before the program counts as hung: far more than a busy machine needs. */
const LIMIT_MILLISECONDS = 480_000;

/** A line that says that the program has failed; who waits for another line need not wait any longer. */
const FAILURE = /^GRANTIO failed|Kernel panic|^BUG:|vhost vring error/;

/** How a program ended. */
export interface Ending {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A program that runs, and its lines on standard output and standard error. */
export class Program {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #unread: string[] = [];
  readonly #events = new EventEmitter();
  #ending: Ending | Error | undefined;

  /** Starts `command`; `heard` gets each line that it says. */
  constructor(name: string, command: string, words: readonly string[], heard: (line: string) => void) {
    this.#name = name;
    this.#child = spawn(command, words, { detached: true, stdio: 'pipe' });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      createInterface({ input: stream! }).on('line', (text) => {
        const line = text.replaceAll('\r', '');
        heard(line);
        this.#unread.push(line);
        this.#events.emit('news');
      });
    // A program that ends while it is written to; that it ended is seen where it matters.
    this.#child.stdin?.on('error', (error) => heard(`(cannot be written to: ${error.message})`));
    this.#child.on('error', (error) => this.#end(error));
    this.#child.on('close', (status, signal) => this.#end({ status, signal }));
  }

  /** Resolves with the first line after the ones already read that has `pattern`, which is then read too. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const limit = AbortSignal.timeout(LIMIT_MILLISECONDS);
    for (;;) {
      for (let line = this.#unread.shift(); line !== undefined; line = this.#unread.shift()) {
        const match = pattern.exec(line);
        if (match) return match;
        if (FAILURE.test(line)) throw new Error(`${this.#name} says: ${line}`);
      }
      if (this.#ending) throw new Error(`${this.#name} ended and never said ${pattern}`);
      await this.#news(`say ${pattern}`, limit);
    }
  }

  /** Resolves when the program has ended; rejects when it could not be started. */
  async ended(): Promise<Ending> {
    const limit = AbortSignal.timeout(LIMIT_MILLISECONDS);
    while (!this.#ending) await this.#news('end', limit);
    if (this.#ending instanceof Error) throw this.#ending;
    return this.#ending;
  }

  /** Types a line. */
  send(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Asks the program to end, as `kill` does, which it must do well. */
  async end(): Promise<void> {
    this.#child.kill('SIGTERM');
    const { status, signal } = await this.ended();
    assert.equal(status, 0, `${this.#name} ended with ${signal ?? status} after SIGTERM`);
  }

  /** Ends the program, if it still runs, and what it started, at once (`kill -9`). */
  kill(): void {
    if (!this.#ending && this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL');
  }

  #end(ending: Ending | Error): void {
    this.#ending ??= ending;
    this.#events.emit('news');
  }

  /** Resolves at the next line, or when the program ends. */
  async #news(what: string, limit: AbortSignal): Promise<void> {
    try {
      await once(this.#events, 'news', { signal: limit });
    } catch (cause) {
      throw new Error(`${this.#name} did not ${what} within ${LIMIT_MILLISECONDS / 1000} s`, { cause });
    }
  }
}
