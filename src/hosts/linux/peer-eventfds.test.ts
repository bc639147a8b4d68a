import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newEventfd } from './epoll.ts';
import { arenaOfTest, libcOfTest, native, openDescriptors } from './native.test.helper.ts';
import { PeerEventfds } from './peer-eventfds.ts';

function setUp() {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  const word = arena.take(8);
  const countOf = (fd: number): bigint => {
    assert.equal(libc.read(fd, word.address, 8), 8);
    return word.view.getBigUint64(0, true);
  };
  const add = (fd: number, count: bigint): void => {
    word.view.setBigUint64(0, count, true);
    libc.write(fd, word.address, 8);
  };
  return { libc, arena, countOf, add };
}

test('each ring adds one, more often than the kernel has room for completions', native, () => {
  const { libc, arena, countOf } = setUp();
  const peers = new PeerEventfds(libc, arena);
  const [one, other] = [newEventfd(libc), newEventfd(libc)];
  for (let i = 0; i < 10_000; i++) assert.ok(peers.ring(i % 4 === 0 ? other : one));
  assert.equal(countOf(one), 7500n);
  assert.equal(countOf(other), 2500n);
  peers.close();
  for (const fd of [one, other]) libc.close(fd);
  arena.close();
});

test('R8: an eventfd that is full and blocks is rung without waiting', native, () => {
  const { libc, arena, countOf, add } = setUp();
  const peers = new PeerEventfds(libc, arena);
  const full = libc.eventfd(0, 0);
  add(full, 2n ** 64n - 2n);
  for (let i = 0; i < 100; i++) assert.ok(peers.ring(full));
  assert.equal(countOf(full), 2n ** 64n - 1n);
  assert.ok(peers.ring(full));
  assert.equal(countOf(full), 1n);
  peers.close();
  libc.close(full);
  arena.close();
});

test('what is no eventfd is left alone, and nothing stays open', native, () => {
  const { libc, arena } = setUp();
  const before = openDescriptors();
  const peers = new PeerEventfds(libc, arena);
  const memory = libc.memfd_create('grantio-no-eventfd', 0);
  for (const fd of [memory, -1, 1 << 30]) assert.equal(peers.ring(fd), false);
  libc.close(memory);
  peers.close();
  assert.equal(openDescriptors(), before);
  arena.close();
});
