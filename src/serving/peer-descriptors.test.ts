import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { test } from 'node:test';
import * as user from '../abi/vhost-user.ts';
import { ProtocolViolation } from '../errors.ts';
import { arenaOfTest, libcOfTest, native, openDescriptors } from '../hosts/linux/native.test.helper.ts';
import { usable } from './peer-descriptors.ts';

const {
  VHOST_USER_SET_VRING_KICK: KICK,
  VHOST_USER_SET_VRING_CALL: CALL,
  VHOST_USER_SET_VRING_ERR: ERR,
} = user;
const CHANNEL = user.VHOST_USER_SET_BACKEND_REQ_FD;
const F_GETFL = 3;
const O_NONBLOCK = 0x800;
const AF_UNIX = 1;
const SOCK_STREAM = 1;

function message(request: number, ...fds: number[]) {
  return { request, flags: 1, payload: new Uint8Array(8), fds };
}

function setUp() {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  const { view, address } = arena.take(16);
  libc.pipe2(address, 0);
  libc.socketpair(AF_UNIX, SOCK_STREAM, 0, address + 8);
  const kinds = {
    eventfd: libc.eventfd(0, 0),
    read: view.getInt32(0, true),
    pipe: view.getInt32(4, true),
    socket: view.getInt32(8, true),
    file: openSync('/proc/self/maps', 'r'),
    folder: openSync('/', 'r'),
  };
  const close = (): void => {
    for (const fd of [...Object.values(kinds), view.getInt32(12, true)]) libc.close(fd);
    arena.close();
  };
  return { libc, kinds, close };
}

test('each request takes the kinds that it can use, and no others', native, () => {
  const { libc, kinds, close } = setUp();
  const taken = (shared: boolean, request: number): string[] =>
    Object.entries(kinds)
      .filter(([name, fd]) => {
        if (name === 'read' || (name === 'pipe' && request !== KICK)) return false;
        try {
          return usable(libc, message(request, fd), shared).fds[0] === fd;
        } catch (error) {
          assert.ok(error instanceof ProtocolViolation);
          return false;
        }
      })
      .map(([name]) => name);
  for (const request of [KICK, CALL, ERR]) assert.deepEqual(taken(true, request), ['eventfd']);
  assert.deepEqual(taken(false, KICK), ['eventfd', 'pipe']);
  for (const request of [CALL, ERR]) assert.deepEqual(taken(false, request), ['eventfd']);
  for (const shared of [true, false]) assert.deepEqual(taken(shared, CHANNEL), ['socket']);
  close();
});

test(
  'R8: a pipe to be written to becomes an end of our own, which does not block; its peer’s stays as it is',
  native,
  () => {
    const { libc, kinds, close } = setUp();
    const before = openDescriptors();
    const copy = libc.dup(kinds.pipe);
    const [own] = usable(libc, message(CALL, copy), false).fds;
    assert.equal(openDescriptors(), before + 1, 'one takes the place of the other');
    assert.ok(libc.fcntl(own, F_GETFL, 0) & O_NONBLOCK);
    assert.equal(libc.fcntl(kinds.pipe, F_GETFL, 0) & O_NONBLOCK, 0);
    libc.close(own);
    assert.throws(() => usable(libc, message(CALL, kinds.pipe), true), /of pipe, expected eventfd/);
    close();
  },
);

test('other messages, and those without descriptors, are handed on as they are', native, () => {
  const { libc, kinds, close } = setUp();
  const table = message(user.VHOST_USER_SET_MEM_TABLE, kinds.file, kinds.folder);
  assert.equal(usable(libc, table, true), table);
  assert.deepEqual(usable(libc, message(CALL), true).fds, []);
  close();
});
