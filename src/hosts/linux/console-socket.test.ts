// A console's port at a Unix socket, with real clients: src/hosts/linux/console-stream.ts and console-socket.ts.

import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { numbered, readNow, TestLine, TestThread } from './console-endpoints.test.helper.ts';
import { ConsoleSocket } from './console-socket.ts';
import { CONSOLE_OUTPUT } from './console-stream.ts';
import { listenOn } from './fd-socket.ts';
import { native, openDescriptors } from './native.test.helper.ts';

const SHUT_WR = 1;

function listening(t: Pick<TestContext, 'after'>, isConsole = true) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-console-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'console');
  const before = openDescriptors();
  const thread = new TestThread();
  const socket = new ConsoleSocket(thread, path, isConsole);
  const line = new TestLine(socket.endpoint);
  const connect = (): number => {
    const client = thread.client(path);
    thread.rest();
    return client;
  };
  const finish = (...clients: readonly number[]): void => {
    socket.close();
    for (const client of clients) closeSync(client);
    thread.close();
    assert.equal(existsSync(path), false, 'the socket has gone');
    assert.equal(openDescriptors(), before, 'every descriptor was closed');
  };
  return { thread, socket, line, connect, finish };
}

test('bytes go both ways, and a thread without any sleeps', native, (t) => {
  const { thread, line, connect, finish } = listening(t);
  const client = connect();
  writeSync(client, 'hello');
  assert.ok(thread.rest() > 0);
  assert.equal(Buffer.from(line.received).toString(), 'hello');
  line.write(Buffer.from('world'));
  assert.equal(readNow(client).toString(), 'world');
  assert.equal(thread.rest(), 0);
  finish(client);
});

test('T16: a second client is hung up on, and the first one notices nothing', native, (t) => {
  const { thread, socket, line, connect, finish } = listening(t);
  const client = connect();
  const others = [connect(), connect()];
  assert.deepEqual([others.map(readNow), socket.refused], [['end', 'end'], 2]);
  writeSync(client, 'still here');
  thread.rest();
  assert.equal(Buffer.from(line.received).toString(), 'still here');
  finish(client, ...others);
});

test('D9: what a console says to nobody is kept for the next client, the last 64 KiB of it', native, (t) => {
  const { thread, line, connect, finish } = listening(t);
  const bytes = numbered(3 * CONSOLE_OUTPUT + 100);
  assert.equal(line.write(bytes), 0, 'the guest never waits');
  assert.equal(thread.rest(), 0);
  const client = connect();
  thread.rest();
  assert.deepEqual(readNow(client), bytes.subarray(bytes.length - CONSOLE_OUTPUT));
  closeSync(client);
  thread.rest();
  line.write(Buffer.from('later'));
  const next = connect();
  assert.equal(readNow(next).toString(), 'later');
  finish(next);
});

test('a port for programs is told whether anybody is there, and waits for somebody', native, (t) => {
  const { thread, line, connect, finish } = listening(t, false);
  assert.equal(line.write(numbered(10)), 10);
  const client = connect();
  assert.deepEqual([line.openings, line.waiting], [[false, true], 10]);
  line.resume();
  assert.deepEqual(readNow(client), numbered(10));
  closeSync(client);
  thread.rest();
  assert.deepEqual(line.openings, [false, true, false]);
  finish();
});

test(
  'F33 D9: a client that does not read makes the guest wait, and gets everything when it reads',
  native,
  (t) => {
    const { thread, line, connect, finish } = listening(t);
    const client = connect();
    const bytes = numbered(2 ** 20);
    assert.ok(line.write(bytes) > 0, 'more than a socket and 64 KiB hold');
    assert.equal(thread.rest(), 0, 'it waits for the client, not in a loop');
    const pieces: Buffer[] = [];
    for (let got = 0; got < bytes.length; ) {
      const piece = readNow(client);
      assert.ok(piece !== 'end' && piece.length > 0, 'there is always more');
      pieces.push(piece);
      got += piece.length;
      thread.rest();
    }
    assert.deepEqual(Buffer.concat(pieces), bytes);
    finish(client);
  },
);

test(
  'F33: a guest that does not read makes the client wait, and nothing is lost, even when it hangs up',
  native,
  (t) => {
    const { thread, line, connect, finish } = listening(t);
    line.room = 0;
    const client = connect();
    writeSync(client, numbered(20_000));
    thread.rest();
    assert.equal(line.received.length, 0);
    closeSync(client);
    assert.equal(thread.rest(), 0, 'the hangup wakes nobody while the guest has no room');
    for (let allowed = 7000; line.received.length < 20_000; allowed += 1) {
      line.allow(allowed);
      thread.rest();
    }
    assert.deepEqual(Buffer.from(line.received), numbered(20_000));
    line.allow(1);
    thread.rest();
    const next = connect();
    writeSync(next, '!');
    thread.rest();
    assert.equal(line.received.at(-1), 0x21);
    finish(next);
  },
);

test('a client that has no more to say still hears', native, (t) => {
  const { thread, socket, line, connect, finish } = listening(t);
  const client = connect();
  writeSync(client, 'question');
  assert.equal(thread.libc.shutdown(client, SHUT_WR), 0);
  thread.rest();
  line.write(Buffer.from('answer'));
  assert.equal(readNow(client).toString(), 'answer');
  assert.equal(thread.rest(), 0);
  closeSync(client);
  thread.rest();
  const next = connect();
  assert.equal(socket.refused, 0, 'the one before has gone');
  finish(next);
});

test(
  'a guest that writes to a client that has gone loses nothing but what that one had not read',
  native,
  (t) => {
    const { thread, line, connect, finish } = listening(t);
    const client = connect();
    closeSync(client);
    line.write(Buffer.from('for the next one'));
    thread.rest();
    const next = connect();
    assert.equal(readNow(next).toString(), 'for the next one');
    finish(next);
  },
);

test('whatever comes in whatever order: all bytes, unchanged, in both directions', native, (t) => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('guest' as const), length: fc.integer({ min: 1, max: 50_000 }) }),
    fc.record({ kind: fc.constant('client' as const), length: fc.integer({ min: 1, max: 20_000 }) }),
    fc.record({ kind: fc.constant('allow' as const), length: fc.nat(30_000) }),
    fc.record({ kind: fc.constant('read' as const), length: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const { thread, line, connect, finish } = listening(t, false);
      line.room = 0;
      const client = connect();
      const sent = { guest: 0, client: 0 };
      const heard: Buffer[] = [];
      const read = (): void => {
        const bytes = readNow(client);
        if (bytes !== 'end') heard.push(bytes);
      };
      const source = numbered(2 ** 21);
      for (const { kind, length } of steps) {
        if (kind === 'guest') {
          line.write(source.subarray(sent.guest, sent.guest + length));
          sent.guest += length;
        }
        // A socket takes some 200 KiB, then it would block.
        else if (kind === 'client' && sent.client - line.received.length + length < 100_000)
          sent.client += writeSync(client, source.subarray(sent.client, sent.client + length));
        else if (kind === 'allow') line.allow(length);
        else read();
        thread.turn();
      }
      for (let idle = 0; idle < 2; idle = thread.rest() > 0 ? 0 : idle + 1) {
        line.allow(Number.POSITIVE_INFINITY);
        read();
      }
      read();
      assert.deepEqual(Buffer.concat(heard), source.subarray(0, sent.guest));
      assert.deepEqual(Buffer.from(line.received), source.subarray(0, sent.client));
      finish(client);
    }),
    { seed: 51, numRuns: 40 },
  );
});

test(
  "O2: a dead server's socket is replaced; a running server's stays, and what is no socket",
  native,
  (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'grantio-console-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const before = openDescriptors();
    const thread = new TestThread();
    const [path, file] = [join(folder, 'console'), join(folder, 'file')];
    thread.libc.close(listenOn(thread.libc, thread.arena, path));
    const first = new ConsoleSocket(thread, path, true);
    assert.throws(() => new ConsoleSocket(thread, path, true), /has a running server/);
    writeFileSync(file, 'precious');
    assert.throws(() => new ConsoleSocket(thread, file, true), /not a socket/);
    rmSync(path);
    const second = new ConsoleSocket(thread, path, true);
    first.close();
    assert.ok(existsSync(path), 'it is not its own any more');
    second.close();
    assert.throws(() => new ConsoleSocket(thread, join(folder, 'x'.repeat(120)), true), RangeError);
    thread.close();
    assert.equal(openDescriptors(), before);
  },
);

test('F33: a guest that waits for a client goes on when that hangs up', native, (t) => {
  const { thread, line, connect, finish } = listening(t);
  const client = connect();
  assert.ok(line.write(numbered(2 ** 20)) > 0);
  closeSync(client);
  thread.rest();
  assert.equal(line.waiting, 0);
  finish();
});
