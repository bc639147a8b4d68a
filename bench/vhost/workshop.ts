// Where a run of the bench lives: the C programs, compiled anew, the images, and the processes, which all end
// with it. Before measurement.ts.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from './backends.ts';
import type { Job } from './jobs.ts';

const SOURCES = fileURLToPath(new URL('../../../bench/vhost/', import.meta.url));
const CC_WORDS = ['-std=c11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', '-Werror'];
export const IMAGE_BYTES = 256 * 2 ** 20;
const TMPFS_MAGIC = 0x01021994;
const PATIENCE_MILLISECONDS = 3000;

/** A program that runs, and what it says. */
export interface Running {
  readonly child: ChildProcess;
  /** Resolves with standard output when it ends well; rejects with what it said to standard error. */
  readonly output: Promise<string>;
  /** Resolves when it has ended, in whatever way. */
  readonly ended: Promise<void>;
}

/** Files and processes of one run. */
export class Workshop {
  readonly folder: string;
  /** Whether the images are on a file system that does O_DIRECT by itself. */
  readonly hasDirect: boolean;
  readonly #children = new Set<ChildProcess>();
  #sockets = 0;

  /** @param folder where to put the images; without it, a place that does O_DIRECT, if one is found */
  constructor(folder?: string) {
    const places = folder === undefined ? [tmpdir(), cacheFolder()] : [folder];
    const place = places.find(doesDirect);
    this.hasDirect = place !== undefined;
    this.folder = mkdtempSync(join(place ?? places[0], 'grantio-bench-'));
    process.once('exit', () => this.close());
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
    for (const name of ['load', 'twin']) this.#compile(name);
  }

  get load(): string {
    return join(this.folder, 'load');
  }

  get twin(): string {
    return join(this.folder, 'twin');
  }

  /** A path for a socket that nobody has used. */
  newSocket(): string {
    return join(this.folder, `${this.#sockets++}.sock`);
  }

  /** Makes the images: those that are written are not those whose content is checked. */
  makeImages(): void {
    for (const direct of [false, true]) {
      for (const write of [false, true]) {
        const words = ['--make', this.imageFor({ write, direct }), '--bytes', `${IMAGE_BYTES}`];
        execFileSync(this.load, direct ? [...words, '--uncached'] : words);
      }
    }
  }

  imageFor({ write, direct }: Pick<Job, 'write' | 'direct'>): string {
    return join(this.folder, `${direct ? 'direct' : 'cached'}-${write ? 'write' : 'read'}.img`);
  }

  /** Starts a program that may use only these cores. */
  start([program, ...words]: Command, cores: readonly number[]): Running {
    // The caller waits for what it says; both streams are read so that it never blocks on them.
    const child = spawn('taskset', ['-c', cores.join(), program, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    const ended = new Promise<void>((resolve) => {
      child.once('close', () => {
        this.#children.delete(child);
        resolve();
      });
    });
    return { child, output: outputOf(child, program), ended };
  }

  /** Ends a program: as an operator would, and by force when it does not listen. */
  async stop({ child, ended }: Running): Promise<void> {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MILLISECONDS);
    await ended;
    clearTimeout(timer);
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }

  #compile(name: string): void {
    const compiler = process.env['CC'] ?? 'cc';
    execFileSync(compiler, [...CC_WORDS, join(SOURCES, `${name}.c`), '-o', join(this.folder, name)]);
  }
}

function outputOf(child: ChildProcess, program: string): Promise<string> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const output = new Promise<string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      if (status === 0) resolve(stdout);
      else reject(new Error(`${program} ended with ${signal ?? status}: ${stderr.trim() || 'no word'}`));
    });
  });
  // Who started it may look at it later, or never; until then a failure is not an unhandled one.
  output.catch(() => undefined);
  return output;
}

function cacheFolder(): string {
  const folder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'grantio');
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Whether files in `folder` can be opened with O_DIRECT, to some effect: in memory there is nothing to bypass. */
function doesDirect(folder: string): boolean {
  if (!existsSync(folder) || statfsSync(folder).type === TMPFS_MAGIC) return false;
  const trial = mkdtempSync(join(folder, 'grantio-bench-'));
  try {
    closeSync(openSync(join(trial, 'file'), constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false;
    throw error;
  } finally {
    rmSync(trial, { recursive: true });
  }
}
