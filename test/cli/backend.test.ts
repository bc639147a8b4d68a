// `grantio run --backend`: calls that make no sense, machines that cannot, and sockets behind which there is no
// backend. Real backends are in test/peers.

import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { grantio, startGrantio, temporaryFolder } from '../support/grantio.ts';
import { parseReport } from '../support/report.ts';

const BACKEND = ['run', '--backend', 'vhost-user:b.sock'];

for (const [words, says] of [
  [['run', '--backend', 'b.sock'], /--backend b\.sock: expected vhost-user:SOCKET/],
  [['run', '--backend', 'vhost-user:'], /expected vhost-user:SOCKET/],
  [['run', '--backend', `vhost-user:/${'x'.repeat(108)}`], /109 bytes, expected at most 107/],
  [[...BACKEND, 'guest.cfg'], /guest\.cfg has no say/],
  [[...BACKEND, '--mode', 'bounce'], /--mode is about domains of the embedded Xen/],
  [[...BACKEND, '--grants', 'require'], /--grants is about/],
  [[...BACKEND, '--trace', 't.json'], /--trace is about/],
  [[...BACKEND, '--dma-debug'], /--dma-debug is about/],
  [[...BACKEND, '--explain'], /--explain is about/],
  [[...BACKEND, '--disk', 'one.img', '--disk', 'two.img'], /one --disk to compare it with/],
  [[...BACKEND, '--queue-size', '2048'], /--queue-size 2048: backends take at most 1024/],
  [[...BACKEND, '--nbd', 'host:port:extra'], /expected HOST:PORT/],
  [[...BACKEND, '--reconnect', 'ever'], /--reconnect .*'ever'/],
  [['run', '--reconnect', '5'], /--reconnect: .*add --backend/],
] as const)
  test(`O1: ${words.slice(1).join(' ').slice(0, 80)} is a wrong call`, async (t) => {
    const ended = await grantio(t, words, { cwd: temporaryFolder(t) });
    assert.match(ended.stderr, says);
    assert.deepEqual([ended.status, ended.stdout], [2, '']);
  });

test('an image that is not there, and a socket where nobody listens, are said in a sentence', async (t) => {
  const cwd = temporaryFolder(t);
  const noImage = await grantio(t, [...BACKEND, '--disk', 'none.img'], { cwd });
  assert.match(noImage.stderr, /^grantio: .*none\.img.*\n$/);
  assert.equal(noImage.status, 1);
  const nobody = await grantio(t, BACKEND, { cwd });
  assert.match(
    nobody.stderr,
    /^grantio: --backend vhost-user:b\.sock: socket b\.sock: connect failed: ENOENT\n$/,
  );
  assert.equal(nobody.status, 1);
});

test('T2: a server that speaks something else is no backend', async (t) => {
  const cwd = temporaryFolder(t);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write('NBDMAGICIHAVEOPT and more');
  });
  await new Promise<void>((resolve) => server.listen(join(cwd, 'b.sock'), resolve));
  t.after(() => server.close());
  const ended = await grantio(t, BACKEND, { cwd });
  assert.match(ended.stderr, /the backend broke the vhost-user protocol: request \d+ has \d+ bytes/);
  assert.equal(ended.status, 1);
});

test('our driver on our own backend: copied and checked, over two queues; one that is too long is said to be', async (t) => {
  const cwd = temporaryFolder(t);
  writeFileSync(join(cwd, 'disk.img'), 'the first sector, and then nothing');
  truncateSync(join(cwd, 'disk.img'), 3 * 2 ** 20);
  const serving = ['serve', 'blk', '--disk', 'disk.img', '--socket-path', 'b.sock', '--queues', '2'];
  const server = startGrantio(t, serving, { cwd });
  await server.says(/served at/);
  const job = [...BACKEND, '--disk', 'disk.img', '--queues', '2', '--json'];
  const copied = await grantio(t, job, { cwd });
  assert.equal(copied.status, 0, copied.stderr);
  const [figures] = parseReport(copied.stdout);
  assert.deepEqual([figures.mode, figures.identical, figures.foreignReadableBytes], ['window', true, 0]);
  const long = await grantio(t, [...job, '--queue-size', '1024'], { cwd });
  assert.match(long.stderr, /the backend refuses a queue of 1024 descriptors: try fewer/);
  assert.equal(long.status, 1);
  server.signal('SIGTERM');
  assert.equal((await server.ended).status, 0);
});

test('without koffi it says in a sentence what is missing, and that the call cannot be', async (t) => {
  const cwd = temporaryFolder(t);
  const preload = join(cwd, 'no-koffi.cjs');
  writeFileSync(
    preload,
    `const Module = require('node:module');
     const load = Module._load;
     Module._load = (name, ...rest) => {
       if (name === 'koffi') throw Object.assign(new Error('not found'), { code: 'MODULE_NOT_FOUND' });
       return load(name, ...rest);
     };`,
  );
  const env = { ...process.env, NODE_OPTIONS: `--require ${preload}` };
  const ended = await grantio(t, BACKEND, { cwd, env });
  assert.match(ended.stderr, /^grantio: --backend vhost-user:b\.sock: .*koffi.*npm install koffi\n$/);
  assert.equal(ended.status, 2);
});
