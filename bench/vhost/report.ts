// The figures as tables: for a terminal, and as Markdown for docs/speed.md. After comparison.ts, idle.ts,
// start.ts and aims.ts, before vhost.ts.

import type { Outcome } from './aims.ts';
import type { Line, Row } from './comparison.ts';
import { DISKS, type IdleFigures } from './idle.ts';
import type { StartFigures } from './start.ts';

/** A table, its first column to the left and the others to the right. */
interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Everything that a run found. */
export interface Findings {
  /** Versions, processor and so on, in a sentence. */
  readonly machine: string;
  readonly rows: readonly Row[];
  readonly idle: readonly IdleFigures[];
  readonly starts: readonly StartFigures[];
  readonly outcomes: readonly Outcome[];
}

/** Printed to a terminal. */
export function asText(findings: Findings): string {
  return sections(findings, (title, { head, rows }) => {
    const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column].length)));
    const lines = [head, ...rows].map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
        .join('  ')
        .trimEnd(),
    );
    return `${title}\n${lines.map((line) => `  ${line}\n`).join('')}`;
  });
}

/** The same as Markdown. */
export function asMarkdown(findings: Findings): string {
  return sections(findings, (title, { head, rows }) => {
    const rule = head.map((_, column) => (column === 0 ? '---' : '--:'));
    const lines = [head, rule, ...rows].map((row) => `| ${row.join(' | ')} |\n`);
    return `### ${title}\n\n${lines.join('')}`;
  });
}

function sections(
  { machine, rows, idle, starts, outcomes }: Findings,
  print: (title: string, table: Table) => string,
): string {
  const parts = [`${machine}\n`];
  if (outcomes.length > 0) parts.push(print('Aims', outcomeTable(outcomes)));
  for (const row of rows) {
    parts.push(print(upperFirst(row.name), jobTable(row.lines)));
    if (row.failures.length > 0) parts.push(`${row.failures.map((text) => `${text}\n`).join('')}`);
  }
  if (idle.length > 0) parts.push(print('Without I/O', idleTable(idle)));
  if (starts.length > 0) parts.push(print('From start to the first request done', startTable(starts)));
  return parts.join('\n');
}

function upperFirst(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

function outcomeTable(outcomes: readonly Outcome[]): Table {
  const rows = outcomes.map(({ aim, wanted, got, unit, met }) => [
    aim,
    wanted,
    got === undefined ? 'not measured' : `${number(got)} ${unit}`,
    got === undefined ? '' : met ? 'yes' : 'no',
  ]);
  return { head: ['aim', 'wanted', 'got', 'met'], rows };
}

function jobTable(lines: readonly Line[]): Table {
  const rows = lines.map(({ name, figures, least, most, ratios, cpuRatio }) => [
    name,
    number(figures.iops),
    `${number(least)}–${number(most)}`,
    number(figures.us),
    number(figures.cpu),
    number(figures.p50),
    number(figures.p99),
    times(ratios.qemu),
    times(ratios.default),
    times(ratios.twin),
    times(cpuRatio),
    (figures.others * 100).toFixed(0),
  ]);
  const figures = ['IOPS', 'rounds', 'µs', 'CPU µs', 'p50 µs', 'p99 µs'];
  const head = ['', ...figures, '× io_uring', '× default', '× C', 'CPU × io_uring', 'others %'];
  return { head, rows };
}

function idleTable(idle: readonly IdleFigures[]): Table {
  const rows = idle.map(({ name, cpuPercent, wakeUps, manyMebibytes }) => [
    name,
    cpuPercent.toFixed(3),
    wakeUps.toFixed(1),
    manyMebibytes === undefined ? '–' : number(manyMebibytes),
  ]);
  return { head: ['', '% of a core', 'wake-ups a second', `MiB, ${DISKS} disks`], rows };
}

function startTable(starts: readonly StartFigures[]): Table {
  const rows = starts.map(({ name, milliseconds, least, most, cpuMilliseconds }) => [
    name,
    number(milliseconds),
    `${number(least)}–${number(most)}`,
    number(cpuMilliseconds),
  ]);
  return { head: ['', 'ms', 'starts', 'CPU ms'], rows };
}

function number(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en');
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function times(value: number | undefined): string {
  return value === undefined ? '–' : value.toFixed(2);
}
