// The devices as a table for a terminal: as many columns as it has room for. After watch-devices.ts.

import CliTable from 'cli-table3';
import { bytesText, countText, timeText } from '../../audit/units.ts';
import { printable } from '../log-text.ts';
import type { DeviceRow } from './device-rows.ts';

/** How a table is to look. */
export interface TableLook {
  /** Characters that a line may have. */
  readonly width: number;
  readonly colour: boolean;
}

interface Column {
  readonly heading: string;
  text(row: DeviceRow): string;
  /** Whether the value is bad news. */
  readonly isBad?: (row: DeviceRow) => boolean;
  /** In which order columns go when there is no room; those without stay. */
  readonly dispensable?: number;
}

const NONE = '–';
const RED = '\x1b[31m';
const FAINT = '\x1b[2m';
const RESET = '\x1b[0m';
const NANOSECONDS = 1e9;

const known = (value: number | undefined, text: (value: number) => string): string =>
  value === undefined ? NONE : text(value);

const COLUMNS: readonly Column[] = [
  { heading: 'device', text: ({ device }) => printable(device) },
  { heading: 'kind', text: ({ kind }) => printable(kind), dispensable: 2 },
  { heading: 'frontend', text: ({ connected }) => known(connected, spanText), dispensable: 4 },
  { heading: 'IOPS', text: ({ iops }) => known(iops, (value) => countText(Math.round(value))) },
  {
    heading: 'MiB/s',
    text: ({ bytesPerSecond }) => known(bytesPerSecond, (value) => (value / 2 ** 20).toFixed(1)),
  },
  { heading: 'mean', text: ({ mean }) => known(mean, secondsText), dispensable: 5 },
  { heading: 'p99', text: ({ p99 }) => known(p99, secondsText) },
  { heading: 'depth', text: ({ depth }) => known(depth, (value) => value.toFixed(1)), dispensable: 1 },
  { heading: 'CPU', text: ({ cpu }) => known(cpu, (value) => `${(value * 100).toFixed(1)} %`) },
  { heading: 'exposed', text: ({ exposed }) => bytesText(exposed), dispensable: 6 },
  { heading: 'foreign', text: ({ foreign }) => known(foreign, bytesText), dispensable: 0 },
  { heading: 'errors', text: ({ errors }) => countText(errors), isBad: ({ errors }) => errors > 0 },
  {
    heading: 'violations',
    text: ({ violations }) => countText(violations),
    isBad: ({ violations }) => violations > 0,
    dispensable: 3,
  },
];

/** The rows in the order of their names. */
export function topTable(rows: readonly DeviceRow[], { width, colour }: TableLook): string {
  const sorted = rows.toSorted((a, b) => a.device.localeCompare(b.device, 'en', { numeric: true }));
  const columns = fitting(sorted, width);
  const table = new CliTable({
    head: columns.map(({ heading }) => heading),
    colAligns: columns.map(({ heading }) => (heading === 'device' || heading === 'kind' ? 'left' : 'right')),
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
    style: { head: [], border: [] },
  });
  for (const row of sorted) {
    const paint = ({ text, isBad }: Column): string => {
      if (!colour) return text(row);
      if (isBad?.(row)) return `${RED}${text(row)}${RESET}`;
      return row.connected === undefined ? `${FAINT}${text(row)}${RESET}` : text(row);
    };
    table.push(columns.map(paint));
  }
  return table.toString();
}

/** The columns that find room beside each other. */
function fitting(rows: readonly DeviceRow[], width: number): readonly Column[] {
  let columns = COLUMNS;
  const widthOf = ({ heading, text }: Column): number =>
    Math.max(heading.length, ...rows.map((row) => text(row).length)) + 3;
  while (columns.reduce((sum, column) => sum + widthOf(column), 1) > width) {
    const first = Math.min(...columns.map(({ dispensable }) => dispensable ?? Number.POSITIVE_INFINITY));
    if (first === Number.POSITIVE_INFINITY) break;
    columns = columns.filter(({ dispensable }) => dispensable !== first);
  }
  return columns;
}

function secondsText(seconds: number): string {
  return timeText(Math.round(seconds * NANOSECONDS));
}

const SPANS: readonly (readonly [unit: string, seconds: number])[] = [
  ['d', 86_400],
  ['h', 3600],
  ['min', 60],
  ['s', 1],
];

/** "12 s", "5 min", "3 h", "20 d": since when a frontend has been there. */
function spanText(seconds: number): string {
  const [unit, size] = SPANS.find(([, length]) => seconds >= length) ?? ['s', 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}
