// An audit for people: the figures of each device and mode as a table, then the findings, the worst first.

import { quoted, type Severity } from '../toolstack/finding.ts';
import { type AuditReport, type AuditedRun, countSeverities } from './audit.ts';
import { auditRule } from './audit-rules.ts';
import { deviceName, describe } from './audit-words.ts';
import type { Finding } from './findings.ts';
import { type ReportColumn, reportTable } from './report.ts';
import { type TableOptions, wrap } from './table.ts';

const COLOURS: Readonly<Record<Severity, string>> = {
  error: '\x1b[31m',
  warning: '\x1b[33m',
  note: '\x1b[36m',
};
const BOLD = '\x1b[1m';
const RESET = '\x1b[0m';

/** The report about the trace called `file`; every line ends with a line feed. */
export function auditText(report: AuditReport, file: string, options: TableOptions): string {
  const { header, runs } = report;
  const events = runs.reduce((sum, run) => sum + run.events, 0);
  const head = `${file}: ${count(runs.length, 'run')}, ${count(events, 'event')}, written by grantio ${plain(header.version)}`;
  const columns = runs.flatMap((run) => columnsOf(report, run));
  const findings = runs.flatMap((run) => run.findings.map((each) => findingText(report, run, each, options)));
  const tables = columns.length > 0 ? [reportTable(columns, options)] : [];
  return `${[head, ...tables, ...findings, verdict(report)].join('\n')}\n`;
}

/** Devices of a run that have a column of their own. */
const MAX_COLUMNS = 32;

/** A column for each device, and one for all of a run unless that would say the same. */
export function columnsOf({ header }: AuditReport, { mode, devices, total }: AuditedRun): ReportColumn[] {
  const named = devices.slice(0, MAX_COLUMNS).map(({ domain, device, ...figures }) => ({
    ...figures,
    mode: `${deviceName(header, domain, device)} ${plain(mode)}`,
  }));
  const isWhole = devices.length === 1 && total.pagesWithoutNeed === 0 && total.pagesReached === 0;
  return isWhole ? named : [...named, { ...total, mode: `all ${plain(mode)}` }];
}

/** What the audit comes to in one sentence. */
export function verdict(report: AuditReport): string {
  const { error, warning, note } = countSeverities(report);
  if (error + warning + note === 0)
    return 'no findings: backends could reach what drivers shared, while they did';
  return [count(error, 'error'), count(warning, 'warning'), count(note, 'note')].join(', ');
}

function findingText(report: AuditReport, run: AuditedRun, finding: Finding, options: TableOptions): string {
  const { id, severity, summary, why, help } = auditRule(finding.rule);
  const { subject, extent, owners, requests, examples, stack } = describe(report, run, finding);
  const { colour } = options;
  const label = colour ? `${COLOURS[severity]}${severity}${RESET}` : severity;
  const name = colour ? `${BOLD}${id}${RESET}` : id;
  const [first, worst] = examples;
  const parts: [string, string | undefined][] = [
    ['rule', summary],
    ['whose', owners],
    ['for', requests],
    ['first', first],
    ['worst', worst],
    ['why', why],
    ['help', help],
    ['stack', stack],
  ];
  const lines = parts.flatMap(([word, text]) => (text === undefined ? [] : field(word, text, options.width)));
  return [`${label}: ${name}: ${subject}: ${extent}`, ...lines, ''].join('\n');
}

/** A word and what belongs to it, further lines below the first. */
function field(word: string, text: string, width: number): string[] {
  const lines = text.split('\n').flatMap((line) => wrap(plain(line.trim()), width - 10));
  return lines.map((line, index) => `  ${(index === 0 ? `${word}:` : '').padEnd(8)}${line}`);
}

function count(number: number, what: string): string {
  return `${number.toLocaleString('en')} ${what}${number === 1 ? '' : 's'}`;
}

/** Text of a file, without what would speak to the terminal. */
function plain(text: string): string {
  return quoted(text, Number.POSITIVE_INFINITY).slice(1, -1);
}
