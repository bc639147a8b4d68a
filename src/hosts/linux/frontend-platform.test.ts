// The real machine of a vhost-user frontend: descriptors, waiting, and memory that a backend cannot make dangerous.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Arena } from './arena.ts';
import { LinuxFrontendPlatform } from './frontend-platform.ts';
import { loadLibc } from './libc.ts';
import { MemoryMap } from './memory-map.ts';
import { WindowMemory } from './window-memory.ts';

const F_SETFL = 4;
const PAGE = 4096;
const skip = process.platform === 'linux' ? false : 'Linux only';

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Contexts of asynchronous writes. */
function contexts(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('/[aio]').length;
}

test('messages and descriptors cross a pair of sockets; nothing comes of waiting but time', { skip }, () => {
  const libc = loadLibc();
  const before = openDescriptors();
  const platform = new LinuxFrontendPlatform(libc, new Arena(libc, 16 * 1024));
  const [one, other] = platform.socketPair();
  const room = new Uint8Array(64);
  assert.deepEqual(platform.receive(other, room, 0), { length: -1, fds: [] });
  assert.deepEqual(platform.receive(other, room, 1), { length: -1, fds: [] });
  const event = platform.newEvent();
  assert.ok(platform.send(one, Uint8Array.of(1, 2, 3), [event]));
  const { length, fds } = platform.receive(other, room, 1000);
  assert.deepEqual([length, [...room.subarray(0, 3)], fds.length], [3, [1, 2, 3], 1]);
  platform.signal(fds[0]);
  assert.equal(platform.takeSignal(event), true);
  assert.equal(platform.takeSignal(event), false);
  platform.close(one);
  assert.equal(platform.receive(other, room, 1000).length, 0, 'the end');
  assert.equal(platform.send(other, Uint8Array.of(1), []), false);
  for (const fd of [other, event, ...fds]) platform.close(fd);
  platform.release();
  assert.equal(openDescriptors(), before);
});

test('a machine with no descriptor left refuses, and nothing stays open', { skip }, () => {
  const libc = loadLibc();
  const arena = new Arena(libc, 64 * 1024);
  const before = [openDescriptors(), contexts()];
  const none = { open: () => -1, syscall: () => -1, epoll_create1: () => -1 };
  for (const [name, fail] of Object.entries(none)) {
    const made = () => new LinuxFrontendPlatform({ ...libc, [name]: fail }, arena);
    assert.throws(made, /failed/, name);
    assert.deepEqual([openDescriptors(), contexts()], before, name);
  }
});

test('B8: an eventfd that the backend has made wait does not make us wait', { skip }, () => {
  const libc = loadLibc();
  const platform = new LinuxFrontendPlatform(libc, new Arena(libc, 16 * 1024));
  const event = platform.newEvent();
  // The flags belong to the file, which the backend has as well.
  assert.equal(libc.fcntl(event, F_SETFL, 0), 0);
  assert.equal(platform.takeSignal(event), false);
  platform.signal(event);
  assert.equal(platform.takeSignal(event), true);
  // As full as it can be: one more, written by write(2), would wait for a reader.
  const full = new Arena(libc, 64).take(8);
  full.view.setBigUint64(0, 2n ** 64n - 2n, true);
  assert.equal(libc.write(event, full.address, 8), 8);
  platform.signal(event);
  assert.equal(platform.takeSignal(event), true);
  platform.close(event);
  platform.release();
});

test('R7: the window is a file whose size nobody can change, and the end of the memory', { skip }, () => {
  const libc = loadLibc();
  const before = openDescriptors();
  const memory = new WindowMemory(libc, 8 * PAGE, 2 * PAGE);
  assert.equal(libc.ftruncate(memory.fd, PAGE), -1);
  assert.equal(libc.ftruncate(memory.fd, 3 * PAGE), -1);
  const backend = MemoryMap.of(libc, memory.fd, 0, 2 * PAGE, 'the window');
  memory.region.u8[6 * PAGE] = 0x5a;
  memory.region.u8[6 * PAGE - 1] = 0xff;
  assert.deepEqual([backend.region.u8[0], backend.region.u8[PAGE]], [0x5a, 0]);
  backend.region.u8[2 * PAGE - 1] = 7;
  assert.equal(memory.region.u8[8 * PAGE - 1], 7);
  memory.renew();
  assert.ok(
    memory.region.u8.subarray(6 * PAGE).every((byte) => byte === 0),
    'a new window is empty',
  );
  backend.region.u8[1] = 9;
  memory.region.u8[6 * PAGE + 2] = 3;
  assert.deepEqual([memory.region.u8[6 * PAGE + 1], backend.region.u8[2]], [0, 0]);
  assert.equal(memory.region.u8[6 * PAGE - 1], 0xff, "the guest's own memory stays");
  backend.close();
  memory.close();
  assert.equal(openDescriptors(), before);
});
