// `grantio serve --own-process`: each device in a child process. The supervisor keeps the sockets, so that frontends
// can connect at any time, and starts a child that died again: a guest that truncates its memory, which ends the
// process with SIGBUS, ends its own device for a moment and nothing else. After serve-run.ts.

import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Notice } from '../serving/control.ts';
import { type Operation, operationOptionsFor } from './operation.ts';
import { wordsOf } from './serve-options.ts';
import type { PlannedDevice, ServePlan } from './serve-plan.ts';
import type { Service } from './serve-service.ts';

const PROGRAM = fileURLToPath(new URL('../../../bin/grantio', import.meta.url));
/** The descriptor of the socket in a child. */
const CHILD_SOCKET = 3;
/** Pauses before a child is started again, in milliseconds; they double while it keeps dying. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;
/** A child that has lived for so long died of something new. */
const LONG_LIFE = 30_000;

/** What belongs to the socket or to systemd's dealings with the supervisor is not the child's. */
const NOT_THE_CHILDS = ['socket-path', 'fd', 'name'];
const NOT_FOR_CHILDREN = /^(LISTEN_|NOTIFY_SOCKET$|WATCHDOG_)/;

/** One device's process, and how it has fared. */
interface Post {
  readonly device: PlannedDevice;
  readonly fd: number;
  child: ChildProcess | undefined;
  pause: number;
  restart: NodeJS.Timeout | undefined;
}

/** Serves each device in a process of its own. */
export class Supervisor implements Service {
  readonly ended: Promise<Error | undefined>;
  readonly #plan: ServePlan;
  #notify: (notice: Notice) => void = () => undefined;
  readonly #posts: Post[] = [];
  #over!: (failure?: Error) => void;
  #ending = false;

  constructor(plan: ServePlan) {
    this.#plan = plan;
    this.ended = new Promise((resolve) => {
      this.#over = resolve;
    });
  }

  /** The figures are shown by the processes of the devices. */
  async operate({ log }: Operation): Promise<void> {
    this.#notify = log;
  }

  /** Rejects when the first process ends before it serves: what it said is on standard error. */
  async add(device: PlannedDevice, { fd }: { readonly fd: number }): Promise<void> {
    const post: Post = { device, fd, child: undefined, pause: FIRST_PAUSE, restart: undefined };
    const child = this.#start(post);
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`'${device.name}' cannot be served`)));
    });
    this.#posts.push(post);
    this.#watch(post, child);
  }

  /** This thread answers by itself; a child that hangs is its guest's loss alone. */
  async ping(): Promise<void> {
    return undefined;
  }

  async end(): Promise<void> {
    this.#ending = true;
    for (const { restart, child } of this.#posts) {
      clearTimeout(restart);
      // Not by a signal, of which a second one may follow from whoever ends the whole group.
      if (child?.connected) child.disconnect();
    }
    this.#endIfAllHave();
    await this.ended;
  }

  #start(post: Post): ChildProcess {
    const { name, spec, given } = post.device;
    const { workers, pollMicroseconds, restricted, operation } = this.#plan;
    const own = Object.fromEntries(
      Object.entries(given).filter(([option]) => !NOT_THE_CHILDS.includes(option)),
    );
    const words = wordsOf({
      ...own,
      ...{ name, fd: `${CHILD_SOCKET}`, workers: `${workers}`, 'poll-us': `${pollMicroseconds}` },
      ...(restricted ? { restricted: true } : {}),
      ...operationOptionsFor(operation, name),
    });
    const environment = Object.entries(process.env).filter(([variable]) => !NOT_FOR_CHILDREN.test(variable));
    const child = spawn(process.execPath, [...process.execArgv, PROGRAM, 'serve', spec.kind, ...words], {
      // A group of its own: Ctrl-C in the terminal is the supervisor's to hear.
      ...{ detached: true, env: Object.fromEntries(environment) },
      stdio: ['ignore', 'ignore', 'inherit', post.fd, 'ipc'],
    });
    post.child = child;
    this.#notify({ level: 'info', device: name, message: `its process is ${child.pid}` });
    return child;
  }

  #watch(post: Post, child: ChildProcess): void {
    const born = performance.now();
    child.once('exit', (status, signal) => {
      post.child = undefined;
      if (this.#ending) return this.#endIfAllHave();
      if (performance.now() - born > LONG_LIFE) post.pause = FIRST_PAUSE;
      const how = signal ?? `status ${status}`;
      const message = `its process has ended (${how}); another one starts in ${post.pause} ms`;
      this.#notify({ level: 'error', device: post.device.name, message });
      post.restart = setTimeout(() => this.#watch(post, this.#start(post)), post.pause);
      post.pause = Math.min(LONGEST_PAUSE, post.pause * 2);
    });
    // What cannot be started has no exit.
    child.once('error', (error) => this.#over(error));
  }

  #endIfAllHave(): void {
    if (this.#posts.every(({ child }) => child === undefined)) this.#over();
  }
}
