import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { listenAtPath } from './unix-socket.ts';

let folder = '';
let path = '';
let number = 0;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'grantio-socket-'));
});
after(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  path = join(folder, `${number++}.sock`);
});

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

/** Leaves a socket at `path` that nobody serves, as a server does that was killed. */
async function leaveStaleSocket(): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ path: `${path}.old` }, resolve));
  renameSync(`${path}.old`, path);
  await stop(server);
}

test('a server listens at the path, leaves nothing else there, and removes its socket', async () => {
  const server = createServer((socket) => socket.end('hello'));
  const remove = await listenAtPath(server, path);
  const answer = await new Promise((resolve) =>
    connect({ path }).once('data', (data) => resolve(String(data))),
  );
  assert.equal(answer, 'hello');
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('.')),
    [],
  );
  await remove();
  await stop(server);
  assert.equal(existsSync(path), false);
});

test('a socket has the permissions asked for', async () => {
  const server = createServer();
  const remove = await listenAtPath(server, path, { mode: 0o600 });
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  await remove();
  await stop(server);
});

test('O2: the socket of a dead server is replaced', async () => {
  await leaveStaleSocket();
  assert.equal(lstatSync(path).isSocket(), true);
  const server = createServer();
  const remove = await listenAtPath(server, path);
  await remove();
  await stop(server);
});

test('O2: the socket of a running server is refused and left alone', async () => {
  const first = createServer();
  const remove = await listenAtPath(first, path);
  await assert.rejects(
    listenAtPath(createServer(), path),
    /running server; stop that or choose another path/,
  );
  assert.equal(lstatSync(path).isSocket(), true);
  await remove();
  await stop(first);
});

test('O2: a file that is not a socket is refused and left alone', async () => {
  writeFileSync(path, 'precious');
  await assert.rejects(listenAtPath(createServer(), path), /is there and not a socket; remove it or choose/);
  assert.equal(lstatSync(path).size, 8);
});

test('O2: a socket that replaced ours is not removed', async () => {
  const first = createServer();
  const removeFirst = await listenAtPath(first, path);
  rmSync(path);
  const second = createServer();
  const removeSecond = await listenAtPath(second, path);
  await removeFirst();
  await stop(first);
  assert.equal(lstatSync(path).isSocket(), true);
  await removeSecond();
  await stop(second);
});

test('O2: a path that is gone already is no error when the server ends', async () => {
  const server = createServer();
  const remove = await listenAtPath(server, path);
  rmSync(path);
  await remove();
  await stop(server);
});

test('O2: a missing directory is named, with the errno', async () => {
  const missing = join(folder, 'none', 'nbd.sock');
  await assert.rejects(
    listenAtPath(createServer(), missing),
    /cannot be made; is its directory .*(ENOENT|EACCES)/,
  );
});

test('a relative path binds under a temporary name that reads as a number', async () => {
  const start = process.cwd();
  process.chdir(folder);
  const server = createServer();
  try {
    // Node takes ".30e519" for a port and refuses to listen.
    const remove = await listenAtPath(server, 'relative.sock', { temporaryName: '.30e519' });
    assert.ok(lstatSync(join(folder, 'relative.sock')).isSocket());
    await remove();
  } finally {
    process.chdir(start);
    await new Promise((resolve) => server.close(resolve));
  }
});
