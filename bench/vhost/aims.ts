// What we want to reach, and whether we do. After comparison.ts, idle.ts and start.ts, before report.ts.

import { OURS, OURS_MAPPED, OURS_NOT_POLLING } from './backends.ts';
import type { Line, Row } from './comparison.ts';
import { DISKS, type IdleFigures } from './idle.ts';
import { type Job, nameOf, smallJob } from './jobs.ts';
import type { StartFigures } from './start.ts';

/** One aim and what came of it. */
export interface Outcome {
  readonly aim: string;
  readonly wanted: string;
  /** Undefined when it was not measured. */
  readonly got: number | undefined;
  readonly unit: string;
  readonly met: boolean;
}

/** An aim for one line of the table. */
interface Aim {
  readonly what: string;
  readonly job: Job;
  readonly backend: string;
  readonly figure: (line: Line) => number | undefined;
  readonly least?: number;
  readonly most?: number;
}

const againstQemu = (line: Line): number | undefined => line.ratios.qemu;
const againstTwin = (line: Line): number | undefined => line.ratios.twin;
const cpuAgainstQemu = (line: Line): number | undefined => line.cpuRatio;

function faster(
  what: string,
  least: number,
  job: Job,
  backend = OURS.id,
  figure: Aim['figure'] = againstQemu,
): Aim {
  return { what, job, backend, figure, least };
}

const DEPTHS = [1, 8, 32];
const WRITE = { write: true };
const DIRECT = { direct: true };

const AIMS: readonly Aim[] = [
  faster('cached reads', 2.0, smallJob(1)),
  faster('cached reads', 1.8, smallJob(8)),
  faster('cached reads', 1.8, smallJob(32)),
  faster('buffered writes', 2.0, smallJob(1, WRITE)),
  faster('buffered writes', 1.8, smallJob(32, WRITE)),
  faster('O_DIRECT reads', 1.2, smallJob(1, DIRECT)),
  faster('O_DIRECT reads', 2.0, smallJob(32, DIRECT)),
  ...DEPTHS.map((depth) =>
    faster(
      'interrupts, without our polling',
      1.2,
      smallJob(depth, { interrupts: true }),
      OURS_NOT_POLLING.id,
    ),
  ),
  ...DEPTHS.map((depth) => faster('mapped image, cached reads', 3, smallJob(depth), OURS_MAPPED.id)),
  ...DEPTHS.map((depth) =>
    faster('cached reads, to the same design in C', 0.9, smallJob(depth), OURS.id, againstTwin),
  ),
  ...DEPTHS.map((depth) => ({
    what: 'CPU a request, cached reads',
    job: smallJob(depth),
    backend: OURS.id,
    figure: cpuAgainstQemu,
    most: 0.7,
  })),
];

/** The rows that an aim is about, for the chart. */
export function aimedAt(rows: readonly Row[]): Row[] {
  const names = new Set(AIMS.map(({ job }) => nameOf(job)));
  return rows.filter(({ name }) => names.has(name));
}

/** How the aims stand for which something was run. */
export function outcomes(
  rows: readonly Row[],
  idle: readonly IdleFigures[],
  starts: readonly StartFigures[],
): Outcome[] {
  const found = AIMS.flatMap(({ what, job, backend, figure, least, most }) => {
    const row = rows.find(({ name }) => name === nameOf(job));
    if (row === undefined) return [];
    const line = row.lines.find((candidate) => candidate.backend === backend);
    return [outcome(`${what}, depth ${job.depth}`, line && figure(line), '×', least, most)];
  });
  return [
    ...found,
    ...(idle.length === 0 ? [] : idleOutcomes(idle)),
    ...(starts.length === 0 ? [] : [startOutcome(starts)]),
  ];
}

function idleOutcomes(idle: readonly IdleFigures[]): Outcome[] {
  const ours = idle.find(({ backend }) => backend === OURS.id);
  return [
    outcome('an idle disk', ours?.cpuPercent, '% of a core', undefined, 0.1),
    outcome('an idle disk', ours?.wakeUps, 'wake-ups a second', undefined, 0),
    outcome(`${DISKS} idle disks in a process`, ours?.manyMebibytes, 'MiB', undefined, 300),
  ];
}

function startOutcome(starts: readonly StartFigures[]): Outcome {
  const ours = starts.find(({ backend }) => backend === OURS.id);
  return outcome('from start to the first request done', ours?.milliseconds, 'ms', undefined, 150);
}

function outcome(
  aim: string,
  got: number | undefined,
  unit: string,
  least: number | undefined,
  most = Number.POSITIVE_INFINITY,
): Outcome {
  const wanted = least === undefined ? `≤ ${most} ${unit}` : `≥ ${least} ${unit}`;
  return { aim, wanted, got, unit, met: got !== undefined && got >= (least ?? 0) && got <= most };
}
