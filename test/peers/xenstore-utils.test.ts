// Debian's xenstore tools (package xenstore-utils), through the distribution's own libxenstore, against the
// daemon as a process of its own.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connectXenstore } from '../../src/cli/xenstore-socket.ts';
import { GRANTIO } from '../support/grantio.ts';

/** Long enough for any machine; no test waits for it unless something is broken. */
const LIMIT_MS = 30_000;

let folder: string;
let socket: string;
let daemon: ChildProcess;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'grantio-xenstore-utils-'));
  socket = join(folder, 'socket');
  daemon = spawn(process.execPath, [GRANTIO, 'xenstored', '--socket', socket], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  assert.match(await printed(daemon)(1), /listening on/);
});

after(async () => {
  daemon.kill('SIGTERM');
  if (daemon.exitCode === null) await once(daemon, 'exit', { signal: AbortSignal.timeout(LIMIT_MS) });
  rmSync(folder, { recursive: true });
});

/** Collects what a process prints; the function waits for so many lines and returns everything so far. */
function printed(child: ChildProcess): (count: number) => Promise<string> {
  let text = '';
  child.stdout!.on('data', (chunk) => {
    text += chunk;
  });
  return async (count) => {
    const limit = AbortSignal.timeout(LIMIT_MS);
    while (text.split('\n').length <= count) await once(child.stdout!, 'data', { signal: limit });
    return text;
  };
}

function start(tool: string, ...parameters: string[]): ChildProcess {
  return spawn(tool, parameters, {
    env: { ...process.env, XENSTORED_PATH: socket },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs a tool to its end: its exit code and what it printed. */
async function run(tool: string, ...parameters: string[]): Promise<[code: number, output: string]> {
  const child = start(tool, ...parameters);
  let output = '';
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (chunk) => (output += chunk));
  try {
    const [code] = await once(child, 'close', { signal: AbortSignal.timeout(LIMIT_MS) });
    return [code, output];
  } catch (error) {
    child.kill();
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      assert.fail(`${tool} is not installed: these tests need Debian's package xenstore-utils`);
    throw error;
  }
}

test('xenstore-write, -read, -exists, -list and -rm', async () => {
  assert.deepEqual(await run('xenstore-write', '/t/one', '1', '/t/two', 'a b'), [0, '']);
  assert.deepEqual(await run('xenstore-read', '/t/one', '/t/two'), [0, '1\na b\n']);
  assert.deepEqual(await run('xenstore-list', '/t'), [0, 'one\ntwo\n']);
  assert.deepEqual(await run('xenstore-list', '-p', '/t'), [0, '/t/one\n/t/two\n']);
  assert.deepEqual(await run('xenstore-exists', '/t/one'), [0, '']);
  assert.deepEqual(await run('xenstore-exists', '/t/none'), [1, '']);
  assert.deepEqual(await run('xenstore-rm', '/t/one'), [0, '']);
  assert.deepEqual(await run('xenstore-list', '/t'), [0, 'two\n']);
  assert.deepEqual(await run('xenstore-rm', '-t', '/t/two'), [0, '']);
  assert.deepEqual(await run('xenstore-exists', '/t'), [1, ''], '-t removes the empty parents');
  assert.deepEqual(await run('xenstore-read', '/t/one'), [1, "xenstore-read: couldn't read path /t/one\n"]);
});

test('xenstore-write and -read keep any bytes', async () => {
  const value = 'line\\n tab\\t backslash\\\\ high\\xff\\001';
  assert.deepEqual(await run('xenstore-write', '/bytes', value), [0, '']);
  assert.deepEqual(await run('xenstore-read', '/bytes'), [0, `${value}\n`]);
  await run('xenstore-rm', '/bytes');
});

test('a relative path starts at /local/domain/0', async () => {
  assert.deepEqual(await run('xenstore-write', 'mine', 'x'), [0, '']);
  assert.deepEqual(await run('xenstore-read', '/local/domain/0/mine'), [0, 'x\n']);
  assert.deepEqual(await run('xenstore-rm', '/local'), [0, '']);
});

test('xenstore-chmod and xenstore-ls -p, one node or a whole tree', async () => {
  await run('xenstore-write', '/perms/a', '1', '/perms/b', '2');
  assert.deepEqual(await run('xenstore-chmod', '/perms/a', 'n0', 'r5', 'w6', 'b7'), [0, '']);
  assert.deepEqual(await run('xenstore-ls', '-f', '-p', '/perms'), [
    0,
    '/perms/a = "1"   (n0,r5,w6,b7)\n/perms/b = "2"   (n0)\n',
  ]);
  assert.deepEqual(await run('xenstore-chmod', '-r', '/perms', 'r3'), [0, '']);
  assert.deepEqual(await run('xenstore-ls', '-f', '-p', '/perms'), [
    0,
    '/perms/a = "1"   (r3)\n/perms/b = "2"   (r3)\n',
  ]);
  assert.deepEqual(await run('xenstore-rm', '/perms'), [0, '']);
});

test('xenstore-ls of what a toolstack writes for a virtio device', async () => {
  const backend = '/local/domain/2/backend/virtio/1/0';
  const keys = {
    frontend: '/local/domain/1/device/virtio/0',
    'frontend-id': '1',
    state: '1',
    base: '0x2000000',
  };
  for (const [key, value] of Object.entries(keys)) await run('xenstore-write', `${backend}/${key}`, value);
  assert.deepEqual(await run('xenstore-ls', '/local/domain/2'), [
    0,
    'backend = ""\n virtio = ""\n  1 = ""\n   0 = ""\n' +
      Object.entries(keys)
        .map(([key, value]) => `    ${key} = "${value}"\n`)
        .join(''),
  ]);
  assert.deepEqual(await run('xenstore-rm', '/local'), [0, '']);
});

test('xenstore-list of more children than fit one message, which libxenstore asks for in parts', async () => {
  const client = await connectXenstore(socket);
  const names = Array.from({ length: 1500 }, (_, i) => `child-number-${i}`);
  await Promise.all(names.map((name) => client.write(`/many/${name}`, '')));
  const [code, output] = await run('xenstore-list', '/many');
  assert.equal(code, 0);
  assert.deepEqual(output.trim().split('\n'), names);
  await client.remove('/many');
  client.close();
});

test('xenstore-watch hears of changes by another tool', async () => {
  const watcher = start('xenstore-watch', '-n', '3', '/watched');
  const lines = printed(watcher);
  try {
    assert.equal(await lines(1), '/watched\n');
    const exit = once(watcher, 'exit', { signal: AbortSignal.timeout(LIMIT_MS) });
    assert.deepEqual(await run('xenstore-write', '/watched/state', '4'), [0, '']);
    assert.deepEqual(await run('xenstore-write', '/beside', '4'), [0, '']);
    assert.deepEqual(await run('xenstore-rm', '/watched'), [0, '']);
    assert.deepEqual(await exit, [0, null]);
    assert.equal(await lines(3), '/watched\n/watched/state\n/watched\n');
  } finally {
    watcher.kill();
  }
  await run('xenstore-rm', '/beside');
});

test('tools and our own client at the same time: a transaction in conflict with a tool is run again', async () => {
  const client = await connectXenstore(socket);
  await client.write('/counter', '1');
  let runs = 0;
  await client.transaction(async (nodes) => {
    const value = Number(await nodes.read('/counter'));
    if (runs++ === 0) assert.deepEqual(await run('xenstore-write', '/counter', '10'), [0, '']);
    await nodes.write('/counter', `${value + 1}`);
  });
  assert.equal(runs, 2);
  assert.deepEqual(await run('xenstore-read', '/counter'), [0, '11\n']);
  await client.remove('/counter');
  client.close();
});

test('the daemon ends on SIGTERM with exit code 0 and takes its socket with it', async () => {
  const exit = once(daemon, 'exit', { signal: AbortSignal.timeout(LIMIT_MS) });
  daemon.kill('SIGTERM');
  assert.deepEqual(await exit, [0, null]);
  const [code, output] = await run('xenstore-exists', '/');
  assert.equal(code, 1);
  assert.match(output, /No such file or directory/);
});
