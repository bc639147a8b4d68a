// What every test on a real Xen shares: the machine that `npm run test:xen` has started, commands in its first domain,
// guests and backends there that end with the test, and the names of all logs in a failure.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { GrowingFile } from './growing-file.ts';
import { takeMachine } from './running.ts';
import { type Job, startJob } from './share.ts';

/** Places for devices of a guest, in the order of its kernel's command line (../guest/kernel.config). */
export const PLACES = [
  '0xd0000000,irq=5',
  '0xd0000200,irq=10',
  '0xd0000400,irq=11',
  '0xd0000600,irq=9',
] as const;

/** The file with the test: others run beside it and tell of their progress too. */
const PROGRAM = basename(process.argv[1] ?? '', '.test.js');

/** A test on the machine, left out for the reason `skip` if there is one, after which no guest may be left, not even a dead one whose grants are still mapped. */
export function xenTest(title: string, work: (xen: Xen) => Promise<void>, skip = ''): void {
  test(title, { skip: skip || false }, async (context) => {
    const share = takeMachine();
    assert.ok(share, 'no machine runs: use npm run test:xen, or start one (docs/real-xen.md)');
    const xen = new Xen(context, share);
    process.stderr.write(`${title}\n`);
    try {
      await work(xen);
      await xen.expectGone(...xen.guests);
    } catch (error) {
      throw xen.failure(error);
    } finally {
      await xen.clean();
    }
  });
}

/** One test's view of the first domain. */
export class Xen {
  readonly #title: string;
  readonly #share: string;
  readonly #began = Date.now();
  /** All that were made. */
  readonly guests: Guest[] = [];
  readonly #backends: Backend[] = [];
  readonly #logs: string[] = [];

  constructor(context: TestContext, share: string) {
    this.#title = context.name.replaceAll(/\W+/g, '-').slice(0, 30);
    this.#share = share;
    this.#logs.push(join(share, 'xen.log'));
  }

  /** Tells on standard error how far the test is. */
  tell(text: string): void {
    const seconds = ((Date.now() - this.#began) / 1000).toFixed(1);
    process.stderr.write(`${seconds.padStart(7)} s  ${PROGRAM}: ${text}\n`);
  }

  /** Lets a script of bash run in the first domain. */
  start(script: string): Job {
    const job = startJob(this.#share, script);
    this.#logs.push(job.output.path);
    return job;
  }

  /** Runs a script to its end, which must be a good one. Resolves with what it said. */
  async run(script: string): Promise<string> {
    const job = startJob(this.#share, `set -eo pipefail\n${script}`);
    const status = await job.ended();
    const said = readFileSync(job.output.path, 'utf8');
    assert.equal(status, 0, `in the first domain failed:\n${script}\n${said}`);
    return said;
  }

  /** Puts a file into the first domain. Resolves with its path there. */
  async put(name: string, content: Uint8Array): Promise<string> {
    writeFileSync(join(this.#share, name), content);
    const path = `/root/${name}`;
    await this.run(`mv /share/${name} ${path}`);
    return path;
  }

  /** The content of a file of the first domain. */
  async get(path: string): Promise<Buffer> {
    await this.run(`cp ${path} /share/file-of-dom0`);
    return readFileSync(join(this.#share, 'file-of-dom0'));
  }

  /** Fails if one of `guests` is still there, or a dead domain whose memory somebody still maps: a "(null)" one. */
  async expectGone(...guests: readonly Guest[]): Promise<void> {
    const lines = (await this.run('xl list')).trim().split('\n').slice(1);
    const gone = ['(null)', ...guests.map(({ name }) => name)];
    const left = lines.filter((line) => gone.includes(line.split(/\s+/)[0]!));
    assert.deepEqual(left, [], 'domains that are left');
  }

  /** Makes a guest that will run `script` of its shell (../guest/init); it does not run yet. */
  async guest(
    name: string,
    script: string,
    kernel: 'vmlinux' | 'vmlinux-without-grants' = 'vmlinux',
  ): Promise<Guest> {
    const unique = `${this.#title}-${name}-${process.pid}`;
    writeFileSync(join(this.#share, `${unique}.sh`), script);
    const said = await this.run(`guest create ${unique} /share/${unique}.sh ${kernel}`);
    const console = new GrowingFile(join(this.#share, 'consoles', `guest-${unique}.log`));
    const guest = new Guest(this, unique, Number(/^\d+$/m.exec(said)?.[0]), console);
    this.guests.push(guest);
    this.#logs.push(console.path);
    this.tell(`guest ${name} is domain ${guest.id}`);
    return guest;
  }

  /** Starts `grantio xen-backend WORDS`. Resolves when it serves. */
  async backend(...words: readonly string[]): Promise<Backend> {
    const job = this.start(`echo "pid $$"; exec node bin/grantio xen-backend ${words.join(' ')} --json`);
    const [, pid] = await job.output.says(/^pid (\d+)$/);
    const backend = new Backend(this, job, Number(pid));
    this.#backends.push(backend);
    await backend.says(/^\{/);
    this.tell(`grantio xen-backend ${words.join(' ')}`);
    return backend;
  }

  /** Ends what the test has started and has not ended itself. */
  async clean(): Promise<void> {
    const pids = this.#backends.map(({ pid }) => pid).join(' ');
    const names = this.guests.map(({ name }) => name).join(' ');
    await this.run(`
      for name in ${names}; do xl destroy $name 2>/dev/null || true; done
      for pid in ${pids}; do kill -9 $pid 2>/dev/null || true; done`);
  }

  /** `error` with the names of the logs. */
  failure(error: unknown): Error {
    const said = error instanceof Error ? error.message : String(error);
    return new Error(`${said}\nThe logs:\n${this.#logs.join('\n')}`, { cause: error });
  }
}

/** A guest of Xen. */
export class Guest {
  readonly #xen: Xen;
  readonly name: string;
  /** Its domain. */
  readonly id: number;
  readonly console: GrowingFile;

  constructor(xen: Xen, name: string, id: number, console: GrowingFile) {
    assert.ok(Number.isInteger(id), `the domain of ${name}`);
    this.#xen = xen;
    this.name = name;
    this.id = id;
    this.console = console;
  }

  /** Lets it run. */
  async start(): Promise<void> {
    await this.#xen.run(`xl unpause ${this.name}`);
  }

  /** Resolves when it says a line with `pattern`; what it tells of its progress until then is passed on. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const match = await this.console.says(pattern);
    this.#xen.tell(`${this.name}: ${match[0]}`);
    return match;
  }

  /** Resolves when its job has ended well. */
  async done(): Promise<void> {
    await this.says(/^GRANTIO done/);
  }

  /** Ends it at once. */
  async destroy(): Promise<void> {
    await this.#xen.run(`xl destroy ${this.name}`);
  }
}

/** A backend in the first domain. */
export class Backend {
  readonly #xen: Xen;
  readonly #job: Job;
  readonly pid: number;

  constructor(xen: Xen, job: Job, pid: number) {
    this.#xen = xen;
    this.#job = job;
    this.pid = pid;
  }

  /** Resolves when it says a line with `pattern`; rejects when it ends before. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    const ended = this.#job.ended().then((status) => {
      throw new Error(`grantio xen-backend ended with ${status} and never said ${pattern}`);
    });
    return Promise.race([this.#job.output.says(pattern), ended]);
  }

  /** Resolves with its exit status. */
  ended(): Promise<number> {
    return this.#job.ended();
  }

  /** Sends it a signal. */
  async signal(name: string): Promise<void> {
    await this.#xen.run(`kill -${name} ${this.pid}`);
  }
}
