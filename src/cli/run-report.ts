// The result of `grantio run`, as a table with what it means or as one JSON document.

import type { WriteStream } from 'node:tty';
import { type ModeReport, modeReport, type RunResult, reportTable } from '../audit/report.ts';
import { bytesText } from '../audit/units.ts';
import { formatDmaDebug } from '../dma/dma-debug-log.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import type { HostReport } from '../parallel/host-options.ts';
import type { Decisions } from './run-decisions.ts';
import { modeLabel, type RunOptions, type RunPlan } from './run-plan.ts';

/** What was done in one mode. */
export type Work = Pick<RunResult, 'bytes' | 'requests' | 'identical'> & { readonly nanoseconds: number };

/** One mode's result, with what a curious backend saw. */
export interface ModeResult {
  readonly report: ModeReport;
  readonly host: HostReport;
  /** The mode that was used in place of the one asked for, and why. */
  readonly fallback: { readonly mode: ExposureMode; readonly reason: string } | undefined;
}

/** Puts work and accounting together. */
export function modeResult(
  plan: Pick<RunPlan, 'architecture' | 'withoutGrants'>,
  mode: ExposureMode,
  { nanoseconds, ...work }: Work,
  host: HostReport,
): ModeResult {
  const { exposure, eventsLost } = host;
  const report = modeReport(
    { mode: modeLabel(plan, mode), ...work, seconds: nanoseconds / 1e9, eventsLost },
    exposure,
  );
  const reason = `needs grant table version 2, which ${whyVersionOne(plan)}`;
  return { report, host, fallback: host.mode === mode ? undefined : { mode: host.mode, reason } };
}

/** Why a guest's grant table is of version 1. */
function whyVersionOne({ architecture }: Pick<RunPlan, 'architecture'>): string {
  return architecture === 'arm'
    ? 'Xen on Arm does not have (XSA-268)'
    : 'max_grant_version=1 does not let the guest have';
}

/** Prints the results of a job: JSON to standard output, text to `stream`. */
export function printResults(
  { name, kind, architecture, memory }: RunPlan,
  results: readonly ModeResult[],
  { json, explain }: Pick<RunOptions, 'json' | 'explain'>,
  decisions: Decisions,
  stream: WriteStream = process.stdout,
): void {
  if (json) {
    const guest = { name, kind, architecture };
    const modes = results.map(({ report, host, fallback }) => ({
      ...report,
      ...(fallback && { fallback }),
      troubles: host.troubles,
      references: host.references,
      ...thresholdOf(host),
      ...dmaDebugOf(host),
    }));
    const { made, plain } = decisions;
    const document = { guest, ...(explain && { decisions: made }), withoutGrants: plain, modes };
    process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
    return;
  }
  if (results.length === 0) return;
  const colour = stream.isTTY === true && process.env['NO_COLOR'] === undefined;
  const width = stream.columns ?? 100;
  stream.write(`\n${name}: ${kind} on ${architecture}\n`);
  stream.write(
    `\n${reportTable(
      results.map(({ report }) => report),
      { colour, width },
    )}\n`,
  );
  for (const { report, fallback } of results)
    if (fallback) stream.write(`\n${report.mode}: ${fallback.reason}: ${fallback.mode} was used\n`);
  for (const result of results)
    stream.write(describeThreshold(result) + describeTroubles(result) + describeGlimpse(result));
  for (const result of results) stream.write(describeDmaDebug(result));
  stream.write(describePlain(decisions.plain, memory));
}

/** Says in words what the devices that use no grants mean. */
function describePlain(devices: readonly string[], memory: number): string {
  if (devices.length === 0) return '';
  const which = `${devices.join(', ')} without grants`;
  return `\n${which}: the backend could read and overwrite all ${bytesText(memory)} of the guest's memory\n  for as long as it served.\n`;
}

/** Prints what DMA debugging has found to standard error, as a kernel would log it. Returns a fault, if any. */
export function dmaDebugFault(
  { report, host }: ModeResult,
  stream: Pick<WriteStream, 'write'> = process.stderr,
): string | undefined {
  if (host.dmaDebug === undefined) return undefined;
  stream.write(formatDmaDebug(host.dmaDebug));
  const { errors } = host.dmaDebug;
  return errors === 0 ? undefined : `${report.mode}: drivers misuse their mappings, ${errorsText(errors)}`;
}

/** For the JSON document, which has no place for the stacks of mappings that were right. */
function dmaDebugOf({ dmaDebug }: HostReport): object {
  if (dmaDebug === undefined) return {};
  const { stacks: _, ...found } = dmaDebug;
  return { dmaDebug: found };
}

function errorsText(errors: number): string {
  return errors === 1 ? '1 error' : `${errors || 'no'} errors`;
}

function describeDmaDebug({ report, host }: ModeResult): string {
  if (host.dmaDebug === undefined) return '';
  const { errors, mostEntries } = host.dmaDebug;
  const most = `most mappings and allocations at a time: ${mostEntries}`;
  return `\n${report.mode}: DMA debugging found ${errorsText(errors)}; ${most}\n`;
}

/** What went wrong with the devices, if anything did. */
function describeTroubles({ report, host }: ModeResult): string {
  const { quarantined = 0, stillQuarantined = 0, resets = 0 } = host.troubles ?? {};
  if (quarantined === 0 && resets === 0) return '';
  const pages = `${quarantined} pages were in quarantine, ${stillQuarantined} of them still are`;
  return `\n${report.mode}: the backend did not behave: ${pages}; devices or queues were reset ${resets} times\n`;
}

/** For the JSON document: null when no length was reached from which on granting would have been cheaper. */
function thresholdOf({ directFrom }: HostReport): object {
  if (directFrom === undefined) return {};
  return { directFromBytes: Number.isFinite(directFrom) ? directFrom : null };
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
  const { references = 0, opened = 0 } = glimpse.attempts ?? {};
  if (references > 0 && opened === 0)
    return (
      `\n${report.mode}: a curious backend tried ${references} references\n` +
      '  and every attempt to map the page, or to read beside the granted bytes, was refused.\n'
    );
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
