// `grantio run` on images: copies in each mode, what is reported of them, and that the images stay as they are.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { GRANTIO, grantio, Running, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, parseReport } from '../support/report.ts';

const SIZE = 2 ** 20 + 3 * 512;

/** An image in which every sector says where it is. */
function writeImage(path: string, size = SIZE): Buffer {
  const image = Buffer.alloc(size);
  for (let at = 0; at < size; at += 512) image.write(`sector ${at / 512} of ${path}`, at);
  writeFileSync(path, image);
  return image;
}

test('--json prints one document with the figures of every mode', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const { status, stdout, stderr } = await grantio(t, ['run', '--disk', 'disk.img', '--json'], {
    cwd: folder,
  });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  const modes = parseReport(stdout);
  assert.deepEqual(
    modes.map(({ mode, identical, leakedGrants }) => ({ mode, identical, leakedGrants })),
    EXPOSURE_MODES.map((mode) => ({ mode, identical: true, leakedGrants: 0 })),
  );
  for (const figures of modes) {
    checkExposure(figures);
    assert.ok(figures.bytesNeeded >= SIZE, `${figures.mode}: ${figures.bytesNeeded} bytes needed`);
  }
  const [direct] = modes;
  assert.ok(direct.foreignReadableBytes > 0 && direct.foreignWritableBytes > 0, stdout);
  assert.ok(!stdout.includes('fallback'), stdout);
});

test('a copy leaves the image as it was, and nothing beside it', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'disk.img');
  const before = writeImage(path);
  const { mtimeMs } = statSync(path);
  const env = { ...process.env, TMPDIR: folder };
  const { status, stderr } = await grantio(t, ['run', '--disk', path], { cwd: folder, env });
  assert.equal(status, 0, stderr);
  assert.ok(readFileSync(path).equals(before), 'the image changed');
  assert.equal(statSync(path).mtimeMs, mtimeMs, 'the image was written to');
  assert.deepEqual(readdirSync(folder), ['disk.img']);
});

test('the table has every mode, and no colours where there is no terminal', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const { status, stdout, stderr } = await grantio(t, ['run', '--disk', 'disk.img'], { cwd: folder });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  for (const word of [...EXPOSURE_MODES, 'auto: ']) assert.ok(stdout.includes(word), stdout);
  assert.ok(!stdout.includes('\x1b'), 'escape sequences for a terminal');
});

test('--mode leaves the other modes out', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  for (const mode of EXPOSURE_MODES) {
    const words = ['run', '--disk', 'disk.img', '--mode', mode, '--json'];
    const { status, stdout, stderr } = await grantio(t, words, { cwd: folder });
    assert.equal(status, 0, stderr);
    assert.deepEqual(
      parseReport(stdout).map((figures) => figures.mode),
      [mode],
    );
  }
});

test('XSA-268: on Arm copy is bounce, and the run says so, to people and to programs', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const words = ['run', '--disk', 'disk.img', '--mode', 'copy', '--arch', 'arm'];
  const text = await grantio(t, words, { cwd: folder });
  assert.deepEqual({ status: text.status, stderr: text.stderr }, { status: 0, stderr: '' });
  const reason = 'needs grant table version 2, which Xen on Arm does not have (XSA-268)';
  assert.ok(text.stdout.includes(`copy: ${reason}: bounce was used\n`), text.stdout);
  const { stdout } = await grantio(t, [...words, '--json'], { cwd: folder });
  const { modes } = JSON.parse(stdout) as { modes: readonly [{ fallback: unknown }] };
  assert.deepEqual(modes[0].fallback, { mode: 'bounce', reason });
  checkExposure(parseReport(stdout)[0]);
});

test('a curious backend of mode copy tries for more and is refused, and the run says so', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const words = ['run', '--disk', 'disk.img', '--mode', 'copy'];
  const { status, stdout } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 0);
  assert.match(stdout, /^guest: pvh on x86$/m);
  assert.match(stdout, /copy: a curious backend tried \d+ references\n +and every attempt .* was refused\./);
  assert.ok(!stdout.includes('was used'), stdout);
});

for (const words of [
  ['--queues', '4'],
  ['--queue-size', '4'],
  ['--queue-size', '1024', '--queues', '2'],
  ['--memory', '16M'],
  ['--memory', '256M'],
])
  test(`several disks with ${words.join(' ')} are copied without a difference`, async (t) => {
    const folder = temporaryFolder(t);
    writeImage(join(folder, 'one.img'));
    writeImage(join(folder, 'two.img'), 512);
    const call = ['run', '--disk', 'one.img', '--disk', 'two.img,ro', ...words, '--json'];
    const { status, stdout, stderr } = await grantio(t, call, { cwd: folder });
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    for (const figures of parseReport(stdout)) {
      assert.equal(figures.identical, true);
      checkExposure(figures);
      assert.ok(figures.bytesNeeded >= SIZE + 512, `${figures.bytesNeeded} bytes needed`);
    }
  });

test('a reader that goes away is no reason to break off', async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const call = `"$0" "$1" run --disk disk.img --mode bounce --json`;
  const script = `{ ${call}; echo "status $?" >&2; } | true`;
  const running = new Running('/bin/sh', ['-c', script, process.execPath, GRANTIO], { cwd: folder });
  t.after(() => running.kill());
  assert.equal((await running.ended).stderr, 'status 0\n');
});

test('a full disk behind standard output is a failure', { skip: !existsSync('/dev/full') }, async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const script = '"$0" "$1" run --disk disk.img --mode bounce --json >/dev/full';
  const running = new Running('/bin/sh', ['-c', script, process.execPath, GRANTIO], { cwd: folder });
  t.after(() => running.kill());
  const { status, stderr } = await running.ended;
  assert.match(stderr, /^grantio: standard output cannot be written: ENOSPC[^\n]*\n$/);
  assert.equal(status, 1);
});

test('without any disk it makes one, and removes it', async (t) => {
  const folder = temporaryFolder(t);
  const env = { ...process.env, TMPDIR: folder };
  const { status, stdout, stderr } = await grantio(t, ['run', '--json'], { cwd: folder, env });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  for (const figures of parseReport(stdout)) {
    assert.equal(figures.identical, true);
    checkExposure(figures);
  }
  assert.deepEqual(readdirSync(folder), [], 'left behind');
});
