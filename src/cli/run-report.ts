// The result of `grantio run`, as a table with what it means or as one JSON document.

import type { WriteStream } from 'node:tty';
import { type ModeReport, modeReport, type RunResult, reportTable } from '../audit/report.ts';
import { bytesText } from '../audit/units.ts';
import type { HostReport } from '../parallel/virtual-host.ts';
import type { RunPlan } from './run-plan.ts';

/** What was done in one mode. */
export type Work = Pick<RunResult, 'bytes' | 'requests' | 'identical'> & { readonly nanoseconds: number };

/** One mode's result, with what a curious backend saw. */
export interface ModeResult {
  readonly report: ModeReport;
  readonly host: HostReport;
}

/** Puts work and accounting together. */
export function modeResult(mode: string, { nanoseconds, ...work }: Work, host: HostReport): ModeResult {
  const { exposure, eventsLost } = host;
  return { report: modeReport({ mode, ...work, seconds: nanoseconds / 1e9, eventsLost }, exposure), host };
}

/** Prints the results of a job: JSON to standard output, text to `stream`. */
export function printResults(
  { name, kind, architecture }: RunPlan,
  results: readonly ModeResult[],
  json: boolean,
  stream: WriteStream = process.stdout,
): void {
  if (json) {
    const guest = { name, kind, architecture };
    const modes = results.map(jsonOf);
    process.stdout.write(`${JSON.stringify({ guest, modes }, null, 2)}\n`);
    return;
  }
  const colour = stream.isTTY === true && process.env['NO_COLOR'] === undefined;
  const width = stream.columns ?? 100;
  stream.write(`\n${name}: ${kind} on ${architecture}\n`);
  stream.write(
    `\n${reportTable(
      results.map(({ report }) => report),
      { colour, width },
    )}\n`,
  );
  for (const result of results) stream.write(describeThreshold(result) + describeGlimpse(result));
}

/** A mode's entry in the document. Its threshold, if it has one, is null when it was never reached. */
function jsonOf({ report, host: { directFrom } }: ModeResult): object {
  if (directFrom === undefined) return report;
  return { ...report, directFromBytes: Number.isFinite(directFrom) ? directFrom : null };
}

/** From which length on mode auto granted pages, as it was measured before the run. */
function describeThreshold({ report, host: { directFrom } }: ModeResult): string {
  if (directFrom === undefined) return '';
  const rule =
    directFrom === Number.POSITIVE_INFINITY
      ? 'every buffer was copied, since that was measured to be cheaper here than granting its pages'
      : `buffers of whole pages were granted themselves from ${bytesText(directFrom)} on, where that was measured to be cheaper here than copying`;
  return `\n${report.mode}: ${rule}\n`;
}

/** What the backend found when it looked around in the pages that it was given. */
function describeGlimpse({ report, host }: ModeResult): string {
  const { glimpse } = host;
  if (glimpse === undefined || glimpse.pagesSeen === 0) return '';
  const looked = `\n${report.mode}: a curious backend looked into ${glimpse.pagesSeen} of the pages it was given`;
  if (glimpse.sample === undefined)
    return `${looked}\n  and found nothing of the guest's but what it had asked to transfer.\n`;
  const { ref, offset, bytes } = glimpse.sample;
  const found = `and found other kernel data in ${glimpse.pagesWithSecrets} of them, such as, through grant ${ref}:`;
  return `${looked}\n  ${found}\n${hexDump(bytes, offset)}`;
}

/** Lines of 16 bytes: offset in the page, hexadecimal, text. */
function hexDump(bytes: Uint8Array, offset: number): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`    +0x${(offset + at).toString(16).padStart(3, '0')}  ${hex.padEnd(47)}  ${text}\n`);
  }
  return lines.join('');
}
