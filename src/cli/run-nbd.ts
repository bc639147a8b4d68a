// `grantio run --nbd` and `--run`: the guest's disks for NBD clients, so that real programs drive load through
// driver, grants, hypervisor and backend. After run.ts.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Throughput } from '../audit/throughput.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { VirtualHost } from '../parallel/virtual-host.ts';
import { type CloseControl, openControl } from './control-socket.ts';
import type { Decisions } from './run-decisions.ts';
import { modeLabel, type RunOptions, type RunPlan } from './run-plan.ts';
import { dmaDebugFault, modeResult, printResults } from './run-report.ts';
import type { Interruption } from './signals.ts';
import type { TraceOutput } from './trace-output.ts';

/** Serves until a signal comes or the command has ended. Returns the exit status. */
export async function runNbd(
  job: RunPlan,
  options: RunOptions,
  trace: TraceOutput | undefined,
  interruption: Interruption,
  decisions: Decisions,
): Promise<number> {
  const [mode] = job.modes;
  const folder = options.nbd === undefined ? mkdtempSync(join(tmpdir(), 'grantio-')) : undefined;
  const address = options.nbd ?? join(folder!, 'nbd.sock');
  const throughput = new Throughput();
  const fileTrace = trace?.consumer(modeLabel(job, mode));
  const consumer = {
    consume(event: Parameters<Throughput['consume']>[0]) {
      throughput.consume(event);
      fileTrace?.consume(event);
    },
  };
  try {
    const host = await VirtualHost.start({
      ...job,
      mode,
      firstDevice: 0,
      trace: consumer,
      onDecision: decisions.take,
    }).catch((error: Error) => {
      if (options.explain) printResults(job, [], options, decisions, process.stderr);
      throw error;
    });
    const { uris, closeControl } = await open(host, address, options.control);
    const names = job.disks.map(({ dev }) => dev);
    const work = useDisks({ address, uris, names }, options.run, interruption);
    const faults: string[] = [];
    const status = await work.finally(async () => {
      await closeControl();
      const report = await host.stop();
      trace?.addStacks(report.dmaDebug?.stacks ?? new Map());
      const { leakedGrants } = report.exposure;
      if (leakedGrants > 0) faults.push(`${mode}: ${leakedGrants} grants leaked`);
      // Standard output is the command's.
      const result = modeResult(job, mode, { ...throughput.total, identical: null }, report);
      printResults(job, [result], options, decisions, process.stderr);
      const misuse = dmaDebugFault(result);
      if (misuse !== undefined) faults.push(misuse);
    });
    for (const fault of faults) process.stderr.write(`grantio: ${fault}\n`);
    return status === 0 && faults.length > 0 ? 1 : status;
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts to listen; where that fails, the host is stopped again. */
async function open(
  host: VirtualHost,
  address: string,
  control: string | undefined,
): Promise<{ readonly uris: string[]; readonly closeControl: CloseControl }> {
  try {
    const uris = await host.openNbd(address);
    return {
      uris,
      closeControl: control === undefined ? async () => undefined : await openControl(control, host),
    };
  } catch (error) {
    await host.stop();
    throw error;
  }
}

/** Disks that are served. */
export interface ServedDisks {
  readonly address: string;
  /** By disk. */
  readonly uris: readonly string[];
  readonly names: readonly string[];
}

/** Serves until a signal comes, or until `command`, if there is one, has ended. Returns the exit status. */
export function useDisks(
  disks: ServedDisks,
  command: string | undefined,
  interruption: Interruption,
): Promise<number> {
  if (command === undefined) return serve(disks, interruption);
  return runCommand(command, disks.address, disks.uris[0], interruption);
}

/** Says where the disks are, and waits for a signal. Returns the exit status. */
function serve({ uris, names }: ServedDisks, interruption: Interruption): Promise<number> {
  for (const [index, uri] of uris.entries()) process.stderr.write(`${names[index]}  ${uri}\n`);
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
