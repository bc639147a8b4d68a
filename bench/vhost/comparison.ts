// All backends at one job, in turn, several rounds: medians, and how they compare. After measurement.ts,
// before aims.ts and report.ts.

import { median } from '../figures.ts';
import { type Backend, QEMU_DEFAULT, REFERENCE } from './backends.ts';
import { type Job, nameOf } from './jobs.ts';
import { type Conditions, type Measured, measureQuietly } from './measurement.ts';
import type { Workshop } from './workshop.ts';

/** Medians of the rounds. */
export type Figures = Pick<Measured, 'iops' | 'us' | 'cpu' | 'p50' | 'p99' | 'p999' | 'others'>;

/** What a backend came to at a job. */
export interface Line {
  readonly backend: string;
  readonly name: string;
  readonly figures: Figures;
  /** Smallest and largest IOPS of the rounds: how noisy the machine was. */
  readonly least: number;
  readonly most: number;
  /** IOPS in relation to others', the median of each round's own relation; without the others that failed. */
  readonly ratios: { readonly qemu?: number; readonly default?: number; readonly twin?: number };
  /** CPU time a request in relation to qemu-storage-daemon's with io_uring. */
  readonly cpuRatio?: number;
}

/** A row of the table. */
export interface Row {
  readonly job: Job;
  readonly name: string;
  readonly lines: readonly Line[];
  /** Why a backend has no line. */
  readonly failures: readonly string[];
}

const FIGURES = ['iops', 'us', 'cpu', 'p50', 'p99', 'p999', 'others'] as const;

/** Measures `backends` at `job`, each once a round. A backend that fails once is left out from then on. */
export async function compare(
  workshop: Workshop,
  backends: readonly Backend[],
  job: Job,
  rounds: number,
  conditions: Conditions,
): Promise<Row> {
  const measured = new Map<Backend, Measured[]>();
  for (const backend of backends) if (backend.takes(job)) measured.set(backend, []);
  const failures: string[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const [backend, results] of measured) {
      try {
        results.push(await measureQuietly(workshop, backend, job, conditions));
      } catch (error) {
        measured.delete(backend);
        failures.push(`${backend.name}: ${(error as Error).message}`);
      }
    }
  }
  return { job, name: nameOf(job), lines: linesOf(measured), failures };
}

function linesOf(measured: ReadonlyMap<Backend, readonly Measured[]>): Line[] {
  const byId = new Map([...measured].map(([{ id }, results]) => [id, results]));
  return [...measured].map(([{ id, name }, results]) => {
    const relation = (other: string, figure: 'iops' | 'cpu'): number | undefined => {
      const others = byId.get(other);
      return others && median(results.map((result, round) => result[figure] / others[round][figure]));
    };
    const figures = Object.fromEntries(
      FIGURES.map((figure) => [figure, median(results.map((result) => result[figure]))]),
    ) as Record<(typeof FIGURES)[number], number>;
    const iops = results.map((result) => result.iops);
    return {
      backend: id,
      name,
      figures,
      least: Math.min(...iops),
      most: Math.max(...iops),
      ratios: defined({
        qemu: relation(REFERENCE.id, 'iops'),
        default: relation(QEMU_DEFAULT.id, 'iops'),
        twin: relation('twin', 'iops'),
      }),
      ...defined({ cpuRatio: relation(REFERENCE.id, 'cpu') }),
    };
  });
}

/** Without the properties that have no value. */
function defined<K extends string>(values: Record<K, number | undefined>): Partial<Record<K, number>> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<
    Record<K, number>
  >;
}
