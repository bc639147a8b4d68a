// The main job's speed: a whole disk through guest, grants and backend on their two threads, with the
// accounting on, against reading the same file with fs.readSync.

import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EXPOSURE_MODES, type ExposureMode } from '../src/dma/exposure-modes.ts';
import { VirtualHost } from '../src/parallel/virtual-host.ts';
import { type Figure, measure } from './figures.ts';

const MIB = 2 ** 20;
const SIZE = 256 * MIB;
const CHUNK = 128 * 1024;
const ROUNDS = 5;

async function copyThroughGuest(path: string, mode: ExposureMode): Promise<number> {
  const host = await VirtualHost.start({
    disks: [{ path, readOnly: true, dev: 'xvda' }],
    entropyDevices: [],
    mode,
    architecture: 'x86',
    kind: 'pvh',
    firstDevice: 0,
    memory: 64 * MIB,
    maxGrantFrames: 64,
    queues: 1,
    queueSize: 128,
  });
  const { identical, nanoseconds, bytes } = await host.copy(0);
  await host.stop();
  if (!identical) throw new Error('the copy is not identical');
  return bytes / MIB / (nanoseconds / 1e9);
}

function copyPlainly(path: string): number {
  const file = openSync(path, 'r');
  const buffer = new Uint8Array(CHUNK);
  const copy = new Uint8Array(32 * MIB);
  const start = process.hrtime.bigint();
  for (let at = 0; at < SIZE; at += CHUNK) {
    readSync(file, buffer, 0, CHUNK, at);
    copy.set(buffer, at % copy.length);
  }
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  closeSync(file);
  return SIZE / MIB / seconds;
}

export async function benchCopy(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-bench-'));
  const path = join(folder, 'disk.img');
  try {
    const block = Uint8Array.from({ length: MIB }, (_, i) => (i * 167) ^ (i >> 9));
    writeFileSync(path, '');
    for (let i = 0; i < SIZE / MIB; i++) writeFileSync(path, block, { flag: 'a' });
    const candidates = [
      { name: 'plain fs.readSync', round: () => copyPlainly(path) },
      ...EXPOSURE_MODES.map((mode) => ({
        name: `through grants, ${mode}`,
        round: () => copyThroughGuest(path, mode),
      })),
    ];
    return await measure(
      `copy of ${SIZE / MIB} MiB in requests of ${CHUNK / 1024} KiB`,
      'MiB/s',
      candidates,
      ROUNDS,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
