// The daemon in this process, over real sockets.

import assert from 'node:assert/strict';
import { linkSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { message, messagesIn } from '../../test/support/xenstore.ts';
import * as xs from '../abi/xenstore.ts';
import { connectXenstore } from './xenstore-socket.ts';
import { xenstoredCommand } from './xenstored.ts';

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'grantio-xenstored-'));
  path = join(folder, 'socket');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A daemon that listens, or has given up, and what it printed. */
async function daemon(socket = path) {
  const controller = new AbortController();
  const printed = { out: '', err: '' };
  const ended = { code: undefined as number | undefined };
  let listening: () => void;
  const started = new Promise<void>((resolve) => {
    listening = resolve;
  });
  const exit = xenstoredCommand(
    { socket },
    {
      signal: controller.signal,
      out: (text) => {
        printed.out += text;
        listening();
      },
      err: (text) => {
        printed.err += text;
      },
    },
  ).then((code) => {
    ended.code = code;
    return code;
  });
  await Promise.race([started, exit]);
  return {
    printed,
    ended,
    exit,
    stop: () => {
      controller.abort();
      return exit;
    },
  };
}

/** Resolves when CONTROL says that domain 0 uses what is expected: to see that a client has gone takes a while. */
async function usageIs(expected: RegExp): Promise<void> {
  const socket = connect(path);
  let usage = '';
  for (let asked = 0; asked < 1000 && !expected.test(usage); asked++) {
    const answer = bytesFrom(socket, 16 + 'Domain 0:\n'.length + 4 * 28 + 1);
    socket.write(message(xs.XS_CONTROL, 'quota\x000\0'));
    usage = String(await answer);
  }
  socket.destroy();
  assert.match(usage, expected);
}

/** The first `length` bytes that a socket delivers. */
function bytesFrom(socket: Socket, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let came = 0;
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      came += chunk.length;
      if (came >= length) resolve(Buffer.concat(chunks));
    });
    socket.on('close', () => reject(new Error(`closed after ${came} of ${length} bytes`)));
    socket.resume();
  });
}

test('it starts, serves clients as domain 0, stops on the signal and removes its socket', async () => {
  const running = await daemon();
  assert.match(running.printed.out, /listening on .*socket\n$/);
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  const [one, two] = [await connectXenstore(path), await connectXenstore(path)];
  const heard: string[] = [];
  const both = new Promise<void>((resolve) => {
    void two.watch('/a', (changed) => {
      heard.push(changed);
      if (heard.length === 2) resolve();
    });
  });
  await two.read('/');
  await one.write('/a', 'value');
  await both;
  assert.deepEqual(heard, ['/a', '/a']);
  assert.equal(await two.read('/a'), 'value');
  const waiting = one.transaction((nodes) => running.stop().then(() => nodes.read('/a')));
  await assert.rejects(waiting, /the connection to xenstored at .* has ended/);
  assert.equal(await running.exit, 0);
  assert.deepEqual(readdirSync(folder), []);
  assert.equal(running.printed.err, '');
});

test('a signal that came before the start ends it at once', async () => {
  const controller = new AbortController();
  controller.abort();
  const io = { signal: controller.signal, out: () => undefined, err: () => undefined };
  assert.equal(await xenstoredCommand({ socket: path }, io), 0);
  assert.deepEqual(readdirSync(folder), []);
});

test('O2 a socket that somebody listens on is refused and left alone', async () => {
  const first = await daemon();
  const second = await daemon();
  assert.equal(await second.exit, 1);
  assert.match(second.printed.err, /socket .*socket has a running server; stop that/);
  const client = await connectXenstore(path);
  assert.deepEqual(await client.directory('/'), []);
  client.close();
  await first.stop();
});

test('O2 a socket file that a dead process left is replaced', async () => {
  await leaveStaleSocket(path);
  const running = await daemon();
  assert.equal(running.ended.code, undefined, running.printed.err);
  const client = await connectXenstore(path);
  await client.write('/a', '');
  client.close();
  assert.equal(await running.stop(), 0);
});

/** A socket file that nobody listens on: a second name for one, kept when its server goes. */
async function leaveStaleSocket(at: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${at}.dead`, resolve));
  linkSync(`${at}.dead`, at);
  await new Promise((resolve) => server.close(resolve));
}

test('O2 a file that is no socket, a path too long, a folder that is not there: a sentence, and nothing changed', async () => {
  writeFileSync(path, 'precious');
  const cases: Array<[string, number, RegExp]> = [
    [path, 1, /is there and not a socket/],
    [join(folder, 'x'.repeat(100)), 2, /\d+ bytes, expected at most 107/],
    ['', 2, /socket path: empty/],
    [join(folder, 'no', 'socket'), 1, /no\/socket cannot be made; is its directory .*(EACCES|ENOENT)/],
  ];
  for (const [socket, code, message] of cases) {
    const refused = await daemon(socket);
    assert.equal(await refused.exit, code);
    assert.match(refused.printed.err, message);
  }
  assert.deepEqual(readdirSync(folder), ['socket']);
});

test('O2 a socket that has replaced ours is not removed with ours', async () => {
  const first = await daemon();
  rmSync(path);
  const second = await daemon();
  assert.equal(second.ended.code, undefined);
  assert.equal(await first.stop(), 0);
  const client = await connectXenstore(path);
  assert.deepEqual(await client.directory('/'), []);
  client.close();
  await second.stop();
  assert.deepEqual(readdirSync(folder), []);
});

test('X1 a client that breaks the protocol is cut off; the others are not', async () => {
  const running = await daemon();
  const good = await connectXenstore(path);
  const bad = connect(path);
  const closed = new Promise((resolve) => bad.once('close', resolve));
  bad.write(xs.xsdSockmsg.make({ type: xs.XS_READ, len: 0xffff_ffff }).bytes);
  await closed;
  await good.write('/a', 'alive');
  assert.equal(await good.read('/a'), 'alive');
  assert.match(running.printed.err, /connection closed: .*payload of 4294967295 bytes/);
  good.close();
  await running.stop();
});

test('X1 X17 clients that go in the middle of everything leave nothing behind', async () => {
  const running = await daemon();
  const good = await connectXenstore(path);
  await good.write('/a', 'v');
  const half = message(xs.XS_WRITE, '/half\0value');
  for (let i = 0; i < 100; i++) {
    const client = connect(path);
    const closed = new Promise((resolve) => client.once('close', resolve));
    client.write(message(xs.XS_WATCH, '/a\0t\0'));
    client.write(message(xs.XS_TRANSACTION_START, '\0', 2));
    // The last answer says that all before it is under way; then the connection ends, one way or the other.
    await bytesFrom(client, 2 * 16 + 'OK\0'.length + (16 + '/a\0t\0'.length) + '1\0'.length);
    client.write(message(xs.XS_WRITE, '/inside\0v', 3, 1));
    client.write(half.subarray(0, 1 + (i % (half.length - 1))));
    if (i % 2 === 0) client.end();
    else client.destroy();
    await closed;
  }
  await good.write('/a', 'w');
  assert.deepEqual(await good.directory('/'), ['a']);
  good.close();
  await usageIs(/watches +: +0\ntransactions +: +0\n/);
  await running.stop();
});

test('X2 a length that a signed reader would take for negative ends the connection', async () => {
  const running = await daemon();
  for (const len of [0x8000_0000, 0xffff_f000]) {
    const client = connect(path);
    const closed = new Promise((resolve) => client.once('close', resolve));
    client.write(xs.xsdSockmsg.make({ type: xs.XS_WRITE, len }).bytes);
    await closed;
  }
  assert.match(running.printed.err, /payload of 2147483648 bytes.*payload of 4294963200 bytes/s);
  await running.stop();
});

test('X6 a client that asks for megabytes and reads nothing is made to wait, then gets all of it', async () => {
  const running = await daemon();
  const client = connect(path);
  const value = 'x'.repeat(4000);
  const requests = 4000;
  client.write(message(xs.XS_WRITE, `/a\0${value}`));
  const read = message(xs.XS_READ, '/a\0');
  const flood = Buffer.concat(Array.from({ length: requests }, () => read));
  client.pause();
  await new Promise<void>((resolve) => {
    if (client.write(flood)) resolve();
    else client.once('drain', resolve);
  });
  const other = await connectXenstore(path);
  assert.equal(await other.read('/a'), value, 'others are served meanwhile');
  other.close();
  const bytes = await bytesFrom(client, 16 + 'OK\0'.length + requests * (16 + value.length));
  const [written, ...values] = messagesIn(bytes).map((each) => each.payload);
  assert.equal(written, 'OK\0');
  assert.equal(values.length, requests);
  assert.ok(values.every((each) => each === value));
  client.destroy();
  await running.stop();
});
