// The main job of `grantio run`: in each exposure mode, copy every disk through the guest's driver, check it
// against its image, and report what the backend could reach. After run.ts.

import { statSync } from 'node:fs';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { VirtualHost } from '../parallel/virtual-host.ts';
import { startProgress } from './progress.ts';
import type { Decisions } from './run-decisions.ts';
import { modeLabel, type RunOptions, type RunPlan } from './run-plan.ts';
import { dmaDebugFault, type ModeResult, modeResult, printResults, type Work } from './run-report.ts';
import type { Interruption } from './signals.ts';
import { firstDevice, type TraceOutput } from './trace-output.ts';

/** Copies in every mode of the job. Returns the exit status. */
export async function runCopy(
  job: RunPlan,
  options: RunOptions,
  trace: TraceOutput | undefined,
  interruption: Interruption,
  decisions: Decisions,
): Promise<number> {
  const results: ModeResult[] = [];
  const faults: string[] = [];
  for (const [index, mode] of job.modes.entries()) {
    if (interruption.signal) break;
    const host = await VirtualHost.start({
      ...job,
      mode,
      firstDevice: firstDevice(job, index),
      onDecision: decisions.take,
      ...(trace && { trace: trace.consumer(modeLabel(job, mode)) }),
    }).catch((error: Error) => {
      // Why a device was refused is what --explain is asked for.
      if (options.explain) printResults(job, results, options, decisions);
      throw error;
    });
    interruption.onSignal(() => void host.cancel().catch(() => undefined));
    const result = await copyAll(host, job, mode, faults);
    trace?.addStacks(result.host.dmaDebug?.stacks ?? new Map());
    results.push(result);
  }
  printResults(job, results, options, decisions);
  if (interruption.signal) faults.push(`interrupted by ${interruption.signal}: not everything was copied`);
  for (const fault of faults) process.stderr.write(`grantio: ${fault}\n`);
  return faults.length > 0 ? 1 : 0;
}

/** Copies all disks of a host, stops it, and adds what went wrong to `faults`. */
async function copyAll(
  host: VirtualHost,
  job: RunPlan,
  mode: ExposureMode,
  faults: string[],
): Promise<ModeResult> {
  const total = job.disks.reduce((sum, { path }) => sum + statSync(path).size, 0);
  const progress = startProgress(mode, total);
  const sum = { bytes: 0, requests: 0, nanoseconds: 0, identical: true };
  host.onProgress = ({ bytes }) => progress.update(sum.bytes + bytes);
  try {
    for (const [devid, disk] of job.disks.entries()) {
      const copy = await host.copy(devid);
      sum.bytes += copy.bytes;
      sum.requests += copy.requests;
      sum.nanoseconds += copy.nanoseconds;
      sum.identical &&= copy.identical;
      if (copy.firstDifference !== undefined)
        faults.push(
          `${mode}: ${disk.path}: the byte at ${copy.firstDifference} read through the guest is not the image's`,
        );
    }
  } catch (error) {
    sum.identical = false;
    faults.push(`${mode}: ${(error as Error).message}`);
  } finally {
    progress.stop();
  }
  const report = await host.stop();
  if (report.exposure.leakedGrants > 0) faults.push(`${mode}: ${report.exposure.leakedGrants} grants leaked`);
  const result = modeResult(job, mode, sum satisfies Work, report);
  const misuse = dmaDebugFault(result);
  if (misuse !== undefined) faults.push(misuse);
  return result;
}
