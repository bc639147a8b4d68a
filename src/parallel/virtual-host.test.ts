// A host whose guest is paused, and one whose guest is destroyed, in the middle of copying a disk.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { type HostOptions, VirtualHost } from './virtual-host.ts';

const MIB = 2 ** 20;

/** A host with one disk of 96 MiB: three windows of a copy. */
async function startHost(t: TestContext, mode: ExposureMode = 'bounce'): Promise<VirtualHost> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk.img');
  writeFileSync(path, Buffer.alloc(96 * MIB, 'disk'));
  const options: HostOptions = {
    disks: [{ path, readOnly: true, dev: 'xvda' }],
    entropyDevices: [],
    mode,
    firstDevice: 0,
    kind: 'pvh',
    architecture: mode === 'copy' ? 'x86' : 'arm',
    memory: 64 * MIB,
    maxGrantFrames: 64,
    queues: 1,
    queueSize: 128,
  };
  return VirtualHost.start(options);
}

test('a guest that is paused in the middle of a copy finishes it when it goes on', async (t) => {
  const host = await startHost(t);
  let windows = 0;
  const paused = new Promise<void>((resolve) => {
    host.onProgress = () => {
      windows++;
      if (windows === 1) resolve(host.pauseGuest());
    };
  });
  const copy = host.copy(0);
  await paused;
  // What it had reported before it stood still arrives; nothing comes after that.
  for (let turns = 0; turns < 100; turns++) await turn();
  const seen = windows;
  for (let turns = 0; turns < 100; turns++) await turn();
  assert.equal(windows, seen);
  host.resumeGuest();
  assert.ok((await copy).identical);
  await host.stop();
});

for (const mode of ['bounce', 'copy'] as const)
  test(`a guest that is destroyed in the middle of a copy leaves nothing mapped, and its id is free, ${mode}`, async (t) => {
    const host = await startHost(t, mode);
    const begun = new Promise<void>((resolve) => {
      host.onProgress = () => resolve();
    });
    const copy = assert.rejects(host.copy(0));
    await begun;
    await host.destroyGuest();
    await copy;
    assert.ok((await host.stop()).exposure.bytesNeeded > 0);
  });
