// How soon a backend can do I/O: from starting the program until a frontend that waits for its socket has one read
// done, and the processor time that this took. After idle.ts, before aims.ts.

import { execFileSync } from 'node:child_process';
import type { Backend } from './backends.ts';
import { median } from '../figures.ts';
import { activityOf, cachedDisk } from './idle.ts';
import { type Conditions, type Measured, withBackend } from './measurement.ts';
import type { Workshop } from './workshop.ts';

/** What was found of one program. */
export interface StartFigures {
  readonly backend: string;
  readonly name: string;
  /** Median of its starts, and the shortest and the longest. */
  readonly milliseconds: number;
  readonly least: number;
  readonly most: number;
  /** Processor time of all its threads until then, which others on the machine disturb less; median. */
  readonly cpuMilliseconds: number;
}

/** One start. */
interface Start {
  readonly milliseconds: number;
  readonly cpuMilliseconds: number;
}

type Cores = Conditions['cores'];

/** Starts `backends` in turn, `rounds` times, and Node with nothing to do. */
export async function compareStarts(
  workshop: Workshop,
  backends: readonly Backend[],
  rounds: number,
  { cores }: Conditions,
): Promise<StartFigures[]> {
  const programs = [
    ...backends.map((backend) => ({ ...backend, start: () => firstRequest(workshop, backend, cores) })),
    { id: 'node', name: "Node itself, until a program's code", start: async () => nodeItself() },
  ].map((program) => ({ ...program, starts: [] as Start[] }));
  for (let round = 0; round < rounds; round++)
    for (const { start, starts } of programs) starts.push(await start());
  return programs.map(({ id, name, starts }) => {
    const times = starts.map(({ milliseconds }) => milliseconds);
    return {
      ...{ backend: id, name, milliseconds: median(times) },
      ...{ least: Math.min(...times), most: Math.max(...times) },
      cpuMilliseconds: median(starts.map(({ cpuMilliseconds }) => cpuMilliseconds)),
    };
  });
}

/**
 * From before the program is started until a waiting frontend has its first request back. Both may use both cores, as
 * nobody pins a program that is only starting.
 */
async function firstRequest(workshop: Workshop, backend: Backend, cores: Cores): Promise<Start> {
  const socket = workshop.newSocket();
  const load = workshop.start([workshop.load, '--socket', socket, '--requests', '1'], cores);
  const began = Number(process.hrtime.bigint());
  return withBackend(workshop, backend.command(cachedDisk(workshop, socket)), cores, async (server) => {
    const { firstNs } = JSON.parse(await load.output) as Measured;
    return { milliseconds: (firstNs - began) / 1e6, cpuMilliseconds: activityOf(server).nanoseconds / 1e6 };
  });
}

/** Until Node has come to a program's code: nothing that is written for it can be sooner. */
function nodeItself(): Start {
  const began = Number(process.hrtime.bigint());
  const words = [
    '-p',
    '[process.hrtime.bigint(), process.cpuUsage().user + process.cpuUsage().system].join()',
  ];
  const [at, cpuMicroseconds] = execFileSync(process.execPath, words, { encoding: 'utf8' })
    .split(',')
    .map(Number);
  return { milliseconds: (at - began) / 1e6, cpuMilliseconds: cpuMicroseconds / 1000 };
}
