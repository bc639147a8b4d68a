// The main job of `grantio run`: in each exposure mode, copy every disk through the guest's driver, check it
// against its image, and report what the backend could reach. After run.ts.

import { statSync } from 'node:fs';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { VirtualHost } from '../parallel/virtual-host.ts';
import { startProgress } from './progress.ts';
import type { RunOptions, RunPlan } from './run-plan.ts';
import { type ModeResult, modeResult, printResults, type Work } from './run-report.ts';
import type { Interruption } from './signals.ts';
import { firstDevice, type TraceOutput } from './trace-output.ts';

/** Copies in every mode of the job. Returns the exit status. */
export async function runCopy(
  job: RunPlan,
  options: RunOptions,
  trace: TraceOutput | undefined,
  interruption: Interruption,
): Promise<number> {
  const results: ModeResult[] = [];
  const faults: string[] = [];
  for (const [index, mode] of job.modes.entries()) {
    if (interruption.signal) break;
    const host = await VirtualHost.start({
      ...job,
      mode,
      firstDevice: firstDevice(job, index),
      ...(trace && { trace: trace.consumer(mode) }),
    });
    interruption.onSignal(() => void host.cancel().catch(() => undefined));
    results.push(await copyAll(host, job, mode, faults));
  }
  printResults(job, results, options.json === true);
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
  return modeResult(mode, sum satisfies Work, report);
}
