// The folder that the first domain shares with the host (9p): grantio comes in, jobs come in while it runs, their
// output and the guests' consoles come out. Any process of the host may drop a job; the folder is all it needs to know.

import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { checkout } from './checkout.ts';
import { GrowingFile } from './growing-file.ts';

/** Packages that tests need in the first domain, beside what grantio needs to run. */
const FOR_TESTS = ['node_modules/fast-check', 'node_modules/pure-rand'];

/** Makes the folder for one run of the rig. Returns its path. */
export function makeShare(): string {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-xen-'));
  for (const name of ['jobs', 'consoles']) mkdirSync(join(folder, name));
  cpSync(checkout('test/xen/dom0'), join(folder, 'dom0'), { recursive: true });
  const model = join(folder, 'dom0/device-model');
  run('cc', ['-O2', '-static', '-Wall', '-Werror', '-o', model, `${model}.c`]);
  packGrantio(join(folder, 'grantio.tar'));
  return folder;
}

/** One archive is read far faster through the share than its files. */
function packGrantio(archive: string): void {
  const modules = dirname(realpathSync(checkout('node_modules')));
  const words = ['-cf', archive, '--exclude=*.map', '--exclude=*.d.ts'];
  words.push('-C', checkout('.'), 'package.json', 'bin', 'dist', '-C', modules, ...runtimePackages(modules));
  run('tar', words);
}

function run(program: string, words: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${stderr}`, { cause: error });
}

/** What `npm ci --omit=dev` would install, as far as it is there. */
function runtimePackages(folder: string): string[] {
  const lock = JSON.parse(readFileSync(checkout('package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  const names = Object.entries(lock.packages).flatMap(([name, { dev }]) => (name && !dev ? [name] : []));
  return [...names, ...FOR_TESTS].filter((name) => existsSync(join(folder, name)));
}

/** A script that the first domain runs, or has run. */
export class Job {
  readonly output: GrowingFile;
  readonly #status: GrowingFile;
  #ended: Promise<number> | undefined;

  constructor(share: string, name: string) {
    const base = join(share, 'jobs', name);
    this.output = new GrowingFile(`${base}.log`);
    this.#status = new GrowingFile(`${base}.status`);
  }

  /** Resolves with the exit status. Rejects if that takes longer than `limit` in milliseconds, as a hung job does. */
  ended(limit?: number): Promise<number> {
    this.#ended ??= this.#status.says(/^\d+$/, limit).then(([line]) => Number(line));
    return this.#ended;
  }
}

let jobs = 0;

/** Lets the first domain run a script of bash. */
export function startJob(share: string, script: string): Job {
  const name = `${process.pid}-${jobs++}`;
  const path = join(share, 'jobs', name);
  writeFileSync(`${path}.part`, `${script}\n`);
  renameSync(`${path}.part`, `${path}.job`);
  return new Job(share, name);
}
