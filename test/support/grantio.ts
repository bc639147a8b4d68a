// Runs bin/grantio as users do, as a child process: for the tests of its command line (test/cli) and of real
// programs on its disks (test/peers). Whatever a test started ends with the test.

import assert from 'node:assert/strict';
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The program; the compiled tests are in dist/test. */
export const GRANTIO = fileURLToPath(new URL('../../../bin/grantio', import.meta.url));

/** How long one run may take before it counts as hung: far more than any run needs on a busy machine. */
const LIMIT_MILLISECONDS = 120_000;

/** How a program ended, and all it said. */
export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where a program runs. */
export interface Surroundings {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Descriptors of ours that are its 3, 4 and so on. */
  readonly fds?: readonly number[];
}

/** A program that runs. */
export class Running {
  readonly #child: ChildProcess;
  readonly #name: string;
  #stdout = '';
  #stderr = '';
  #over = false;
  #onOutput: () => void = () => undefined;
  /** Resolves when it has ended; rejects when it could not be started or took longer than the limit. */
  readonly ended: Promise<Ended>;

  constructor(program: string, words: readonly string[], { cwd, env, fds = [] }: Surroundings) {
    this.#name = [program, ...words].join(' ');
    // A process group of its own, so that what it started can be ended with it.
    const stdio: StdioOptions = ['ignore', 'pipe', 'pipe', ...fds];
    this.#child = spawn(program, words, { cwd, env, detached: true, stdio });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#onOutput();
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#onOutput();
    });
    this.ended = this.#end();
    // Who started it may look at it later; until then a failure is not an unhandled one.
    this.ended.catch(() => undefined);
  }

  /** Its process; undefined when it could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Sends a signal to the program alone, as `kill` does. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when standard error has `pattern`; rejects when the program ends before. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(this.#stderr);
        if (match) resolve(match);
      };
      this.#onOutput = look;
      look();
      this.ended.then(
        () => reject(new Error(`${this.#name}\nended and never said ${pattern}:\n${this.#stderr}`)),
        reject,
      );
    });
  }

  /** Ends the program, if it still runs, and what it started, at once. */
  kill(): void {
    if (!this.#over && this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL');
  }

  #end(): Promise<Ended> {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => {
        this.kill();
        const said = `standard output:\n${this.#stdout}\nstandard error:\n${this.#stderr}`;
        reject(new Error(`${this.#name}\nwas ended after ${LIMIT_MILLISECONDS / 1000} s; ${said}`));
      }, LIMIT_MILLISECONDS);
      this.#child.on('error', (error) => {
        clearTimeout(limit);
        reject(error);
      });
      this.#child.on('close', (status, signal) => {
        clearTimeout(limit);
        this.#over = true;
        resolve({ status, signal, stdout: this.#stdout, stderr: this.#stderr });
      });
    });
  }
}

/** Starts `grantio WORDS...`; it ends with the test at the latest. */
export function startGrantio(
  test: TestContext,
  words: readonly string[],
  surroundings: Surroundings = {},
): Running {
  const running = new Running(process.execPath, [GRANTIO, ...words], surroundings);
  test.after(() => running.kill());
  return running;
}

/** Starts `grantio serve WORDS...`, whose log is for people. */
export function startServe(
  test: TestContext,
  words: readonly string[],
  surroundings: Surroundings = {},
): Running {
  return startGrantio(test, ['serve', ...words, '--log-format=pretty'], surroundings);
}

/** The same as `startGrantio`, with its own number in the variable `name`, as systemd tells it to those whom it starts. */
export function startNumbered(
  test: TestContext,
  name: string,
  words: readonly string[],
  surroundings: Surroundings,
): Running {
  const script = `${name}=$$ exec "$0" "$@"`;
  const running = new Running('sh', ['-c', script, process.execPath, GRANTIO, ...words], surroundings);
  test.after(() => running.kill());
  return running;
}

/** Runs `grantio WORDS...` to its end. */
export function grantio(
  test: TestContext,
  words: readonly string[],
  surroundings: Surroundings = {},
): Promise<Ended> {
  return startGrantio(test, words, surroundings).ended;
}

/** Waits until the run has written events to its trace file: it is in the middle of its work then. */
export async function tracing(running: Running, file: string): Promise<void> {
  let hasEnded = false;
  const ended = (): void => {
    hasEnded = true;
  };
  running.ended.then(ended, ended);
  while (!statSync(file, { throwIfNoEntry: false })?.size) {
    assert.ok(!hasEnded, `ended before anything was traced: ${running.stderr}`);
    await delay(5);
  }
}

/** A folder that is removed after the test. */
export function temporaryFolder(test: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-test-'));
  test.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}
