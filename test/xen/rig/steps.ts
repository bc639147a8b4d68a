// What the rig does before it can test: steps that take a while, each told on standard error with its duration, and
// with the log of all that its programs said, which a failure names.

import { spawn } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';

/** Characters of a log's end that a failure repeats. */
const LOG_END = 3000;

/** Where a program runs, and with what in its environment beside ours. */
export interface Surroundings {
  readonly folder?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs the programs of one build, and keeps what they say in a file. */
export class Steps {
  readonly #log: string;

  /** The log is made when there is something to write. */
  constructor(log: string) {
    this.#log = log;
  }

  /** Does `work`, which is told as `title` with its duration. A failure repeats the log's end and names it. */
  async step<T>(title: string, work: () => Promise<T>): Promise<T> {
    const began = Date.now();
    const seconds = (): string => `${((Date.now() - began) / 1000).toFixed(1)} s`;
    this.#note(`== ${title}`);
    process.stderr.write(`xen rig: ${title} ...\n`);
    try {
      const result = await work();
      process.stderr.write(`xen rig: ${title}: ${seconds()}\n`);
      return result;
    } catch (cause) {
      const end = readFileSync(this.#log, 'utf8').slice(-LOG_END);
      const said = cause instanceof Error ? cause.message : String(cause);
      throw new Error(
        `${title} failed after ${seconds()}: ${said}\nThe log is ${this.#log}; it ends with:\n${end}`,
        { cause },
      );
    }
  }

  /** Runs a program to its end, which must be a good one. Resolves with its standard output. */
  run(program: string, words: readonly string[], { folder, env = {} }: Surroundings = {}): Promise<string> {
    this.#note(`$ ${program} ${words.join(' ')}`);
    return new Promise((resolve, reject) => {
      const child = spawn(program, words, {
        cwd: folder,
        env: { ...process.env, LC_ALL: 'C', ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        appendFileSync(this.#log, text);
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => appendFileSync(this.#log, text));
      child.on('error', reject);
      child.on('close', (status, signal) => {
        if (status === 0) resolve(output);
        else reject(new Error(`${program} ended with ${signal ?? status}`));
      });
    });
  }

  #note(text: string): void {
    appendFileSync(this.#log, `${text}\n`);
  }
}
