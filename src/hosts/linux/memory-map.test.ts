import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MOST_VIEWED } from './libc.ts';
import { MemoryMap } from './memory-map.ts';
import { arenaOfTest, libcOfTest, mappingsOf, native, openDescriptors } from './native.test.helper.ts';

function memoryFile(name: string, length: number): number {
  const libc = libcOfTest();
  const fd = libc.memfd_create(name, 0);
  assert.equal(libc.ftruncate(fd, length), 0);
  return fd;
}

test('two mappings of one file see the same bytes, at the place asked for', native, () => {
  const libc = libcOfTest();
  const fd = memoryFile('grantio-two', 5 * 4096);
  const all = MemoryMap.of(libc, fd, 0, 5 * 4096, 'all');
  const part = MemoryMap.of(libc, fd, 4096 + 24, 4096, 'part');
  libc.close(fd);
  all.region.u8[4096 + 24 + 7] = 99;
  assert.equal(part.region.u8[7], 99);
  assert.equal(part.region.byteLength, 4096);
  Atomics.store(part.region.u16, 0, 0x1234);
  assert.equal(all.region.u16[(4096 + 24) / 2], 0x1234);
  all.close();
  part.close();
});

test('its address is that of its first byte, for system calls', native, () => {
  const libc = libcOfTest();
  const fd = memoryFile('grantio-address', 8192);
  const map = MemoryMap.of(libc, fd, 4096 + 8, 64, 'memory');
  assert.equal(map.region.address, map.address);
  const scratch = arenaOfTest(libc).take(16);
  assert.equal(libc.pwrite(fd, scratch.address, 16, 4096 + 8), 16);
  scratch.u8.fill(0x77);
  assert.equal(libc.pwrite(fd, scratch.address, 16, 4096 + 8), 16);
  assert.equal(libc.pread(fd, map.address + 32, 16, 4096 + 8), 16);
  assert.deepEqual([...map.region.u8.subarray(32, 48)], new Array(16).fill(0x77));
  map.close();
  libc.close(fd);
});

test('C4: a mapping ends once, and neither it nor its descriptor is left', native, () => {
  const libc = libcOfTest();
  const before = openDescriptors();
  const fd = memoryFile('grantio-ends', 3 * 4096);
  const map = MemoryMap.of(libc, fd, 4096, 2 * 4096 - 8, 'memory');
  libc.close(fd);
  assert.equal(mappingsOf('grantio-ends'), 1);
  map.close();
  map.close();
  assert.equal(mappingsOf('grantio-ends'), 0);
  assert.equal(openDescriptors(), before);
});

test('what cannot be mapped is refused, in words that say what it was', native, () => {
  const libc = libcOfTest();
  const eventfd = libc.eventfd(0, 0);
  assert.throws(() => MemoryMap.of(libc, eventfd, 0, 4096, "the guest's memory"), {
    name: 'SystemError',
    message: "the guest's memory: mmap failed: ENODEV",
  });
  libc.close(eventfd);
});

test('memory too large for one piece is refused, and nothing stays mapped', native, () => {
  const libc = libcOfTest();
  const fd = memoryFile('grantio-large', MOST_VIEWED + 4096);
  assert.throws(() => MemoryMap.of(libc, fd, 0, MOST_VIEWED + 4096, 'memory'), /memory: \d+ bytes, at most/);
  assert.equal(mappingsOf('grantio-large'), 0);
  const map = MemoryMap.of(libc, fd, 4096, MOST_VIEWED, 'memory');
  map.region.u8[MOST_VIEWED - 1] = 1;
  map.close();
  libc.close(fd);
});
