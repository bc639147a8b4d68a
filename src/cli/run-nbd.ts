// `grantio run --nbd` and `--run`: the guest's disks for NBD clients, so that real programs drive load through
// driver, grants, hypervisor and backend. After run.ts.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseNbdAddress } from '../nbd/address.ts';
import { VirtualHost } from '../parallel/virtual-host.ts';
import type { RunOptions, RunPlan } from './run-plan.ts';
import { modeResult, printResults } from './run-report.ts';
import type { Interruption } from './signals.ts';
import { Throughput } from './throughput.ts';
import type { TraceOutput } from './trace-output.ts';

/** Serves until a signal comes or the command has ended. Returns the exit status. */
export async function runNbd(
  job: RunPlan,
  options: RunOptions,
  trace: TraceOutput | undefined,
  interruption: Interruption,
): Promise<number> {
  const [mode] = job.modes;
  const folder = options.nbd === undefined ? mkdtempSync(join(tmpdir(), 'grantio-')) : undefined;
  const address = options.nbd ?? join(folder!, 'nbd.sock');
  const throughput = new Throughput();
  const fileTrace = trace?.consumer(mode);
  const consumer = {
    consume(event: Parameters<Throughput['consume']>[0]) {
      throughput.consume(event);
      fileTrace?.consume(event);
    },
  };
  try {
    const host = await VirtualHost.start({ ...job, mode, firstDevice: 0, trace: consumer });
    const uris = await openNbd(host, address);
    const { run } = options;
    const work =
      run === undefined ? serve(uris, job, interruption) : runCommand(run, address, uris[0], interruption);
    let leaked = 0;
    const status = await work.finally(async () => {
      const report = await host.stop();
      leaked = report.exposure.leakedGrants;
      // Standard output is the command's.
      const result = modeResult(mode, { ...throughput.total, identical: null }, report);
      printResults(job, [result], options.json === true, process.stderr);
    });
    if (leaked > 0) process.stderr.write(`grantio: ${mode}: ${leaked} grants leaked\n`);
    return status === 0 && leaked > 0 ? 1 : status;
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts to listen; where that fails, the host is stopped again. */
async function openNbd(host: VirtualHost, address: string): Promise<string[]> {
  try {
    return await host.openNbd(address);
  } catch (error) {
    await host.stop();
    throw error;
  }
}

/** Says where the disks are, and waits for a signal. Returns the exit status. */
function serve(uris: readonly string[], job: RunPlan, interruption: Interruption): Promise<number> {
  for (const [index, uri] of uris.entries()) process.stderr.write(`${job.disks[index].dev}  ${uri}\n`);
  process.stderr.write('serving; press Ctrl-C to stop\n');
  return new Promise((resolve) => interruption.onSignal(() => resolve(0)));
}

/** Runs the command as nbdkit does. Returns its status, or 128 and the signal's number that ended it. */
function runCommand(
  command: string,
  address: string,
  uri: string,
  interruption: Interruption,
): Promise<number> {
  // The port is in the URI: the one that was asked for may have been 0.
  const place = 'path' in parseNbdAddress(address) ? { unixsocket: address } : { port: new URL(uri).port };
  const child = spawn('/bin/sh', ['-c', command], {
    stdio: 'inherit',
    env: { ...process.env, ...place, uri, nbd: uri },
  });
  interruption.onSignal(() => child.kill('SIGTERM'));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => resolve(status ?? 128 + constants.signals[signal ?? 'SIGTERM']));
  });
}
