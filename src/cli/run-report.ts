// The result of `grantio run`, as a table with what it means or as one JSON document.

import type { WriteStream } from 'node:tty';
import { type ModeReport, modeReport, type RunResult, reportTable } from '../audit/report.ts';
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
    const modes = results.map(({ report, host }) => ({ ...report, troubles: host.troubles }));
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
  for (const result of results) stream.write(describeTroubles(result) + describeGlimpse(result));
}

/** What went wrong with the devices, if anything did. */
function describeTroubles({ report, host }: ModeResult): string {
  const { quarantined = 0, stillQuarantined = 0, resets = 0 } = host.troubles ?? {};
  if (quarantined === 0 && resets === 0) return '';
  const pages = `${quarantined} pages were in quarantine, ${stillQuarantined} of them still are`;
  return `\n${report.mode}: the backend did not behave: ${pages}; devices or queues were reset ${resets} times\n`;
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
