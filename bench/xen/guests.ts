// Guests whose disks are measured (requests.ts), each disk with a backend of its own and an image that the first domain
// keeps in memory. Uses the commands `guest` (../../test/xen/dom0/guest) and xl. Before requests.ts, after guest-job.ts.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DISK_SIZE, job } from './guest-job.ts';

/** Whether Xen's blkback offers persistent grants to the disks that connect from now on. */
const BLKBACK_PERSISTENT = '/sys/module/xen_blkback/parameters/feature_persistent';
const XENBUS_CONNECTED = '4';
/** How long a guest may take to connect a disk of blkback's, in milliseconds: it boots meanwhile. */
const CONNECT_LIMIT = 240_000;

/** A disk of a guest: its name there and what serves it. */
export interface Disk {
  readonly disk: string;
  /** Words for `grantio xen-backend`. */
  readonly grantio?: readonly string[];
  /** The number of a disk of Xen's blkback, and whether grants are to be persistent. */
  readonly blkback?: { readonly device: number; readonly persistent: boolean };
}

/**
 * Lets a guest with a kernel of the rig measure its disks. A disk that neither serves is QEMU's. Resolves with what the
 * guest said.
 */
export async function run(
  name: string,
  kernel: string,
  disks: readonly Disk[],
  folder: string,
): Promise<string> {
  const jobFile = join(folder, 'job');
  writeFileSync(jobFile, job(disks.map(({ disk }) => disk)));
  for (const { disk } of disks) writeFileSync(imageOf(folder, disk), Buffer.alloc(DISK_SIZE, disk));
  const qemu = disks.find(({ grantio, blkback }) => !grantio && !blkback);
  const words = qemu ? [imageOf(folder, qemu.disk)] : [];
  const id = guest('create', name, jobFile, kernel, ...words)
    .trim()
    .split('\n')
    .at(-1)!;
  const backends: ChildProcess[] = [];
  try {
    for (const { disk, grantio } of disks)
      if (grantio) backends.push(await startBackend(id, [...grantio, '--disk', imageOf(folder, disk)]));
    guest('start', name);
    for (const { disk, blkback } of disks)
      if (blkback) await attach(name, id, disk, blkback, imageOf(folder, disk));
    const ends = backends.map((backend) => once(backend, 'close'));
    guest('wait', name);
    await Promise.all(ends);
    return guest('console', name);
  } catch (error) {
    for (const backend of backends) backend.kill('SIGKILL');
    // It may have gone already.
    spawnSync('xl', ['destroy', name]);
    throw error;
  }
}

const imageOf = (folder: string, disk: string): string => join(folder, `${disk}.img`);

const output = (program: string, ...words: string[]): string =>
  execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const guest = (...words: string[]): string => output('guest', ...words);

/** Resolves when the backend serves. */
async function startBackend(id: string, words: readonly string[]): Promise<ChildProcess> {
  const all = ['xen-backend', '--domain', id, '--state', 'none', '--json', ...words];
  const backend = spawn(process.execPath, ['bin/grantio', ...all], { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = once(backend, 'close').then(([status]) => {
    throw new Error(`grantio ${all.join(' ')} ended with ${status}`);
  });
  await Promise.race([once(backend.stdout, 'data'), ended]);
  ended.catch(() => undefined);
  return backend;
}

/** Gives a guest that runs a disk of Xen's blkback. Resolves when it is connected, which is when blkback looks at its parameter. */
async function attach(
  name: string,
  id: string,
  disk: string,
  { device, persistent }: NonNullable<Disk['blkback']>,
  image: string,
): Promise<void> {
  output('modprobe', 'xen-blkback');
  writeFileSync(BLKBACK_PERSISTENT, persistent ? 'Y' : 'N');
  guest('attach', name, disk, image);
  const state = `/local/domain/0/backend/vbd/${id}/${device}/state`;
  const end = Date.now() + CONNECT_LIMIT;
  while (output('xenstore-read', state).trim() !== XENBUS_CONNECTED) {
    if (Date.now() > end) throw new Error(`${name} did not connect ${disk}: expected ${state} to become 4`);
    await delay(200);
  }
}
