// `grantio run --backend vhost-user:SOCKET`: the disk that another program serves, through a driver of ours that shares
// a window of its memory with it and nothing else. After run.ts; before parallel/vhost-host.ts.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { modeReport, reportTable } from '../audit/report.ts';
import { bytesText } from '../audit/units.ts';
import { checkSocketPath } from '../hosts/linux/unix-socket.ts';
import { CallFailed } from '../parallel/calls.ts';
import type { CopyResult } from '../parallel/copy-job.ts';
import { VhostHost } from '../parallel/vhost-host.ts';
import type { VhostReport } from '../parallel/vhost-thread.ts';
import { RawFile } from '../storage/raw-file.ts';
import { startProgress } from './progress.ts';
import { useDisks } from './run-nbd.ts';
import { checkAddress, DEFAULT_MEMORY, type RunOptions } from './run-plan.ts';
import { type Interruption, onInterrupt } from './signals.ts';
import { UsageError } from './usage.ts';

const SCHEME = 'vhost-user:';
/** What reports call it. */
const MODE = 'window';
/** The disk's name for NBD clients. */
const NAME = 'vda';
/** Bytes that the backend can reach: rings, and requests of 1 MiB for some of them at a time. */
const WINDOW = 8 * 2 ** 20;
/** The most that the protocol's implementations take. */
const MOST_DESCRIPTORS = 1024;
const SECTOR = 512;

/** Options that are about the embedded Xen, and the words of the command line for them. */
const OF_XEN: readonly (readonly [keyof RunOptions, string])[] = [
  ['mode', '--mode'],
  ['arch', '--arch'],
  ['grants', '--grants'],
  ['backendId', '--backend-id'],
  ['explain', '--explain'],
  ['control', '--control'],
  ['trace', '--trace'],
  ['dmaDebug', '--dma-debug'],
  ['dmaDebugDriver', '--dma-debug-driver'],
];

/** A call that can be carried out. */
interface Plan {
  readonly socket: string;
  /** What the disk should hold, if the user knows. */
  readonly image: string | undefined;
  readonly memory: number;
  readonly options: RunOptions;
}

/** What was done with the disk; undefined where nobody compared. */
type Work = Pick<CopyResult, 'bytes' | 'requests' | 'nanoseconds'> & { readonly identical: boolean | null };

/** Does what was asked for. Returns the exit status. Throws UsageError when the call is wrong. */
export async function runBackend(
  backend: string,
  configFile: string | undefined,
  options: RunOptions,
): Promise<number> {
  const plan = planBackend(backend, configFile, options);
  const interruption = onInterrupt('stopping the queues and closing the window');
  try {
    const host = await start(plan);
    const serving = options.nbd !== undefined || options.run !== undefined;
    return await (serving ? serveNbd(host, plan, interruption) : copy(host, plan, interruption));
  } finally {
    interruption.release();
  }
}

function planBackend(backend: string, configFile: string | undefined, options: RunOptions): Plan {
  const socket = backend.slice(SCHEME.length);
  if (!backend.startsWith(SCHEME) || socket === '')
    throw new UsageError(`--backend ${backend}: expected ${SCHEME}SOCKET`);
  if (configFile !== undefined)
    throw new UsageError(
      `--backend: the disk is another program's, so ${configFile} has no say; leave it out`,
    );
  for (const [name, option] of OF_XEN) {
    if (options[name] !== undefined)
      throw new UsageError(`--backend: ${option} is about domains of the embedded Xen; leave it out`);
  }
  if (options.disk.length > 1)
    throw new UsageError('--backend: a backend serves one disk, so there is one --disk to compare it with');
  if (options.queueSize > MOST_DESCRIPTORS)
    throw new UsageError(`--queue-size ${options.queueSize}: backends take at most ${MOST_DESCRIPTORS}`);
  checkPath(socket);
  if (options.nbd !== undefined) checkAddress(options.nbd);
  const [image] = options.disk;
  // Opened and closed again: whatever is wrong with it is said before anything is started.
  if (image !== undefined) new RawFile(image, true).close();
  return { socket, image, memory: options.memory ?? DEFAULT_MEMORY, options };
}

function checkPath(socket: string): void {
  try {
    checkSocketPath(socket);
  } catch (error) {
    throw new UsageError(`--backend ${SCHEME}${socket}: ${(error as Error).message}`);
  }
}

async function start({ socket, memory, options }: Plan): Promise<VhostHost> {
  const { queues, queueSize, reconnect = 0 } = options;
  try {
    const patience = reconnect * 1000;
    return await VhostHost.start({ socket, memory, window: WINDOW, patience, queues, queueSize });
  } catch (error) {
    if (!(error instanceof CallFailed)) throw error;
    const about = `--backend ${SCHEME}${socket}`;
    if (error.errorName === 'NativeUnavailable') throw new UsageError(`${about}: ${error.message}`);
    throw new Error(`${about}: ${error.message}`, { cause: error });
  }
}

/** Reads all of the disk, and checks it. */
async function copy(host: VhostHost, plan: Plan, interruption: Interruption): Promise<number> {
  const faults: string[] = [];
  interruption.onSignal(() => void host.cancel().catch(() => undefined));
  const total = host.disk.capacity * (plan.image === undefined ? 2 : 1);
  const progress = startProgress(MODE, total);
  let done = 0;
  host.onProgress = ({ bytes }) => {
    done = bytes;
    progress.update(bytes);
  };
  let work: Work = { bytes: 0, requests: 0, nanoseconds: 0, identical: false };
  try {
    const result = await host.copy(plan.image);
    work = result;
    faults.push(...differences(result, host, plan));
  } catch (error) {
    faults.push(`after ${bytesText(done)} of ${bytesText(total)}: ${(error as Error).message}`);
  } finally {
    progress.stop();
  }
  const report = await host.stop();
  print(plan, host, work, report, process.stdout);
  if (interruption.signal) faults.push(`interrupted by ${interruption.signal}: not everything was read`);
  for (const fault of faults) process.stderr.write(`grantio: ${fault}\n`);
  return faults.length > 0 ? 1 : 0;
}

/** What of the disk is not as it should be. */
function differences({ firstDifference }: CopyResult, { disk }: VhostHost, { image }: Plan): string[] {
  if (image === undefined)
    return firstDifference === undefined
      ? []
      : [`the disk changed while it was read twice, somewhere from byte ${firstDifference} on`];
  const sectors = Math.floor(statSync(image).size / SECTOR) * SECTOR;
  if (sectors !== disk.capacity)
    return [`${image} has ${sectors} bytes in whole sectors, the backend's disk ${disk.capacity}`];
  if (firstDifference === undefined) return [];
  return [`${image}: the byte at ${firstDifference} read from the backend is not the image's`];
}

/** Serves the disk to NBD clients, until a signal comes or the command has ended. */
async function serveNbd(host: VhostHost, plan: Plan, interruption: Interruption): Promise<number> {
  const { nbd, run } = plan.options;
  const folder = nbd === undefined ? mkdtempSync(join(tmpdir(), 'grantio-')) : undefined;
  const address = nbd ?? join(folder!, 'nbd.sock');
  let unflushed: string | undefined;
  try {
    const uris = await host.openNbd(address, NAME).catch(async (error: Error) => {
      await host.stop();
      throw error;
    });
    const served = useDisks({ address, uris, names: [NAME] }, run, interruption);
    const status = await served.finally(async () => {
      const report = await host.stop();
      // Standard output is the command's.
      print(plan, host, { ...report.work, identical: null }, report, process.stderr);
      unflushed = report.unflushed;
    });
    if (unflushed === undefined) return status;
    process.stderr.write(`grantio: what clients wrote last may be lost: ${unflushed}\n`);
    return status || 1;
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

function print(
  { socket, image, memory, options }: Plan,
  { disk }: VhostHost,
  { nanoseconds, ...work }: Work,
  { exposure, mostLiveBytes, resets, reconnections }: VhostReport,
  stream: NodeJS.WriteStream,
): void {
  const report = modeReport({ mode: MODE, ...work, seconds: nanoseconds / 1e9, eventsLost: 0 }, exposure);
  if (options.json) {
    const comparedWith = work.identical === null ? null : (image ?? 'itself, read twice');
    const document = {
      backend: { socket, ...disk, resets, reconnections },
      memory: { bytes: memory, windowBytes: WINDOW, mostLiveBytes },
      comparedWith,
      modes: [report],
    };
    process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
    return;
  }
  const colour = stream.isTTY === true && process.env['NO_COLOR'] === undefined;
  stream.write(
    `\n${SCHEME}${socket}: a disk of ${bytesText(disk.capacity)}${disk.readOnly ? ', read-only' : ''}\n`,
  );
  stream.write(`\n${reportTable([report], { colour, width: stream.columns ?? 100 })}\n`);
  stream.write(
    `${MODE}: the backend could read and overwrite ${bytesText(WINDOW)} of the guest's ${bytesText(memory)}, all of it for as long\n` +
      '  as it was connected. Nothing else was in there but the rings and live requests of this disk, at most\n' +
      `  ${bytesText(mostLiveBytes)} at a time, and zeroes: what was over was wiped.\n`,
  );
  if (resets > 0) stream.write(`  The disk was reset ${resets} times because something was wrong with it.\n`);
  if (reconnections > 0) stream.write(`  The backend went away and came back ${reconnections} times.\n`);
}
