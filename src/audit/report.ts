// What one run in each exposure mode came to: the JSON document of the command line, and the same as a
// table for people. The figures are exposure-figures.ts's.

import type { TotalExposure } from './exposure.ts';
import { type Cell, type TableOptions, table, type TableRow, wrap } from './table.ts';
import { bytesText, countText, timeText } from './units.ts';

/** What the workload says of its own run. */
export interface RunResult {
  /** Exposure mode. */
  readonly mode: string;
  /** Whether every byte arrived as it was sent; null where nobody compared. */
  readonly identical: boolean | null;
  readonly seconds: number;
  readonly requests: number;
  /** Bytes of data that the requests moved. */
  readonly bytes: number;
  /** Events that the accounting did not get to see (TraceMerger.undelivered); its figures are exact with 0. */
  readonly eventsLost: number;
}

/** The figures that every report has. */
type CoreFigures = Pick<
  TotalExposure,
  | 'pagesGranted'
  | 'bytesNeeded'
  | 'bytesExposed'
  | 'foreignReadableBytes'
  | 'foreignWritableBytes'
  | 'maxStaleNanoseconds'
  | 'leakedGrants'
>;

/** The result of one mode. */
export interface ModeReport extends CoreFigures, Partial<Omit<TotalExposure, keyof CoreFigures>> {
  readonly mode: string;
  readonly identical: boolean | null;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly bytes?: number;
  readonly eventsLost?: number;
}

/** A column of the table: what of a report is known. An audit of a trace alone has no rates, for example. */
export type ReportColumn = Partial<ModeReport> & { readonly mode: string };

/** Puts a run and its accounting together. */
export function modeReport(run: RunResult, figures: TotalExposure): ModeReport {
  const perSecond = (amount: number) => (run.seconds > 0 ? Math.round(amount / run.seconds) : 0);
  return {
    mode: run.mode,
    identical: run.identical,
    requestsPerSecond: perSecond(run.requests),
    bytesPerSecond: perSecond(run.bytes),
    ...figures,
    requests: run.requests,
    bytes: run.bytes,
    eventsLost: run.eventsLost,
  };
}

interface Row {
  readonly label: string;
  /** The number to show, or undefined where it is not known. */
  readonly value: (column: ReportColumn) => number | undefined;
  readonly text: (value: number) => string;
  /** Whether 0 is what one wants to see and anything else is not. */
  readonly wantsZero?: true;
  /** Whether the number is what one wants to see, where that is not just 0. */
  readonly isGood?: (column: ReportColumn) => boolean;
}

const ROWS: readonly Row[] = [
  { label: 'requests', value: ({ requests }) => requests, text: countText },
  { label: 'requests per second', value: ({ requestsPerSecond }) => requestsPerSecond, text: countText },
  { label: 'data per second', value: ({ bytesPerSecond }) => bytesPerSecond, text: bytesText },
  {
    label: 'time for a request, mean',
    value: ({ meanLatencyNanoseconds }) => meanLatencyNanoseconds,
    text: timeText,
  },
  {
    label: 'time for a request, longest',
    value: ({ maxLatencyNanoseconds }) => maxLatencyNanoseconds,
    text: timeText,
  },
  { label: 'pages granted', value: ({ pagesGranted }) => pagesGranted, text: countText },
  { label: 'needed: what drivers asked to share', value: ({ bytesNeeded }) => bytesNeeded, text: bytesText },
  { label: 'exposed: pages granted for it', value: ({ bytesExposed }) => bytesExposed, text: bytesText },
  {
    label: 'exposed for each byte needed',
    value: ({ bytesExposed, bytesNeeded }) => ratio(bytesExposed, bytesNeeded),
    text: ratioText,
  },
  {
    label: '… with the time for which each is',
    value: ({ exposedByteSeconds, neededByteSeconds }) => ratio(exposedByteSeconds, neededByteSeconds),
    text: ratioText,
  },
  {
    label: 'pages reached without any grant',
    value: ({ pagesReached }) => pagesReached || undefined,
    text: countText,
    wantsZero: true,
  },
  {
    label: 'backend could read that was not its business',
    value: ({ foreignReadableBytes }) => foreignReadableBytes,
    text: bytesText,
    wantsZero: true,
  },
  {
    label: '… could overwrite',
    value: ({ foreignWritableBytes }) => foreignWritableBytes,
    text: bytesText,
    wantsZero: true,
  },
  {
    label: '… could read, each byte of memory counted once',
    value: ({ distinctForeignReadableBytes }) => distinctForeignReadableBytes,
    text: bytesText,
    wantsZero: true,
  },
  {
    label: '… could overwrite, each byte counted once',
    value: ({ distinctForeignWritableBytes }) => distinctForeignWritableBytes,
    text: bytesText,
    wantsZero: true,
  },
  {
    label: 'buffers to be read only, granted for writing',
    value: ({ overPermission }) => overPermission,
    text: countText,
    wantsZero: true,
  },
  {
    label: 'backend touched what no request shared',
    value: ({ touchesOutsideNeed }) => touchesOutsideNeed,
    text: countText,
    wantsZero: true,
  },
  {
    label: 'maps and copies that Xen refused',
    // Neither good nor bad: a backend has tried, and Xen was there.
    value: ({ mapsRefused }) => mapsRefused,
    text: countText,
  },
  {
    label: 'stale: page kept after its request, longest',
    value: ({ maxStaleNanoseconds }) => maxStaleNanoseconds,
    text: timeText,
    isGood: isStaleDeclared,
  },
  {
    label: '… declared: the longest while the device is at work',
    value: ({ staleLimitNanoseconds }) => staleLimitNanoseconds || undefined,
    text: timeText,
  },
  { label: 'grants leaked', value: ({ leakedGrants }) => leakedGrants, text: countText, wantsZero: true },
];

const NOTES: readonly string[] = [
  'needed: the bytes of every buffer that a driver shared with its device, rings included.',
  'exposed: 4 KiB for every page that was granted, each time it was, or the bytes of a sub-page grant. A grant that serves many requests counts once; the line with the time compares it fairly.',
  'not its business (foreign): bytes of granted pages that were neither in a buffer shared with the same device at that time nor in a page private to it, summed over all grants.',
  'stale: the longest time a page stayed granted or mapped after its request was complete; 0 if access always ended first.',
  'leaked: grants that were not over at the end.',
];

function ratio(exposed: number | undefined, needed: number | undefined): number | undefined {
  if (exposed === undefined || needed === undefined || needed === 0) return undefined;
  return exposed / needed;
}

function ratioText(ratio: number): string {
  return `${ratio.toPrecision(3)} ×`;
}

function identicalRow(columns: readonly ReportColumn[]): TableRow {
  const cells = columns.map(({ identical }): Cell => {
    if (identical === undefined || identical === null) return { text: '', emphasis: 'plain' };
    return identical ? { text: 'yes', emphasis: 'good' } : { text: 'NO', emphasis: 'bad' };
  });
  return { label: 'data arrived unchanged', cells };
}

/** No page was kept for longer than the device had declared it would; 0 unless it has. */
function isStaleDeclared(column: ReportColumn): boolean {
  const { maxStaleNanoseconds = 0, maxStaleAtWorkNanoseconds = 0, staleLimitNanoseconds = 0 } = column;
  if (maxStaleNanoseconds === 0) return true;
  return staleLimitNanoseconds > 0 && maxStaleAtWorkNanoseconds <= staleLimitNanoseconds;
}

function figureRow(
  { label, value, text, wantsZero, isGood }: Row,
  columns: readonly ReportColumn[],
): TableRow {
  const cells = columns.map((column): Cell => {
    const number = value(column);
    if (number === undefined) return { text: '', emphasis: 'plain' };
    if (!wantsZero && !isGood) return { text: text(number), emphasis: 'plain' };
    return { text: text(number), emphasis: number === 0 || isGood?.(column) ? 'good' : 'bad' };
  });
  return { label, cells };
}

/** What must not be overlooked about a report: its figures are less than the truth. */
function warnings({ mode, eventsLost = 0, contradictions = 0 }: ReportColumn): string[] {
  if (eventsLost === 0 && contradictions === 0) return [];
  return [
    `WARNING: the accounting of ${mode} is incomplete (${eventsLost} events lost, ${contradictions} contradict others): its figures may be too low.`,
  ];
}

/** A row for each figure that one of the reports has. */
export function reportRows(columns: readonly ReportColumn[]): TableRow[] {
  return [identicalRow(columns), ...ROWS.map((row) => figureRow(row, columns))].filter(({ cells }) =>
    cells.some(({ text }) => text !== ''),
  );
}

/**
 * The reports as text: a column for each mode, a row for each figure that one of them has, and under the
 * table what the words mean. Lines have at most `width` characters where the words allow it.
 */
export function reportTable(columns: readonly ReportColumn[], options: TableOptions): string {
  const rows = reportRows(columns);
  const headings = columns.map(({ mode }) => mode);
  const notes = [...NOTES, ...columns.flatMap(warnings)].flatMap((note) => wrap(note, options.width));
  return `${[table(headings, rows, options), ...notes].join('\n')}\n`;
}
