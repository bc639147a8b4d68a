// What a backend costs when nobody does I/O: CPU time and wake-ups of an idle disk, memory of many idle disks.
// After measurement.ts, before aims.ts.

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Backend, Disk } from './backends.ts';
import { type Conditions, withBackend } from './measurement.ts';
import type { Running, Workshop } from './workshop.ts';

/** What was found of one backend. */
export interface IdleFigures {
  readonly backend: string;
  readonly name: string;
  /** Share of a core that an idle disk takes, in percent. */
  readonly cpuPercent: number;
  /** How often a thread of it woke up, each second. */
  readonly wakeUps: number;
  /** MiB of memory with DISKS idle disks in one process; without it, the program serves one disk. */
  readonly manyMebibytes?: number;
}

/** Disks of the memory measurement. */
export const DISKS = 100;
/** Time to come to rest: in its first half minute V8 tidies its heap once, which is some 40 ms of work. */
const REST_MILLISECONDS = 30_000;
/** How often it is looked for sockets. */
const LOOK_MILLISECONDS = 20;
const MIB = 2 ** 20;

/** Figures of `backend` when idle. */
export async function measureIdle(
  workshop: Workshop,
  backend: Backend,
  idleSeconds: number,
  { cores }: Conditions,
): Promise<IdleFigures> {
  const { id, name } = backend;
  const figures = { backend: id, name, ...(await idleDisk(workshop, backend, idleSeconds, cores)) };
  if (backend.commandForMany === undefined) return figures;
  return { ...figures, manyMebibytes: await manyDisks(workshop, backend.commandForMany, cores) };
}

type Cores = Conditions['cores'];

/** A frontend that makes some requests and then none, for longer than anybody looks. */
function idleFrontend(workshop: Workshop, socket: string, core: number): Running {
  return workshop.start([workshop.load, '--socket', socket, '--requests', '64', '--idle', '600'], [core]);
}

/** A disk that is only read, through the page cache. */
export function cachedDisk(workshop: Workshop, socket: string): Disk {
  return { socket, image: workshop.imageFor({ write: false, direct: false }), direct: false };
}

async function idleDisk(
  workshop: Workshop,
  backend: Backend,
  seconds: number,
  cores: Cores,
): Promise<Pick<IdleFigures, 'cpuPercent' | 'wakeUps'>> {
  const socket = workshop.newSocket();
  return withBackend(workshop, backend.command(cachedDisk(workshop, socket)), [cores[1]], async (server) => {
    const frontend = idleFrontend(workshop, socket, cores[0]);
    await firstLine(frontend);
    await delay(REST_MILLISECONDS);
    const before = activityOf(server);
    await delay(seconds * 1000);
    const after = activityOf(server);
    await workshop.stop(frontend);
    return {
      cpuPercent: ((after.nanoseconds - before.nanoseconds) / (seconds * 1e9)) * 100,
      wakeUps: (after.switches - before.switches) / seconds,
    };
  });
}

async function manyDisks(
  workshop: Workshop,
  command: NonNullable<Backend['commandForMany']>,
  cores: Cores,
): Promise<number> {
  const disks = Array.from({ length: DISKS }, (_, i) => {
    const image = `${workshop.folder}/idle${i}.img`;
    execFileSync(workshop.load, ['--make', image, '--bytes', `${MIB}`]);
    return { socket: workshop.newSocket(), image, direct: false };
  });
  return withBackend(workshop, command(disks, workshop.folder), [cores[1]], async (server) => {
    // A hundred frontends that look for their sockets would take the time that the backend needs to make them.
    while (!disks.every(({ socket }) => existsSync(socket))) await delay(LOOK_MILLISECONDS);
    const frontends = disks.map(({ socket }) => idleFrontend(workshop, socket, cores[0]));
    await Promise.all(frontends.map(firstLine));
    await delay(REST_MILLISECONDS);
    const rollup = readFileSync(`/proc/${server.child.pid}/smaps_rollup`, 'utf8');
    await Promise.all(frontends.map((frontend) => workshop.stop(frontend)));
    return (Number(/^Rss:\s+(\d+) kB$/m.exec(rollup)![1]) * 1024) / MIB;
  });
}

/** Resolves when the program has said something, rejects when it ends without. */
function firstLine({ child, output }: Running): Promise<unknown> {
  return Promise.race([new Promise((resolve) => child.stdout?.once('data', resolve)), output]);
}

/** CPU time and voluntary context switches of all threads of a program so far. */
export function activityOf({ child }: Running): { nanoseconds: number; switches: number } {
  const tasks = `/proc/${child.pid}/task`;
  let nanoseconds = 0;
  let switches = 0;
  for (const thread of readdirSync(tasks)) {
    nanoseconds += Number(readFileSync(`${tasks}/${thread}/schedstat`, 'utf8').split(' ')[0]);
    const status = readFileSync(`${tasks}/${thread}/status`, 'utf8');
    switches += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)![1]);
  }
  return { nanoseconds, switches };
}
