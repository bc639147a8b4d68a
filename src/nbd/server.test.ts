import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { MemoryDisk, type MemoryDiskOptions } from '../../test/support/memory-disk.ts';
import { infoData, RawClient, requestBytes, TestClock } from '../../test/support/nbd.ts';
import {
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_ESHUTDOWN,
  NBD_OPT_GO,
  NBD_REP_ERR_UNKNOWN,
} from '../abi/nbd.ts';
import { CLOSE_MILLISECONDS, MAX_CONNECTIONS, NbdServer } from './server.ts';
import { MAX_LENT } from './transmission.ts';

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'grantio-nbd-'));
});
after(() => rmSync(folder, { recursive: true }));

const clients: RawClient[] = [];
const servers: NbdServer[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.stream.destroy();
  for (const server of servers.splice(0)) await server.close();
});

function dial(options: NetConnectOpts): RawClient {
  const client = new RawClient(connect({ ...options, allowHalfOpen: true }));
  clients.push(client);
  return client;
}

let number = 0;

/** A server with one disk, on a socket of its own. */
async function served(options: MemoryDiskOptions = {}): Promise<{
  disk: MemoryDisk;
  server: NbdServer;
  clock: TestClock;
  path: string;
  reports: Error[];
}> {
  const disk = new MemoryDisk(1 << 20, options);
  const clock = new TestClock();
  const reports: Error[] = [];
  const report = (reason: Error): void => void reports.push(reason);
  const server = new NbdServer([{ name: 'disk', disk }], { report, after: clock.after });
  servers.push(server);
  const path = join(folder, `${number++}.sock`);
  await server.listen({ path });
  return { disk, server, clock, path, reports };
}

/** Lets the sockets work until `condition` holds. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    assert.ok(turn < 1_000_000, `never came true: ${condition}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('every connection reaches the same disk; URIs name each export; the socket goes with the server', async () => {
  const disk = new MemoryDisk(1 << 20);
  const server = new NbdServer([
    { name: 'a', disk },
    { name: 'b c', disk },
  ]);
  const path = join(folder, 'both.sock');
  assert.deepEqual(await server.listen({ path }), [
    `nbd+unix:///a?socket=${path}`,
    `nbd+unix:///b%20c?socket=${path}`,
  ]);
  const [uri] = await server.listen({ host: '127.0.0.1', port: 0 });
  const port = Number(/^nbd:\/\/127\.0\.0\.1:(\d+)\/a$/.exec(uri)?.[1]);
  const [writer, reader] = [dial({ path }), dial({ host: '127.0.0.1', port })];
  await writer.go('b c');
  await reader.go('', true);
  await writer.call(NBD_CMD_WRITE, { offset: 1000, data: new Uint8Array(100_000).fill(5) });
  const { data } = await reader.call(NBD_CMD_READ, { offset: 1000, length: 100_000 });
  assert.deepEqual(Buffer.from(data), Buffer.alloc(100_000, 5));
  for (const client of [writer, reader]) client.stream.end();
  await server.close();
  assert.equal(existsSync(path), false);
});

test('a port in use is refused with what is in the way', async () => {
  const server = new NbdServer([{ name: 'a', disk: new MemoryDisk(512) }]);
  const [uri] = await server.listen({ host: '127.0.0.1', port: 0 });
  const port = Number(new URL(uri).port);
  await assert.rejects(
    server.listen({ host: '127.0.0.1', port }),
    /cannot listen on 127.0.0.1 port .*EADDRINUSE/,
  );
  await server.close();
});

test('close() finishes what is under way, answers new requests with ESHUTDOWN, and hangs up', async () => {
  const { disk, server, path } = await served();
  const client = dial({ path });
  await client.go('', true);
  let letGo = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let started = 0;
  disk.before = () => {
    started++;
    return held;
  };
  client.send(requestBytes(NBD_CMD_READ, { length: 512, cookie: 1n }));
  await until(() => started === 1);
  const closed = server.close();
  assert.equal(server.close(), closed);
  client.send(requestBytes(NBD_CMD_WRITE, { data: new Uint8Array(512), cookie: 2n }));
  const refused = await client.reply();
  assert.deepEqual([refused.cookie, refused.error], [2n, NBD_ESHUTDOWN]);
  letGo();
  const answer = await client.reply();
  assert.deepEqual([answer.cookie, answer.error, answer.data.length], [1n, 0, 512]);
  assert.equal(await client.hungUp(), true);
  client.stream.end();
  await closed;
  assert.equal(existsSync(path), false);
  assert.equal(disk.lent, 0);
});

test('close() waits for neither an idle client nor one in its handshake', async () => {
  const { server, path } = await served();
  const [idle, shaking] = [dial({ path }), dial({ path })];
  await idle.go();
  await shaking.greet();
  const closed = server.close();
  assert.equal(await shaking.hungUp(), true);
  assert.equal(await idle.hungUp(), true);
  idle.stream.end();
  await closed;
});

test('close() drops a client that takes no replies, after its grace', async () => {
  const { disk, server, clock, path, reports } = await served();
  const client = dial({ path });
  await client.go();
  client.stream.pause();
  client.send(...Array.from({ length: 32 }, () => requestBytes(NBD_CMD_READ, { length: 1 << 19 })));
  await until(() => disk.lent === MAX_LENT);
  const closed = server.close();
  clock.advance(CLOSE_MILLISECONDS);
  await closed;
  await until(() => reports.length === 1);
  assert.match(String(reports[0]), /did not take its replies while the server shut down/);
  assert.equal(disk.lent, 0);
});

test('close() does not wait for ever for a disk that does not answer', async () => {
  const { disk, server, clock, path } = await served();
  const client = dial({ path });
  await client.go();
  let started = false;
  disk.before = () => {
    started = true;
    return new Promise(() => undefined);
  };
  client.send(requestBytes(NBD_CMD_FLUSH));
  await until(() => started);
  const closed = server.close();
  clock.advance(CLOSE_MILLISECONDS);
  await closed;
});

test('a client that closes in the middle of its replies ends alone, and its buffers return', async () => {
  const { disk, path, reports } = await served();
  const [quitter, other] = [dial({ path }), dial({ path })];
  await quitter.go('', true);
  await other.go();
  quitter.send(...Array.from({ length: 32 }, () => requestBytes(NBD_CMD_READ, { length: 1 << 19 })));
  await quitter.take(100_000);
  quitter.stream.destroy();
  await until(() => disk.lent === 0 && reports.length === 1);
  assert.equal((await other.call(NBD_CMD_READ, { length: 4096 })).error, 0);
});

test('clients beyond the limit are hung up on until one leaves', async () => {
  const { path, reports } = await served();
  const all = Array.from({ length: MAX_CONNECTIONS }, () => dial({ path }));
  await Promise.all(all.map((client) => client.greet()));
  assert.equal(await dial({ path }).hungUp(), true);
  assert.match(String(reports[0]), /client refused: 64 of 64 connections/);
  all[0].stream.end();
  await all[0].hungUp();
  for (let admitted = false; !admitted; )
    admitted = await dial({ path })
      .greet()
      .then(
        () => true,
        () => false,
      );
});

test('an export comes and goes: its clients are hung up on after their last replies, others go on', async () => {
  const { server, path } = await served();
  const extra = new MemoryDisk(1 << 20);
  assert.deepEqual(server.add({ name: 'extra', disk: extra }), [`nbd+unix:///extra?socket=${path}`]);
  assert.throws(() => server.add({ name: 'extra', disk: extra }), { name: 'RangeError', message: /taken/ });
  const [stays, leaves] = [dial({ path }), dial({ path })];
  await stays.go('disk');
  await leaves.go('extra');
  await leaves.call(NBD_CMD_WRITE, { offset: 512, data: new Uint8Array(512).fill(9) });
  await server.remove('extra');
  assert.ok(await leaves.hungUp());
  const late = dial({ path });
  await late.greet();
  assert.equal((await late.ask(NBD_OPT_GO, infoData('extra'))).type, NBD_REP_ERR_UNKNOWN);
  assert.equal((await stays.call(NBD_CMD_READ, { offset: 0, length: 512 })).error, 0);
  await server.remove('extra');
  assert.equal(server.add({ name: 'extra', disk: extra }).length, 1);
});

test('F33: a client that takes no replies cannot keep an export from going', async () => {
  const { server, path, clock } = await served();
  server.add({ name: 'extra', disk: new MemoryDisk(32 << 20) });
  const client = dial({ path });
  await client.go('extra');
  client.stream.pause();
  for (let request = 0; request < 8; request++)
    client.send(requestBytes(NBD_CMD_READ, { length: 8 << 20, cookie: BigInt(request) }));
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  let gone = false;
  const removed = server.remove('extra').then(() => {
    gone = true;
  });
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(gone, false);
  clock.advance(CLOSE_MILLISECONDS);
  await removed;
});
