// What `grantio` says about itself.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { grantio } from '../support/grantio.ts';

const manifest = new URL('../../../package.json', import.meta.url);

test('--version prints the version of package.json', async (t) => {
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  const { status, stdout, stderr } = await grantio(t, ['--version']);
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: `${version}\n`, stderr: '' });
});

test('--help names the commands and the exit statuses', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['--help']);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.match(stdout, /^Usage: grantio /);
  assert.match(stdout, /^ {2}run .*guest/m);
  assert.match(stdout, /Exit status: 0 .* 1 .* 2 /);
});

test('run --help names every option, and gives examples', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['run', '--help']);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.match(stdout, /^Usage: grantio run .*\[guest\.cfg\]/);
  for (const option of [
    'disk',
    'mode',
    'arch',
    'queues',
    'queue-size',
    'memory',
    'nbd',
    'run',
    'trace',
    'dma-debug',
    'dma-debug-driver',
    'json',
  ])
    assert.match(stdout, new RegExp(`^ {2}--${option}\\b`, 'm'));
  for (const variable of ['$uri', '$nbd', '$unixsocket']) assert.ok(stdout.includes(variable), variable);
  assert.match(stdout, /^Examples:$/m);
});

test('xen-backend --help names every option, and says how a guest finds its devices', async (t) => {
  const { status, stdout, stderr } = await grantio(t, ['xen-backend', '--help']);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  for (const option of ['mmio', 'disk', 'rng', 'console', 'domain', 'grants', 'access', 'json'])
    assert.match(stdout, new RegExp(`^ {2}--${option}\\b`, 'm'));
  for (const word of ['specification=virtio', 'virtio_mmio.device=512@0xd0000000:5', 'grant_usage'])
    assert.ok(stdout.includes(word), word);
  assert.match(stdout, /^Exit status:$/m);
});

test('without a command it prints the help on standard error, as for a wrong call', async (t) => {
  const { status, stdout, stderr } = await grantio(t, []);
  assert.deepEqual({ status, stdout }, { status: 2, stdout: '' });
  assert.match(stderr, /^Usage: grantio /);
});
