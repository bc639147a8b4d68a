// A host whose guest is paused, and one whose guest is destroyed, in the middle of copying a disk.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { EXPOSURE_MODES, type ExposureMode } from '../dma/exposure-modes.ts';
import type { Architecture } from '../hosts/model/address-map.ts';
import { domainId } from '../xen/ids.ts';
import type { HostDisk, HostOptions } from './host-options.ts';
import { VirtualHost } from './virtual-host.ts';

const MIB = 2 ** 20;

/** A host with one disk of 96 MiB: three windows of a copy. */
async function startHost(
  t: TestContext,
  mode: ExposureMode = 'bounce',
  architecture: Architecture = mode === 'copy' ? 'x86' : 'arm',
  entropy = 0,
): Promise<VirtualHost> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk.img');
  writeFileSync(path, Buffer.alloc(96 * MIB, 'disk'));
  const options: HostOptions = {
    disks: [{ path, readOnly: true, dev: 'xvda' }],
    entropyDevices: Array.from({ length: entropy }, () => ({})),
    mode,
    firstDevice: 0,
    kind: 'pvh',
    architecture,
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

for (const mode of EXPOSURE_MODES) {
  test(`B20 C5: ${mode}: a backend that is killed in the middle of a copy is replaced, twice; the copy is identical, and nothing stays granted`, async (t) => {
    const host = await startHost(t, mode, 'x86', 1);
    const begun = new Promise<void>((resolve) => {
      host.onProgress = () => resolve();
    });
    const copy = host.copy(0);
    await begun;
    for (const id of [3, 4]) await host.replaceBackend(domainId(id));
    const { identical, bytes } = await copy;
    assert.deepEqual([identical, bytes], [true, 96 * MIB]);
    const { exposure, eventsLost, troubles } = await host.stop();
    assert.deepEqual([troubles?.stillQuarantined, troubles?.resets], [0, 0]);
    assert.deepEqual([exposure.leakedGrants, exposure.contradictions, eventsLost], [0, 0, 0]);
  });
}

/** One more disk for a host, of whole blocks of one byte. */
function extraDisk(t: TestContext, fill: string): HostDisk {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'extra.img');
  writeFileSync(path, Buffer.alloc(MIB, fill));
  return { path, readOnly: false, dev: 'xvdb' };
}

test('devices come and go while a disk is copied, and leave no grant', async (t) => {
  const host = await startHost(t);
  const extra = extraDisk(t, 'extra');
  const begun = new Promise<void>((resolve) => {
    host.onProgress = () => resolve();
  });
  const copy = host.copy(0);
  await begun;
  for (let round = 0; round < 3; round++) {
    const [disk, source] = await Promise.all([host.plug(extra), host.plugEntropy()]);
    assert.deepEqual([disk.nodes.devid, source.nodes.devid], [1, 2]);
    assert.deepEqual(
      host.devices.map(({ dev }) => dev),
      ['xvda', 'xvdb', 'entropy0'],
    );
    assert.deepEqual(await Promise.all([host.unplug('xvdb'), host.unplug('entropy0')]), [true, true]);
  }
  assert.ok((await copy).identical);
  await host.plug(extra);
  assert.ok((await host.copy(1)).identical);
  await assert.rejects(host.plug(extra), /has a device xvdb already/);
  await assert.rejects(host.unplug('xvdz'), /no device xvdz/);
  await assert.rejects(host.plug({ ...extra, dev: 'xvdc', path: '/does/not/exist' }), /does\/not\/exist/);
  assert.deepEqual(
    host.devices.map(({ dev }) => dev),
    ['xvda', 'xvdb'],
  );
  assert.equal((await host.stop()).exposure.leakedGrants, 0);
});

test('a disk that is unplugged while it is copied ends the copy, and the guest goes on', async (t) => {
  const host = await startHost(t);
  const begun = new Promise<void>((resolve) => {
    host.onProgress = () => resolve();
  });
  const copy = assert.rejects(host.copy(0), /unplugged while it was copied/);
  await begun;
  assert.equal(await host.unplug('xvda'), true);
  await copy;
  const { nodes } = await host.plug(extraDisk(t, 'again'));
  assert.equal(nodes.devid, 0, 'its place is free');
  assert.ok((await host.copy(0)).identical);
  assert.equal((await host.stop()).exposure.leakedGrants, 0);
});
