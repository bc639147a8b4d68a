import assert from 'node:assert/strict';
import { fstatSync, openSync } from 'node:fs';
import { test } from 'node:test';
import {
  libcOfTest,
  mappingsOf,
  native,
  openDescriptors,
  arenaOfTest,
} from '../hosts/linux/native.test.helper.ts';
import { LinuxPlatform } from './linux-platform.ts';

const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const F_ADD_SEALS = 1033;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

function setUp(sealed: boolean) {
  const libc = libcOfTest();
  const arena = arenaOfTest(libc);
  const signals: number[] = [];
  const platform = new LinuxPlatform({ libc, arena, sealed, signal: (fd) => signals.push(fd) });
  const memory = (seals: number): number => {
    const fd = libc.memfd_create('grantio-platform-test', MFD_ALLOW_SEALING);
    libc.ftruncate(fd, 8192);
    libc.fcntl(fd, F_ADD_SEALS, seals);
    return fd;
  };
  return { libc, arena, platform, memory, signals };
}

test('T5: a file that is shorter than its mapping is refused, also by one byte', native, () => {
  const { libc, arena, platform, memory } = setUp(false);
  const fd = memory(0);
  for (const [offset, length] of [
    [0, 8200],
    [8, 8192],
    [8192, 8],
    [2 ** 40, 8],
  ])
    assert.throws(() => platform.map(fd, offset, length), /the mapping would end behind it/);
  assert.equal(platform.mappings, 0);
  const map = platform.map(fd, 8184, 8);
  assert.equal(map.region.byteLength, 8);
  map.close();
  libc.close(fd);
  arena.close();
});

test('R7: where others are served, only memory that cannot shrink is mapped', native, () => {
  const { libc, arena, platform, memory } = setUp(true);
  const [soft, grows, hard] = [memory(0), memory(F_SEAL_GROW), memory(F_SEAL_SHRINK)];
  for (const fd of [soft, grows])
    assert.throws(() => platform.map(fd, 0, 4096), /seal it with F_SEAL_SHRINK/);
  platform.map(hard, 0, 4096).close();
  for (const fd of [soft, grows, hard]) libc.close(fd);
  arena.close();
});

test('R7: huge pages are not mapped where others are served', native, (t) => {
  const { libc, arena, platform } = setUp(true);
  const huge = libc.memfd_create('grantio-huge', MFD_ALLOW_SEALING | MFD_HUGETLB);
  if (huge < 0 || libc.fcntl(huge, F_ADD_SEALS, F_SEAL_SHRINK) < 0) {
    t.skip('this kernel has no huge pages');
    return;
  }
  libc.ftruncate(huge, 2 ** 21);
  assert.throws(() => platform.map(huge, 0, 2 ** 21), /huge pages can run out/);
  libc.close(huge);
  arena.close();
});

test('a mapping shows the file, and ends when it is closed', native, () => {
  const { libc, arena, platform, memory } = setUp(false);
  const fd = memory(0);
  const [one, other] = [platform.map(fd, 0, 8192), platform.map(fd, 4096 + 64, 64)];
  one.region.u8[4096 + 64] = 0x42;
  assert.equal(other.region.u8[0], 0x42);
  assert.equal(platform.mappings, 2);
  assert.equal(mappingsOf('grantio-platform-test'), 2);
  one.close();
  other.close();
  assert.equal(platform.mappings, 0);
  assert.equal(mappingsOf('grantio-platform-test'), 0);
  libc.close(fd);
  arena.close();
});

test('what is no memory is refused, and so is memory of a Xen domain', native, () => {
  const { libc, arena, platform } = setUp(false);
  const folder = openSync('/', 'r');
  const counter = libc.eventfd(0, 0);
  for (const fd of [folder, counter, 100_000]) assert.throws(() => platform.map(fd, 0, 8));
  assert.throws(() => platform.map(counter, 0, 8, { kind: 'grant', domainId: 1, guest: 0 }), /Xen domain/);
  assert.equal(platform.mappings, 0);
  for (const fd of [folder, counter]) libc.close(fd);
  arena.close();
});

test('a file for requests under way is zeroed and can neither shrink nor grow', native, () => {
  const { libc, arena, platform } = setUp(true);
  const before = openDescriptors();
  const fd = platform.createFile(4160);
  assert.equal(fstatSync(fd).size, 4160);
  const map = platform.map(fd, 0, 4160);
  assert.ok(map.region.u8.every((byte) => byte === 0));
  map.close();
  assert.equal(libc.ftruncate(fd, 0), -1);
  assert.equal(libc.ftruncate(fd, 8192), -1);
  platform.close(fd);
  assert.equal(openDescriptors(), before);
  assert.throws(() => platform.createFile(-1), /a buffer of -1 bytes/);
  assert.equal(openDescriptors(), before);
  arena.close();
});

test('signals are the thread’s to send; messages to what is no socket, or full, are lost', native, () => {
  const { libc, arena, platform, signals } = setUp(false);
  platform.signal(7);
  assert.deepEqual(signals, [7]);
  const counter = libc.eventfd(0, 0);
  platform.send(counter, Uint8Array.of(1, 2, 3));
  libc.close(counter);
  const ends = arena.take(8);
  libc.socketpair(1, 1, 0, ends.address);
  const [near, far] = [ends.view.getInt32(0, true), ends.view.getInt32(4, true)];
  for (let i = 0; i < 2000; i++) platform.send(near, Uint8Array.of(i, 2, 3));
  const into = arena.take(8);
  assert.equal(libc.read(far, into.address, 3), 3);
  assert.deepEqual([...into.u8.subarray(0, 3)], [0, 2, 3]);
  for (const fd of [near, far]) libc.close(fd);
  arena.close();
});
