import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { Epoll, Eventfds, makeNonBlocking, newEventfd } from './epoll.ts';
import type { Libc } from './libc.ts';
import { arenaOfTest, libcOfTest, native, openDescriptors } from './native.test.helper.ts';

/** Tokens that one look tells of. */
function readyOf(epoll: Epoll): number[] {
  const tokens: number[] = [];
  const count = epoll.wait(0, (token) => tokens.push(token));
  assert.equal(count, tokens.length);
  return tokens.sort((a, b) => a - b);
}

function setUp() {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  return { libc, epoll: new Epoll(libc, arena), eventfds: new Eventfds(libc, arena) };
}

test('a descriptor is told of by its token, from when it is rung until it is cleared', native, () => {
  const { libc, epoll, eventfds } = setUp();
  const [one, other] = [newEventfd(libc), newEventfd(libc)];
  epoll.add(one, 7);
  epoll.add(other, 0xffff_fffe);
  assert.deepEqual(readyOf(epoll), []);
  eventfds.ring(other);
  assert.deepEqual(readyOf(epoll), [0xffff_fffe]);
  eventfds.ring(one);
  eventfds.ring(one);
  assert.deepEqual(readyOf(epoll), [7, 0xffff_fffe]);
  eventfds.clear(one);
  assert.deepEqual(readyOf(epoll), [0xffff_fffe]);
  epoll.remove(other);
  assert.deepEqual(readyOf(epoll), []);
  for (const fd of [one, other]) libc.close(fd);
  epoll.close();
});

test('more descriptors than one wait tells of are told of in the next', native, () => {
  const { libc, epoll, eventfds } = setUp();
  const fds = Array.from({ length: 100 }, () => newEventfd(libc));
  for (const [token, fd] of fds.entries()) {
    epoll.add(fd, token);
    eventfds.ring(fd);
  }
  const seen = new Set<number>();
  while (epoll.wait(0, (token) => seen.add(token) && eventfds.clear(fds[token])) > 0);
  assert.equal(seen.size, 100);
  for (const fd of fds) libc.close(fd);
  epoll.close();
});

test('who is told may watch others meanwhile, and nobody is lost', native, () => {
  const { libc, epoll, eventfds } = setUp();
  const fds = [newEventfd(libc), newEventfd(libc), newEventfd(libc)];
  epoll.add(fds[0], 10);
  epoll.add(fds[1], 11);
  for (const fd of fds) eventfds.ring(fd);
  const tokens: number[] = [];
  epoll.wait(0, (token) => {
    if (tokens.length === 0) epoll.add(fds[2], 99);
    tokens.push(token);
  });
  assert.deepEqual(tokens.sort(), [10, 11]);
  assert.deepEqual(readyOf(epoll), [10, 11, 99]);
  for (const fd of fds) libc.close(fd);
  epoll.close();
});

test(
  'what cannot be watched is refused: a file of a disk, no descriptor, one that is watched',
  native,
  () => {
    const { libc, epoll } = setUp();
    const file = openSync(fileURLToPath(import.meta.url), 'r');
    assert.throws(() => epoll.add(file, 1), { code: 'EPERM' });
    assert.throws(() => epoll.add(-1, 1), { code: 'EBADF' });
    const fd = newEventfd(libc);
    epoll.add(fd, 1);
    assert.throws(() => epoll.add(fd, 2), { code: 'EEXIST' });
    assert.deepEqual(readyOf(epoll), []);
    for (const each of [file, fd]) libc.close(each);
    epoll.close();
  },
);

test('the descriptors of an epoll are closed with it', native, () => {
  const before = openDescriptors();
  const { libc, epoll } = setUp();
  const fd = newEventfd(libc);
  epoll.add(fd, 1);
  epoll.close();
  libc.close(fd);
  assert.equal(openDescriptors(), before);
});

/** A pipe, as User-Mode Linux has in place of an eventfd. */
function pipeOf(libc: Libc): [number, number] {
  const pair = arenaOfTest(libc).take(8);
  assert.equal(libc.pipe2(pair.address, 0), 0);
  return [pair.view.getInt32(0, true), pair.view.getInt32(4, true)];
}

test(
  'R8 clearing what is empty and blocks holds nobody up: eventfd, pipe, what cannot be read',
  native,
  () => {
    const { libc, eventfds } = setUp();
    const blocking = libc.eventfd(0, 0);
    const [reading, writing] = pipeOf(libc);
    for (const fd of [blocking, reading, writing, -1]) eventfds.clear(fd);
    for (const fd of [blocking, reading, writing]) libc.close(fd);
  },
);

test('R8: ringing what is full holds nobody up once it is made so', native, () => {
  const { libc, eventfds } = setUp();
  const blocking = libc.eventfd(0, 0);
  const [reading, writing] = pipeOf(libc);
  const most = arenaOfTest(libc).take(8);
  most.u8.fill(0xff);
  most.u8[0] = 0xfe;
  assert.equal(libc.write(blocking, most.address, 8), 8);
  for (const fd of [blocking, writing]) makeNonBlocking(libc, fd);
  // 64 KiB and more: what a pipe has room for.
  for (let each = 0; each < 10_000; each++) eventfds.ring(writing);
  eventfds.ring(blocking);
  eventfds.ring(-1);
  for (const fd of [blocking, reading, writing]) libc.close(fd);
  assert.throws(() => makeNonBlocking(libc, blocking), { code: 'EBADF' });
});

test('a signal does not end a wait', native, () => {
  const { libc } = setUp();
  const arena = arenaOfTest(libc);
  const asked: number[] = [];
  const interrupted: Libc = {
    ...libc,
    epoll_wait: (_epoll, _events, _most, milliseconds) => (asked.push(milliseconds) < 3 ? -1 : 0),
    errno: () => 4,
  };
  const epoll = new Epoll(interrupted, arena);
  assert.equal(
    epoll.wait(10_000, () => undefined),
    0,
  );
  assert.equal(asked.length, 3);
  assert.equal(asked[0], 10_000);
  assert.ok(asked.every((left, i) => left > 0 && left <= asked[Math.max(i - 1, 0)]));
  epoll.close();
});
