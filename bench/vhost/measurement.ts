// One measurement: a fresh backend on its core, the load generator on another. After workshop.ts, before
// comparison.ts.

import type { Backend, Command } from './backends.ts';
import type { Job } from './jobs.ts';
import { IMAGE_BYTES, type Running, type Workshop } from './workshop.ts';

/** What the load generator says (load.c). Times are in microseconds; `cpu` is the backend's for each request. */
export interface Measured {
  readonly requests: number;
  readonly seconds: number;
  readonly iops: number;
  readonly us: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly cpu: number;
  readonly kicks: number;
  readonly interrupts: number;
  /** Share of both cores' time that other programs had, 0 to 1. */
  readonly others: number;
  /** When the first request was finished, on the clock of process.hrtime. */
  readonly firstNs: number;
}

/** How long, and where. */
export interface Conditions {
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** One for the frontend, one for the backend. */
  readonly cores: readonly [number, number];
}

/** Words of the load generator for a job. */
function wordsFor({ write, sequential, size, depth, interrupts }: Job): string[] {
  return [
    ...(write ? ['--write'] : []),
    ...(sequential ? ['--sequential'] : []),
    ...(interrupts ? ['--interrupts'] : []),
    '--size',
    `${size}`,
    '--depth',
    `${depth}`,
  ];
}

/** What others may have of the cores before a measurement is repeated, and how often it is tried at most. */
const QUIET = 0.05;
const ATTEMPTS = 3;

/** Measures up to ATTEMPTS times until the machine is quiet. Returns what others disturbed least. */
export async function measureQuietly(
  workshop: Workshop,
  backend: Backend,
  job: Job,
  conditions: Conditions,
): Promise<Measured> {
  let best = await measureOnce(workshop, backend, job, conditions);
  for (let attempt = 1; attempt < ATTEMPTS && best.others > QUIET; attempt++) {
    const next = await measureOnce(workshop, backend, job, conditions);
    if (next.others < best.others) best = next;
  }
  return best;
}

/** Runs `job` on `backend` once. Rejects when a request fails, is wrong or gets lost. */
async function measureOnce(
  workshop: Workshop,
  backend: Backend,
  job: Job,
  { seconds, warmUpSeconds, cores }: Conditions,
): Promise<Measured> {
  const socket = workshop.newSocket();
  const disk = { socket, image: workshop.imageFor(job), direct: job.direct };
  const times = ['--seconds', `${seconds}`, '--warm-up', `${warmUpSeconds}`];
  return withBackend(workshop, backend.command(disk), [cores[1]], (server) =>
    loadOnce(workshop, server, [cores[0]], ['--socket', socket, ...times, ...wordsFor(job)]),
  );
}

/** Writes a whole disk through `backend` and reads it back, every byte compared. Rejects when one is wrong. */
export async function verify(
  workshop: Workshop,
  backend: Backend,
  direct: boolean,
  cores: readonly [number, number],
): Promise<void> {
  const image = workshop.imageFor({ write: true, direct });
  const size = 64 * 1024;
  for (const words of [['--write'], []]) {
    const socket = workshop.newSocket();
    const pass = [
      '--sequential',
      '--size',
      `${size}`,
      '--requests',
      `${IMAGE_BYTES / size}`,
      '--depth',
      '16',
    ];
    await withBackend(workshop, backend.command({ socket, image, direct }), [cores[1]], (server) =>
      loadOnce(
        workshop,
        server,
        [cores[0]],
        ['--socket', socket, '--verify', '--salt', '7', ...pass, ...words],
      ),
    );
  }
}

/** Starts a fresh backend for what `use` does with it: some do not survive every frontend that leaves. */
export async function withBackend<T>(
  workshop: Workshop,
  command: Command,
  cores: readonly number[],
  use: (server: Running) => Promise<T>,
): Promise<T> {
  const server = workshop.start(command, cores);
  const gone = server.output.then(() => {
    throw new Error(`${command[0]} ended by itself`);
  });
  try {
    return await Promise.race([use(server), gone]);
  } finally {
    await workshop.stop(server);
  }
}

/** Runs the load generator to its end. */
async function loadOnce(
  workshop: Workshop,
  server: Running,
  cores: readonly number[],
  words: readonly string[],
): Promise<Measured> {
  const load = workshop.start([workshop.load, '--backend', `${server.child.pid}`, ...words], cores);
  try {
    return JSON.parse(await load.output) as Measured;
  } finally {
    await workshop.stop(load);
  }
}
