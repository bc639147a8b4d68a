// A real ring of this machine's kernel; skipped, with the reason, where there is none.

import assert from 'node:assert/strict';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Segments } from '../../memory/segments.ts';
import { Epoll, Eventfds } from './epoll.ts';
import { IoUring, IoUringUnavailable, type UringOperation } from './io-uring.ts';
import type { Libc } from './libc.ts';
import {
  imageHost,
  libcOfTest,
  mappingsOf,
  memoryOf,
  native,
  openDescriptors,
  uring,
} from './native.test.helper.ts';

const SECTOR = 512;
const SIZE = 2 ** 20;

function open(t: TestContext, fakes: Partial<Libc> = {}) {
  const host = imageHost(fakes);
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'file');
  const bytes = Uint8Array.from({ length: SIZE }, (_, at) => (at * 7) ^ (at >>> 9));
  writeFileSync(path, bytes);
  const fd = openSync(path, 'r+');
  const ring = new IoUring(host.libc, host.arena);
  t.after(() => {
    ring.close();
    host.libc.close(fd);
    rmSync(folder, { recursive: true });
  });
  return { host, ring, fd, bytes, memory: memoryOf(host, 2 ** 20) };
}

/** Operations whose results are noted by name. */
function results() {
  const seen = new Map<string, number>();
  const named = (name: string): UringOperation => ({
    completed: (result) => {
      assert.ok(!seen.has(name), 'an operation ends once');
      seen.set(name, result);
    },
  });
  return { seen, named };
}

test('work ends with what the system call would return, and memory has what was read', uring, (t) => {
  const { ring, fd, bytes, memory } = open(t);
  const { seen, named } = results();
  const one = new Segments();
  one.push(memory, 100, 4096);
  const many = new Segments();
  many.push(memory, 8192, 1000);
  many.push(memory, 10_000, 3000);
  ring.move(named('read'), false, fd, 512, one, 96);
  ring.move(named('readv'), false, fd, 4096, many, 500);
  ring.sync(named('sync'), fd);
  ring.allocate(named('hole'), fd, 3, 2 ** 19, 4096);
  ring.sync(named('bad'), -1);
  assert.deepEqual([ring.inFlight, ring.unsubmitted], [5, true]);
  while (ring.inFlight > 0) ring.wait();
  assert.deepEqual([...seen].sort(), [
    ['bad', -constants.errno.EBADF],
    ['hole', 0],
    ['read', 4000],
    ['readv', 3500],
    ['sync', 0],
  ]);
  assert.deepEqual(memory.u8.slice(196, 4196), bytes.slice(512, 4512));
  assert.deepEqual(memory.u8.slice(8692, 9192), bytes.slice(4096, 4596));
  assert.deepEqual(memory.u8.slice(10_000, 13_000), bytes.slice(4596, 7596));
});

test(
  'more work than the ring has entries, with more pieces than it has room for, is all done',
  uring,
  (t) => {
    const { ring, fd, bytes, memory } = open(t);
    const { seen, named } = results();
    const COUNT = 1000;
    for (let each = 0; each < COUNT; each++) {
      const segments = new Segments();
      for (let piece = 0; piece < 8; piece++) segments.push(memory, each * SECTOR + piece * 64, 63);
      ring.move(named(`${each}`), false, fd, each * SECTOR, segments, 0);
    }
    while (ring.inFlight > 0) ring.wait();
    assert.equal(seen.size, COUNT);
    assert.deepEqual([...new Set(seen.values())], [8 * 63]);
    for (let each = 0; each < COUNT; each++)
      assert.deepEqual(
        memory.u8.slice(each * SECTOR + 64, each * SECTOR + 127),
        bytes.slice(each * SECTOR + 63, each * SECTOR + 126),
      );
  },
);

test('pieces beyond those of one call are left for the next', uring, (t) => {
  const { ring, fd, memory } = open(t);
  const { seen, named } = results();
  const segments = new Segments();
  for (let piece = 0; piece < 2000; piece++) segments.push(memory, piece * 2, 1);
  ring.move(named('many'), true, fd, 0, segments, 0);
  ring.wait();
  assert.deepEqual([...seen], [['many', 1024]]);
});

test('what is begun when something ends goes with the next call', uring, (t) => {
  const { ring, fd } = open(t);
  const order: string[] = [];
  ring.sync(
    { completed: () => order.push('first') && ring.sync({ completed: () => order.push('second') }, fd) },
    fd,
  );
  ring.wait();
  assert.deepEqual([order, ring.inFlight, ring.unsubmitted], [['first'], 1, true]);
  ring.submit();
  assert.equal(ring.unsubmitted, false);
  ring.wait();
  assert.deepEqual(order, ['first', 'second']);
});

test(
  'a thread that sleeps in epoll is woken by what ends, and by nothing when it does not sleep',
  uring,
  (t) => {
    const { host, ring, memory } = open(t);
    const { libc, arena } = host;
    const epoll = new Epoll(libc, arena);
    // Reading it ends when somebody rings it.
    const bell = libc.eventfd(0, 0);
    t.after(() => {
      libc.close(bell);
      epoll.close();
    });
    epoll.add(ring.wakeFd, 5);
    const eventfds = new Eventfds(libc, arena);
    const count = new Segments();
    count.push(memory, 0, 8);
    const look = () => {
      const tokens: number[] = [];
      epoll.wait(0, (token) => tokens.push(token));
      return tokens;
    };
    for (let round = 0; round < 5; round++) {
      const { seen, named } = results();
      ring.move(named('one'), false, bell, 0, count, 0);
      assert.equal(ring.arm(), false, 'nothing has ended');
      assert.deepEqual(look(), []);
      eventfds.ring(bell);
      assert.deepEqual(look(), [5]);
      assert.equal(ring.arm(), true, 'something has ended');
      assert.equal(ring.reap(), 1);
      assert.deepEqual(look(), [], 'the wake is taken back');
      ring.move(named('other'), false, bell, 0, count, 0);
      ring.submit();
      eventfds.ring(bell);
      assert.deepEqual(look(), [], 'who looks by itself is not woken');
      assert.equal(ring.reap(), 1);
      assert.equal(seen.size, 2);
    }
  },
);

test(
  'a ring leaves neither descriptors nor mappings, and is not closed while work is under way',
  uring,
  () => {
    const host = imageHost();
    const [descriptors, mappings] = [openDescriptors(), mappingsOf('io_uring')];
    const ring = new IoUring(host.libc, host.arena);
    ring.sync({ completed: () => undefined }, -1);
    assert.throws(() => ring.close(), /nothing is under way/);
    ring.wait();
    ring.close();
    assert.deepEqual([openDescriptors(), mappingsOf('io_uring')], [descriptors, mappings]);
  },
);

test('where io_uring is missing or forbidden, one sentence says so', native, () => {
  const { ENOSYS, EPERM, ENOMEM } = constants.errno;
  for (const [errno, message] of [
    [ENOSYS, 'io_uring cannot be used: this kernel has none'],
    [
      EPERM,
      /cannot be used: this system forbids it \(kernel.io_uring_disabled, or the filter of a container\)/,
    ],
    [ENOMEM, /io_uring cannot be used: .*ENOMEM/],
  ] as const) {
    const host = imageHost({ syscall: () => -1, errno: () => errno });
    assert.throws(() => new IoUring(host.libc, host.arena), { name: 'IoUringUnavailable', message });
  }
});

test('an old kernel is asked for less; one that is too old is refused, and its ring closed', uring, () => {
  const { EINVAL } = constants.errno;
  const real = libcOfTest();
  const asked: number[] = [];
  const before = openDescriptors();
  let errno = 0;
  const syscall: Libc['syscall'] = (number, entries, address, ...rest) => {
    const view = new DataView(real.view(address, 120));
    asked.push(view.getUint32(8, true));
    errno = EINVAL;
    if (asked.length === 1) return -1;
    const fd = real.syscall(number, entries, address, ...rest);
    view.setUint32(20, 1, true);
    return fd;
  };
  const host = imageHost({ syscall, errno: () => errno });
  assert.throws(() => new IoUring(host.libc, host.arena), IoUringUnavailable);
  assert.equal(asked.length, 2);
  assert.ok(asked[0] !== asked[1]);
  assert.equal(openDescriptors(), before);
});
