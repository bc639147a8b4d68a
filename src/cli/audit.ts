// `grantio audit`: reads a trace and says what backends could reach, and where that was more than it should be.
// Before trace-input.ts (the file) and audit/audit.ts (the findings).

import { writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { Audit, type AuditReport, countSeverities } from '../audit/audit.ts';
import { auditJson, auditSarif } from '../audit/audit-json.ts';
import { AUDIT_RULES } from '../audit/audit-rules.ts';
import { auditText } from '../audit/audit-text.ts';
import { auditPage } from '../audit/html/page.ts';
import { TraceReader } from '../audit/trace-reader.ts';
import { startProgress } from './progress.ts';
import { readTraceFile, sizeOfTrace } from './trace-input.ts';
import { UsageError } from './usage.ts';

/** The command's options. */
interface AuditOptions {
  readonly json?: boolean;
  readonly sarif?: boolean;
  /** File for the page. */
  readonly html?: string;
  readonly failOn: Threshold;
  readonly listRules?: boolean;
}

const THRESHOLDS = ['error', 'warning', 'note', 'never'] as const;
type Threshold = (typeof THRESHOLDS)[number];

/** Files of this size are read in a moment: a progress bar would only flicker. */
const MOMENT = 64 * 2 ** 20;

const HELP = `
What it does:
  Follows every grant, mapping, access and request of a trace that \`grantio run --trace\` or
  \`grantio serve --trace\` wrote, and prints the figures of each device, and findings: where a backend could reach bytes that were not its business,
  or for too long. A finding says how often and how much, whose bytes they were, which request was the
  first, and which stack of calls made the mapping (\`grantio run --dma-debug --trace\`). A file that was
  cut is audited up to its last full line.

Examples:
  grantio run --trace t.json                   record a demonstration in each exposure mode
  grantio audit t.json                         figures and findings as text
  grantio audit t.json --html t.html           the same as a page, with a page map and a timeline
  grantio audit t.json --sarif > t.sarif       for code review tools
  grantio audit t.json --fail-on warning       stricter: warnings fail too

Exit status:
  0  no finding is as severe as --fail-on says
  1  one is, or the page cannot be written
  2  the call was wrong: no such file, or it is not a trace`;

/** Adds the command to the program. */
export function addAuditCommand(program: Command): void {
  program
    .command('audit')
    .summary('say what backends could reach, from a trace')
    .description(
      'Say from a trace what backends could reach, what of it nobody had shared, and who caused it.',
    )
    .argument('[trace]', 'file that `grantio run --trace` or `grantio serve --trace` wrote')
    .addOption(new Option('--json', 'print one JSON document').conflicts('sarif'))
    .option('--sarif', 'print SARIF 2.1.0')
    .option('--html <file>', 'write one self-contained page')
    .addOption(
      new Option('--fail-on <severity>', 'least severe finding that makes the exit status 1')
        .choices(THRESHOLDS)
        .default('error'),
    )
    .option('--list-rules', 'print the rules')
    .addHelpText('after', HELP)
    .action((trace: string | undefined, options: AuditOptions) => {
      process.exitCode = auditCommand(trace, options);
    });
}

/** Audits. Returns the exit status. */
function auditCommand(path: string | undefined, options: AuditOptions): number {
  if (options.listRules) {
    for (const { id, severity, summary } of AUDIT_RULES)
      process.stdout.write(`${id} (${severity}): ${summary}\n`);
    return 0;
  }
  if (path === undefined)
    throw new UsageError(
      'audit: name a trace; `grantio run --trace FILE` or `grantio serve --trace FILE` writes one',
    );
  const report = auditFile(path);
  if (options.html !== undefined) writePage(options.html, auditPage(report, path));
  print(report, path, options);
  return isFailure(report, options.failOn) ? 1 : 0;
}

function auditFile(path: string): AuditReport {
  const audit = new Audit();
  const reader = new TraceReader(audit);
  const size = sizeOfTrace(path);
  const progress = size > MOMENT ? startProgress('audit', size) : undefined;
  try {
    readTraceFile(path, reader, (bytes) => progress?.update(bytes));
  } finally {
    progress?.stop();
  }
  return audit.finish(reader);
}

function print(report: AuditReport, path: string, { json, sarif }: AuditOptions): void {
  const { stdout } = process;
  if (json) stdout.write(auditJson(report, path));
  else if (sarif) stdout.write(auditSarif(report, path));
  else {
    const colour = stdout.isTTY === true && process.env['NO_COLOR'] === undefined;
    stdout.write(auditText(report, path, { colour, width: stdout.columns ?? 100 }));
  }
}

function writePage(path: string, page: string): void {
  try {
    writeFileSync(path, page);
  } catch (error) {
    throw new Error(`page ${path}: cannot be written: ${(error as Error).message}`, { cause: error });
  }
}

function isFailure(report: AuditReport, threshold: Threshold): boolean {
  const { error, warning, note } = countSeverities(report);
  const counted = { error, warning: error + warning, note: error + warning + note, never: 0 };
  return counted[threshold] > 0;
}
