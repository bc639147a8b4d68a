// Descriptors that travel over a socket: each arrives once, is counted in /proc/self/fd, and none is left.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Arena } from './arena.ts';
import { acceptFrom, connectTo, FdSocket } from './fd-socket.ts';
import type { Libc } from './libc.ts';
import { arenaOfTest, libcOfTest, native, openDescriptors } from './native.test.helper.ts';

const [AF_UNIX, SOCK_STREAM, SOL_SOCKET, SO_PASSCRED] = [1, 1, 1, 16];

function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

/** Two ends of one connection, and what is counted of this process before. */
function pairOf(t: TestContext, most = 4096) {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  const before = openDescriptors();
  const place = arena.take(8);
  assert.equal(libc.socketpair(AF_UNIX, SOCK_STREAM, 0, place.address), 0);
  const ends = [place.view.getInt32(0, true), place.view.getInt32(4, true)];
  const [one, other] = ends.map((fd) => new FdSocket(libc, arena, fd, most));
  let open = [one, other];
  const close = (socket: FdSocket) => {
    open = open.filter((each) => each !== socket);
    socket.close();
  };
  t.after(() => {
    for (const socket of open) socket.close();
    assert.equal(openDescriptors(), before, 'no descriptor is left');
  });
  return { libc, arena, one, other, before, close };
}

function eventfdsOf(libc: Libc, count: number): number[] {
  return Array.from({ length: count }, (_, each) => libc.eventfd(each, 0));
}

test('bytes arrive with the descriptors that were sent with the first of them', native, (t) => {
  const { libc, one, other } = pairOf(t);
  const fds = eventfdsOf(libc, 3);
  assert.equal(one.send(bytes(1, 2, 3), fds), true);
  one.closeAll(fds);
  const open = openDescriptors();
  const target = new Uint8Array(8);
  const { length, fds: arrived } = other.receive(target, true);
  assert.deepEqual([...target], [1, 2, 3, 0, 0, 0, 0, 0]);
  assert.equal(length, 3);
  assert.equal(arrived.length, 3);
  assert.equal(openDescriptors(), open + 3, 'they are the receiver’s now');
  const place = arenaOfTest(libc).take(8);
  for (const [value, fd] of arrived.slice(1).entries()) {
    assert.equal(libc.read(fd, place.address, 8), 8);
    assert.equal(place.view.getUint32(0, true), value + 1, 'in the order in which they were sent');
  }
  other.closeAll(arrived);
});

test('a message of many pieces has its descriptors with the first', native, (t) => {
  const { libc, one, other } = pairOf(t, 16);
  const fds = eventfdsOf(libc, 2);
  const sent = Uint8Array.from({ length: 100 }, (_, at) => at);
  assert.equal(one.send(sent, fds), true);
  one.closeAll(fds);
  const got: number[] = [];
  const arrived: number[] = [];
  for (const target = new Uint8Array(64); got.length < 100; ) {
    const received = other.receive(target, true);
    got.push(...target.subarray(0, received.length));
    assert.ok(received.fds.length === 0 || arrived.length === 0, 'with the first');
    arrived.push(...received.fds);
  }
  assert.deepEqual(got, [...sent]);
  assert.equal(arrived.length, 2);
  other.closeAll(arrived);
});

test('T4: more descriptors than a message may have end the stream, and none of them stays', native, (t) => {
  const { libc, arena, one, other } = pairOf(t);
  const fds = eventfdsOf(libc, 32);
  assert.throws(() => one.send(bytes(1), [...fds, fds[0]]), /descriptors of a message/);
  assert.equal(one.send(bytes(1), fds), true);
  assert.equal(openDescriptors() > fds.length, true);
  const all = other.receive(new Uint8Array(1), true);
  assert.equal(all.fds.length, 32);
  other.closeAll(all.fds);
  sendRaw(libc, arena, one.fd, [...fds, ...fds, ...fds]);
  one.closeAll(fds);
  const open = openDescriptors();
  assert.deepEqual(other.receive(new Uint8Array(1), true), { length: 0, fds: [] });
  assert.equal(openDescriptors(), open);
});

/** One byte with as many descriptors as Linux sends at all. */
function sendRaw(libc: Libc, arena: Arena, socket: number, fds: readonly number[]): void {
  const [header, vector, control] = [arena.take(56), arena.take(16), arena.take(16 + fds.length * 4)];
  vector.view.setBigUint64(0, BigInt(vector.address), true);
  vector.view.setUint32(8, 1, true);
  header.view.setBigUint64(16, BigInt(vector.address), true);
  header.view.setUint32(24, 1, true);
  header.view.setBigUint64(32, BigInt(control.address), true);
  header.view.setUint32(40, control.length, true);
  control.view.setUint32(0, control.length, true);
  control.view.setInt32(8, SOL_SOCKET, true);
  control.view.setInt32(12, 1, true);
  for (const [index, fd] of fds.entries()) control.view.setInt32(16 + index * 4, fd, true);
  assert.equal(libc.sendmsg(socket, header.address, 0), 1);
}

test(
  'descriptors are found behind credentials, which whoever made the socket may have asked for',
  native,
  (t) => {
    const { libc, arena, one, other } = pairOf(t);
    const on = arena.take(4);
    on.view.setInt32(0, 1, true);
    assert.equal(libc.setsockopt(other.fd, SOL_SOCKET, SO_PASSCRED, on.address, 4), 0);
    const fds = eventfdsOf(libc, 2);
    one.send(bytes(5), fds);
    one.closeAll(fds);
    const received = other.receive(new Uint8Array(1), true);
    assert.deepEqual([received.length, received.fds.length], [1, 2]);
    other.closeAll(received.fds);
  },
);

test('nothing to read yet is -1, the end of the stream is 0', native, (t) => {
  const { one, other, close } = pairOf(t);
  const target = new Uint8Array(4);
  assert.deepEqual(other.receive(target, false), { length: -1, fds: [] });
  one.send(bytes(9));
  assert.equal(other.receive(target, false).length, 1);
  close(one);
  assert.equal(other.receive(target, true).length, 0);
});

test('what the target has no room for comes with the next read', native, (t) => {
  const { one, other } = pairOf(t);
  one.send(bytes(1, 2, 3, 4, 5));
  const target = new Uint8Array(3);
  assert.equal(other.receive(target, true).length, 3);
  assert.equal(other.receive(target, true).length, 2);
  assert.deepEqual([...target], [4, 5, 3]);
});

test('a peer that reads nothing is given up, not waited for', native, (t) => {
  const { one } = pairOf(t);
  const megabyte = new Uint8Array(4096);
  let sent = 0;
  while (one.send(megabyte) && sent < 10_000) sent++;
  assert.ok(sent > 0 && sent < 10_000, `${sent} times 4 KiB`);
});

test('a peer that is gone is no signal and no exception: send is false, receive is the end', native, (t) => {
  const { one, other, close } = pairOf(t);
  other.send(bytes(1));
  close(one);
  assert.equal(other.send(bytes(2)), false);
  assert.equal(other.receive(new Uint8Array(1), true).length, 0);
});

test('descriptors on their way when the peer goes are closed by the system', native, (t) => {
  const { libc, one, other, close } = pairOf(t);
  const fds = eventfdsOf(libc, 4);
  one.send(bytes(1), fds);
  one.closeAll(fds);
  close(other);
});

test('connections without end take no more of the arena than one', native, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const libc = libcOfTest();
  const before = openDescriptors();
  const path = join(folder, 'socket');
  const listening = listenAt(libc, path);
  const small = new Arena(libc, 16384);
  for (let each = 0; each < 50; each++) {
    const client = new FdSocket(libc, small, connectTo(libc, small, path), 2048);
    const server = new FdSocket(libc, small, acceptFrom(libc, listening), 2048);
    client.send(bytes(each));
    const target = new Uint8Array(1);
    server.receive(target, true);
    assert.equal(target[0], each);
    client.close();
    server.close();
  }
  libc.close(listening);
  assert.equal(openDescriptors(), before);
});

function listenAt(libc: Libc, path: string): number {
  const arena = arenaOfTest(libc);
  const address = arena.take(110);
  address.view.setUint16(0, AF_UNIX, true);
  address.u8.set(new TextEncoder().encode(path), 2);
  const fd = libc.socket(AF_UNIX, SOCK_STREAM, 0);
  assert.equal(libc.bind(fd, address.address, 110), 0);
  assert.equal(libc.listen(fd, 8), 0);
  return fd;
}

test('O2: connecting to nobody names the path and the reason, and leaves no descriptor', native, () => {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  const before = openDescriptors();
  const path = join(tmpdir(), 'grantio-nobody-listens');
  assert.throws(() => connectTo(libc, arena, path), {
    message: `socket ${path}: connect failed: ENOENT`,
  });
  for (const bad of ['', 'x'.repeat(108)])
    assert.throws(() => connectTo(libc, arena, bad), { name: 'RangeError', message: /expected 1 to 107/ });
  assert.equal(openDescriptors(), before);
});

test('there is no connection to take from a socket that does not listen', native, () => {
  assert.equal(acceptFrom(libcOfTest(), -1), -1);
});
