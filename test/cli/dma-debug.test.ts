// `grantio run --dma-debug`: our own drivers make no mistake, in any mode and whatever they are asked to do.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import type { DmaDebugResult } from '../../src/dma/dma-debug-log.ts';
import { grantio, temporaryFolder } from '../support/grantio.ts';

type Found = Omit<DmaDebugResult, 'stacks'>;

interface Mode {
  readonly mode: string;
  readonly fallback?: object;
  readonly dmaDebug?: Found;
}

function found(text: string): Mode[] {
  return (JSON.parse(text) as { modes: Mode[] }).modes;
}

test('G18 G19: a demonstration in every mode, and its entropy device, are without an error', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(2 ** 20 + 512, 'disk'));
  writeFileSync(
    join(folder, 'guest.cfg'),
    [
      'name = "demo"',
      'disk = [ "disk.img,raw,xvda,rw,specification=virtio,grant_usage=1" ]',
      'virtio = [ "backend=0,type=virtio,device4,transport=mmio,grant_usage=1" ]',
    ].join('\n'),
  );
  for (const words of [[], ['--queues', '4', '--queue-size', '4']]) {
    // On x86, where mode copy is to be had.
    const call = ['run', 'guest.cfg', '--arch', 'x86', '--dma-debug', '--json', ...words];
    const { status, stdout, stderr } = await grantio(t, call, { cwd: folder });
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    const modes = found(stdout);
    assert.deepEqual(
      modes.map(({ mode }) => mode),
      EXPOSURE_MODES,
    );
    for (const { mode, dmaDebug, fallback } of modes) {
      assert.equal(fallback, undefined, mode);
      assert.ok(dmaDebug !== undefined && dmaDebug.mostEntries > 4, mode);
      const { mostEntries: _, ...rest } = dmaDebug;
      assert.deepEqual(rest, { errors: 0, entries: 0, disabled: false, reports: [] }, mode);
    }
  }
});

test('without it nothing is watched, and with it a table says what came of it', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(4096));
  const call = ['run', '--disk', 'disk.img', '--mode', 'bounce'];
  const without = await grantio(t, [...call, '--json'], { cwd: folder });
  assert.equal(found(without.stdout)[0].dmaDebug, undefined);
  const text = await grantio(t, [...call, '--dma-debug-driver', 'virtio_blk'], { cwd: folder });
  assert.equal(text.status, 0, text.stderr);
  assert.match(text.stdout, /^bounce: DMA debugging found no errors; /m);
});

test('drivers are watched while clients are served, too', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(4096));
  const call = ['run', '--disk', 'disk.img', '--run', 'true', '--dma-debug', '--json'];
  const { status, stdout, stderr } = await grantio(t, call, { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.equal(found(stdout)[0].dmaDebug?.errors, 0);
});
