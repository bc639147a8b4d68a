// `grantio run --nbd`: the disks for NBD clients, here one that is written in TypeScript; test/peers has the
// real ones.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type NetConnectOpts } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_EPERM,
  NBD_FLAG_READ_ONLY,
} from '../../src/abi/nbd.ts';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { RawClient, requestBytes } from '../support/nbd.ts';
import { type Running, startGrantio, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, parseReport } from '../support/report.ts';

const SIZE = 2 ** 20;

/** A folder with the images one.img and two.img. */
function folderWithImages(t: TestContext): string {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'one.img'), Buffer.alloc(SIZE, 0x11));
  writeFileSync(join(folder, 'two.img'), Buffer.alloc(SIZE, 0x22));
  return folder;
}

/** A client of an export. */
async function client(
  t: TestContext,
  at: NetConnectOpts,
  name: string,
): Promise<{ raw: RawClient; flags: number }> {
  const socket = connect(at);
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  const raw = new RawClient(socket);
  const { size, flags } = await raw.go(name);
  assert.equal(size, SIZE);
  return { raw, flags };
}

/** Tells it to end and sees it end well. */
async function stop(running: Running): Promise<string> {
  running.signal('SIGTERM');
  const { status, stdout, stderr } = await running.ended;
  assert.equal(status, 0, stderr);
  return stdout;
}

for (const mode of EXPOSURE_MODES)
  test(`a client reads and writes what the guest reads and writes (${mode})`, async (t) => {
    const folder = folderWithImages(t);
    const words = [
      'run',
      '--disk',
      'one.img',
      '--disk',
      'two.img',
      '--nbd',
      'sock',
      '--mode',
      mode,
      '--json',
    ];
    const running = startGrantio(t, words, { cwd: folder });
    await running.says(/nbd\+unix:\/\/\/xvdb\?socket=\S+\n/);
    const socket = { path: join(folder, 'sock') };
    const { raw } = await client(t, socket, '');
    const second = (await client(t, socket, 'xvdb')).raw;
    const data = Buffer.from('written by a client, between two sectors');
    assert.equal((await raw.call(NBD_CMD_WRITE, { offset: 1000, data })).error, 0);
    assert.equal((await raw.call(NBD_CMD_FLUSH)).error, 0);
    const read = await raw.call(NBD_CMD_READ, { offset: 999, length: data.length + 2 });
    assert.deepEqual(Buffer.from(read.data), Buffer.concat([Buffer.of(0x11), data, Buffer.of(0x11)]));
    const other = await second.call(NBD_CMD_READ, { offset: 0, length: SIZE });
    assert.ok(Buffer.from(other.data).equals(readFileSync(join(folder, 'two.img'))));

    const modes = parseReport(await stop(running));
    assert.deepEqual(
      modes.map((figures) => figures.mode),
      [mode],
    );
    modes.forEach(checkExposure);
    const wanted = Buffer.alloc(SIZE, 0x11);
    data.copy(wanted, 1000);
    assert.ok(readFileSync(join(folder, 'one.img')).equals(wanted), 'the image is not what was written');
    assert.ok(!existsSync(socket.path), 'the socket is left behind');
  });

test('a read-only disk says so and refuses writes', async (t) => {
  const folder = folderWithImages(t);
  const words = ['run', '--disk', 'one.img,ro', '--nbd', 'sock', '--json'];
  const running = startGrantio(t, words, { cwd: folder });
  await running.says(/nbd\+unix:\S+\n/);
  const { raw, flags } = await client(t, { path: join(folder, 'sock') }, 'xvda');
  assert.ok(flags & NBD_FLAG_READ_ONLY, `flags are ${flags}`);
  assert.equal((await raw.call(NBD_CMD_WRITE, { data: Buffer.alloc(512) })).error, NBD_EPERM);
  assert.equal((await raw.call(NBD_CMD_READ, { length: 512 })).error, 0);
  assert.equal(parseReport(await stop(running))[0].leakedGrants, 0);
  assert.ok(readFileSync(join(folder, 'one.img')).equals(Buffer.alloc(SIZE, 0x11)), 'the image changed');
});

test('a TCP port 0 is one that the system chooses, told in the URI', async (t) => {
  const folder = folderWithImages(t);
  const running = startGrantio(t, ['run', '--disk', 'one.img', '--nbd', '127.0.0.1:0'], { cwd: folder });
  const [, port] = await running.says(/nbd:\/\/127\.0\.0\.1:(\d+)\/xvda\n/);
  const { raw } = await client(t, { host: '127.0.0.1', port: Number(port) }, 'xvda');
  assert.equal((await raw.call(NBD_CMD_READ, { length: 512 })).data[511], 0x11);
  await stop(running);
});

test('O2: a file in the place of the socket is refused and left alone', async (t) => {
  const folder = folderWithImages(t);
  writeFileSync(join(folder, 'sock'), 'precious');
  const running = startGrantio(t, ['run', '--disk', 'one.img', '--nbd', 'sock'], { cwd: folder });
  const { status, stderr } = await running.ended;
  assert.equal(status, 1, stderr);
  assert.match(stderr, /^grantio: socket sock[: ].*$/m);
  assert.equal(readFileSync(join(folder, 'sock'), 'utf8'), 'precious');
});

test('O2: a socket in a folder that is not there is refused', async (t) => {
  const folder = folderWithImages(t);
  const running = startGrantio(t, ['run', '--disk', 'one.img', '--nbd', 'no/sock'], { cwd: folder });
  const { status, stderr } = await running.ended;
  assert.equal(status, 1, stderr);
  assert.match(stderr, /^grantio: socket no\/sock[: ].*$/m);
});

test('clients that break off or talk nonsense trouble nobody else', async (t) => {
  const folder = folderWithImages(t);
  const running = startGrantio(t, ['run', '--disk', 'one.img', '--nbd', 'sock', '--json'], { cwd: folder });
  await running.says(/nbd\+unix:\S+\n/);
  const at = { path: join(folder, 'sock') };
  const { raw } = await client(t, at, '');
  const halfWrite = (await client(t, at, '')).raw;
  // A write of which half of the data never comes.
  const write = requestBytes(NBD_CMD_WRITE, { data: Buffer.alloc(64 * 1024, 0x99) });
  halfWrite.send(write.subarray(0, write.length / 2));
  halfWrite.stream.destroy();
  const babbler = (await client(t, at, '')).raw;
  babbler.send(Buffer.alloc(64, 'nonsense'));
  assert.ok(await babbler.hungUp(), 'nonsense is answered');
  for (let turn = 0; turn < 3; turn++) {
    const { error, data } = await raw.call(NBD_CMD_READ, { length: SIZE });
    assert.deepEqual({ error, first: data[0] }, { error: 0, first: 0x11 });
  }
  assert.equal(parseReport(await stop(running))[0].leakedGrants, 0);
});
