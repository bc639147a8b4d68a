// Figures of a benchmark: rounds in turn, medians, and how they are printed.

/** The middle one, or the upper of the two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** One measured figure. */
export interface Figure {
  readonly group: string;
  readonly name: string;
  readonly median: number;
  /** Smallest and largest of the rounds: how noisy the machine was. */
  readonly least: number;
  readonly most: number;
  readonly unit: string;
  /** What we want of it, in words. */
  readonly aim?: string;
}

/** Something to measure: each call is a round and returns its figure. */
export interface Candidate {
  readonly name: string;
  readonly aim?: string;
  round(): number | Promise<number>;
}

/** Measures candidates in turn, `rounds` times after one warm-up round each. */
export async function measure(
  group: string,
  unit: string,
  candidates: readonly Candidate[],
  rounds: number,
): Promise<Figure[]> {
  const results = candidates.map(() => [] as number[]);
  for (const candidate of candidates) await candidate.round();
  for (let round = 0; round < rounds; round++) {
    for (const [index, candidate] of candidates.entries()) results[index].push(await candidate.round());
  }
  return candidates.map(({ name, aim }, index) => {
    const sorted = results[index].toSorted((a, b) => a - b);
    return {
      group,
      name,
      unit,
      median: sorted[sorted.length >> 1],
      least: sorted[0],
      most: sorted[sorted.length - 1],
      ...(aim !== undefined && { aim }),
    };
  });
}

/** Prints them as a table or as one JSON document. */
export function printFigures(figures: readonly Figure[], json: boolean): void {
  if (json) {
    console.log(JSON.stringify({ node: process.version, figures }, null, 2));
    return;
  }
  let group = '';
  for (const { name, median, least, most, unit, aim, ...figure } of figures) {
    if (figure.group !== group) console.log(`\n${figure.group}`);
    group = figure.group;
    const value = `${format(median)} ${unit}`;
    const range = `(${format(least)} to ${format(most)})`;
    console.log(`  ${name.padEnd(34)} ${value.padStart(14)}  ${range.padEnd(22)} ${aim ?? ''}`.trimEnd());
  }
}

function format(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
