// `grantio run --control` and `grantio ctl`: devices that come and go while clients are served, with real processes.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN } from '../../src/abi/nbd.ts';
import { MAX_LINE } from '../../src/cli/control-protocol.ts';
import { type Ended, type Running, startGrantio, temporaryFolder } from '../support/grantio.ts';
import { infoData, RawClient } from '../support/nbd.ts';

const SIZE = 2 ** 20;

/** A guest that serves a.img over NBD and listens for what is to be plugged; b.img lies beside it. */
async function serve(t: TestContext): Promise<{ folder: string; running: Running }> {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'a.img'), Buffer.alloc(SIZE, 0x0a));
  writeFileSync(join(folder, 'b.img'), Buffer.alloc(SIZE, 0x0b));
  const words = ['run', '--disk', 'a.img', '--nbd', './nbd', '--control', './ctl'];
  const running = startGrantio(t, words, { cwd: folder });
  await running.says(/serving; press/);
  return { folder, running };
}

function ctl(t: TestContext, cwd: string, ...words: string[]): Promise<Ended> {
  return startGrantio(t, ['ctl', './ctl', ...words], { cwd }).ended;
}

/** A client of an export. */
async function dial(t: TestContext, folder: string, name: string): Promise<RawClient> {
  const socket = connect({ path: join(folder, 'nbd'), allowHalfOpen: true });
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  const client = new RawClient(socket);
  await client.go(name);
  return client;
}

test('a disk is plugged, used and unplugged while another client is served; nothing leaks', async (t) => {
  const { folder, running } = await serve(t);
  const other = await dial(t, folder, 'xvda');
  const plugged = await ctl(t, folder, 'plug', 'b.img');
  assert.equal(plugged.stderr, '');
  assert.match(plugged.stdout, /^xvdb {2}\S*\/b\.img {2}nbd\+unix:\/\/\/xvdb\?socket=.*\n$/);
  const client = await dial(t, folder, 'xvdb');
  assert.equal((await client.call(NBD_CMD_READ, { length: 512 })).data[511], 0x0b);
  await client.call(NBD_CMD_WRITE, { offset: 4096, data: Buffer.alloc(512, 0x77) });
  assert.equal((await ctl(t, folder, 'plug', '--entropy')).stdout, 'entropy0  entropy\n');
  assert.equal((await ctl(t, folder, 'list')).stdout.split('\n').length, 4);
  assert.deepEqual(JSON.parse((await ctl(t, folder, 'unplug', 'xvdb', '--json')).stdout), {
    unplugged: { dev: 'xvdb', orderly: true },
  });
  assert.ok(await client.hungUp(), 'its client gets an end, not a hang');
  assert.equal(readFileSync(join(folder, 'b.img'))[4096], 0x77);
  assert.equal((await ctl(t, folder, 'unplug', 'entropy0')).stdout, 'entropy0  unplugged\n');
  const late = new RawClient(connect({ path: join(folder, 'nbd') }));
  t.after(() => late.stream.destroy());
  await late.greet();
  assert.equal((await late.ask(NBD_OPT_GO, infoData('xvdb'))).type, NBD_REP_ERR_UNKNOWN);
  assert.equal((await other.call(NBD_CMD_READ, { length: 512 })).data[0], 0x0a, 'others notice nothing');
  running.signal('SIGTERM');
  const { status, stderr } = await running.ended;
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /[1-9]\d* grants leaked/);
  assert.ok(!existsSync(join(folder, 'ctl')));
});

test('O1: what cannot be done is said, and changes nothing', async (t) => {
  const { folder, running } = await serve(t);
  for (const [words, status, message] of [
    [['unplug', 'xvdq'], 1, /no device xvdq/],
    [['plug', 'missing.img'], 1, /missing\.img/],
    [['plug'], 2, /expected plug PATH/],
    [['unplug'], 2, /expected plug PATH/],
    [['eject', 'xvda'], 2, /expected plug PATH/],
    [['list', 'xvda'], 2, /expected plug PATH/],
  ] as const) {
    const ended = await ctl(t, folder, ...words);
    assert.equal(ended.status, status, words.join(' '));
    assert.match(ended.stderr, message);
  }
  assert.match((await ctl(t, folder, 'list')).stdout, /^xvda {2}\S*a\.img {2}nbd\+unix.*\n$/);
  assert.equal(statSync(join(folder, 'ctl')).mode & 0o777, 0o600);
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
  const ended = await ctl(t, folder, 'list');
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /is it that of a running grantio run --control\?/);
});

test('clients that speak nonsense, or without end, get errors, and the guest goes on', async (t) => {
  const { folder, running } = await serve(t);
  const socket = connect({ path: join(folder, 'ctl') }).setEncoding('utf8');
  t.after(() => socket.destroy());
  let said = '';
  socket.on('data', (text: string) => {
    said += text;
  });
  socket.write(`hello\n{"plug":{"file":"x"}}\n${'x'.repeat(MAX_LINE + 1)}`);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('close', resolve));
  const errors = said.trim().split('\n');
  assert.equal(errors.length, 3);
  assert.match(errors[0]!, /^\{"error":"no JSON/);
  assert.match(errors[1]!, /unknown key \\"file\\"/);
  assert.match(errors[2]!, /a line of more than/);
  assert.equal((await ctl(t, folder, 'list')).status, 0);
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
});

test('--control without clients to serve is a wrong call', async (t) => {
  const { status, stderr } = await startGrantio(t, ['run', '--control', './ctl']).ended;
  assert.equal(status, 2);
  assert.match(stderr, /add --nbd or --run/);
});
