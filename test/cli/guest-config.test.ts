// `grantio run guest.cfg`: what is taken from an xl.cfg file, and how its mistakes are shown.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { grantio, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, parseReport } from '../support/report.ts';

/** A folder with guest.cfg and, in a folder beside it, two images of 64 KiB. */
function guest(folder: string, ...settings: readonly string[]): void {
  mkdirSync(join(folder, 'images'));
  for (const name of ['one.img', 'two.img'])
    writeFileSync(join(folder, 'images', name), Buffer.alloc(2 ** 16, name));
  writeFileSync(join(folder, 'guest.cfg'), settings.map((setting) => `${setting}\n`).join(''));
}

test('a relative path of an image starts at the folder of the configuration', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "guest"',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio,grant_usage=1" ]',
  );
  const { status, stdout, stderr } = await grantio(t, ['run', join(folder, 'guest.cfg'), '--json'], {
    cwd: '/',
  });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  const modes = parseReport(stdout);
  assert.deepEqual(
    modes.map(({ mode, identical }) => [mode, identical]),
    EXPOSURE_MODES.map((mode) => [mode, true]),
  );
  modes.forEach(checkExposure);
});

test('the disks have their names of the configuration, and --disk adds to them', async (t) => {
  const folder = temporaryFolder(t);
  guest(folder, 'name = "guest"', 'disk = [ "images/one.img,raw,xvdc,ro,specification=virtio" ]');
  const running = ['run', 'guest.cfg', '--disk', 'images/two.img', '--nbd', 'sock', '--run', 'echo "$uri"'];
  const { status, stdout, stderr } = await grantio(t, running, { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^nbd\+unix:\/\/\/xvdc\?socket=/);
});

test('a disk whose backend is not trusted is served in bounce mode, or the private one that is asked for', async (t) => {
  const folder = temporaryFolder(t);
  guest(folder, 'name = "guest"', 'disk = [ "images/one.img,raw,xvda,rw,specification=virtio,untrusted" ]');
  const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg', '--json'], { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.deepEqual(
    parseReport(stdout).map(({ mode }) => mode),
    ['bounce'],
  );
  const asked = ['run', 'guest.cfg', '--mode', 'copy', '--arch', 'x86', '--json'];
  const copied = await grantio(t, asked, { cwd: folder });
  assert.deepEqual(
    parseReport(copied.stdout).map(({ mode }) => mode),
    ['copy'],
  );
});

test('max_grant_version=1 makes copy bounce on x86 too', async (t) => {
  const folder = temporaryFolder(t);
  const disk = 'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]';
  guest(folder, 'name = "guest"', 'max_grant_version = 1', disk);
  const words = ['run', 'guest.cfg', '--mode', 'copy', '--arch', 'x86'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /copy: needs grant table version 2, which max_grant_version=1 .*: bounce was used/);
});

test('--memory stands in for memory that the configuration has and this machine has not', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "guest"',
    'memory = 65536',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]',
  );
  const words = ['run', 'guest.cfg', '--memory', '32M', '--mode', 'bounce', '--json'];
  const { status, stdout, stderr } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 0, stderr);
  assert.equal(parseReport(stdout)[0].identical, true);
});

test('O1: an unknown key is reported with line, column and a suggestion', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "guest"',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]',
    '  max_grant_frame = 64',
  );
  const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg'], { cwd: folder });
  assert.deepEqual({ status, stdout }, { status: 2, stdout: '' });
  assert.match(stderr, /^guest\.cfg:3:3: error: .*`max_grant_frame`/);
  assert.match(stderr, /^ {2}help: .*`max_grant_frames`/m);
  assert.match(stderr, /^grantio: .*guest\.cfg.*nothing was started$/m);
});

test('XSA-268 max_grant_version = 2 is refused for a guest on Arm, which has version 1 only', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "guest"',
    'type = "pvh"',
    'max_grant_version = 2',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]',
  );
  const { status, stderr } = await grantio(t, ['run', 'guest.cfg'], { cwd: folder });
  assert.equal(status, 2);
  assert.match(stderr, /guest\.cfg: max_grant_version=2: .*version 1 only.*--arch x86/);
});

test('the limits of a configuration are those of the guest', async (t) => {
  const folder = temporaryFolder(t);
  const limits = ['type = "hvm"', 'max_grant_version = 2', 'max_grant_frames = 8', 'max_maptrack_frames = 0'];
  guest(folder, 'name = "guest"', ...limits, 'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]');
  const { status, stderr } = await grantio(t, ['run', 'guest.cfg'], { cwd: folder });
  assert.equal(status, 0, stderr);
});

test('O1: every mistake is reported at once, each at its place', async (t) => {
  const folder = temporaryFolder(t);
  guest(folder, 'name = "guest"', 'memory = "much"', 'disk = [ "images/one.img,raw" ]', 'vcpus = 0');
  const { status, stderr } = await grantio(t, ['run', 'guest.cfg'], { cwd: folder });
  assert.equal(status, 2);
  assert.deepEqual(
    [...stderr.matchAll(/^guest\.cfg:(\d+):\d+: error: /gm)].map(([, line]) => line),
    ['2', '3', '4'],
  );
});

test('a warning does not keep the guest from running', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "first"',
    'name = "second"',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]',
  );
  const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg', '--json'], { cwd: folder });
  assert.match(stderr, /^guest\.cfg:2:1: warning: /);
  assert.equal(status, 0, stderr);
  assert.equal(parseReport(stdout).length, EXPOSURE_MODES.length);
});

const DISK = 'disk = [ "images/one.img,raw,xvda,rw,specification=virtio" ]';

for (const [type, words, kind, architecture] of [
  [undefined, [], 'pvh', 'arm'],
  ['type = "pvh"', ['--arch', 'x86'], 'pvh', 'x86'],
  ['type = "hvm"', [], 'hvm', 'x86'],
] as const) {
  test(`a guest with ${type ?? 'no type'} ${words.join(' ')} is ${kind} on ${architecture}`, async (t) => {
    const folder = temporaryFolder(t);
    guest(folder, 'name = "web"', ...(type === undefined ? [] : [type]), DISK);
    const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg', '--json', ...words], {
      cwd: folder,
    });
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    const modes = parseReport(stdout);
    assert.deepEqual(
      modes.map(({ identical }) => identical),
      EXPOSURE_MODES.map(() => true),
    );
    modes.forEach(checkExposure);
    const document = JSON.parse(stdout) as { readonly guest: unknown };
    assert.deepEqual(document.guest, { name: 'web', kind, architecture });
  });
}

for (const [type, words, says] of [
  ['type = "pv"', [], /cannot have virtio-mmio devices.*write type = "pvh"$/m],
  ['builder = "generic"', [], /cannot have virtio-mmio devices.*write type = "pvh"$/m],
  ['type = "hvm"', ['--arch', 'arm'], /exists on x86 only; write type = "pvh" or leave out --arch arm$/m],
] as const) {
  test(`a guest with ${type} ${words.join(' ')} is refused, with the reason and the way out`, async (t) => {
    const folder = temporaryFolder(t);
    guest(folder, 'name = "web"', type, DISK);
    const { status, stdout, stderr } = await grantio(t, ['run', 'guest.cfg', ...words], { cwd: folder });
    assert.deepEqual({ status, stdout }, { status: 2, stdout: '' });
    assert.match(stderr, /^grantio: guest\.cfg:2:\d+: a guest of type /m);
    assert.match(stderr, says);
  });
}

test('a console and an entropy device beside the disk work in every mode', async (t) => {
  const folder = temporaryFolder(t);
  guest(
    folder,
    'name = "guest"',
    'disk = [ "images/one.img,raw,xvda,rw,specification=virtio,grant_usage=1" ]',
    'virtio = [ "type=virtio,device3,transport=mmio,grant_usage=1", "type=virtio,device4,transport=mmio" ]',
  );
  const { status, stdout, stderr } = await grantio(t, ['run', join(folder, 'guest.cfg'), '--json']);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.equal(parseReport(stdout).length, EXPOSURE_MODES.length);
});
