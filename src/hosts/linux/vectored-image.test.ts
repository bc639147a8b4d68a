// R1 R3 R5: a raw image through system calls that fail, are interrupted, move less than they were asked to, or find
// the end of the file where there should be more.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { Region } from '../../abi/region.ts';
import { Segments } from '../../memory/segments.ts';
import { lockImage } from './image-lock.ts';
import type { Libc } from './libc.ts';
import { MappedImage } from './mapped-image.ts';
import { imageHost, memoryOf, native, openDescriptors } from './native.test.helper.ts';
import { VectoredImage } from './vectored-image.ts';

const { EINTR, EAGAIN, EFAULT, EIO, ENOSPC, EDQUOT, EOPNOTSUPP, EINVAL } = constants.errno;
const SECTOR = 512;
const SIZE = 256 * SECTOR;

function imageFile(t: TestContext, size = SIZE): { path: string; bytes: Uint8Array } {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'disk.img');
  const bytes = Uint8Array.from({ length: size }, (_, at) => (at * 31) ^ (at >>> 9));
  writeFileSync(path, bytes);
  return { path, bytes };
}

/** An image, and memory for one request. */
function open(t: TestContext, fakes: Partial<Libc> = {}, options: { direct?: boolean; size?: number } = {}) {
  const { path, bytes } = imageFile(t, options.size);
  const host = imageHost(fakes);
  const store = new VectoredImage(host, path, { readOnly: false, direct: options.direct ?? false });
  t.after(() => store.close());
  return { path, bytes, host, store, memory: memoryOf(host, 64 * 1024) };
}

function pieces(memory: Region, ...places: readonly (readonly [offset: number, length: number])[]): Segments {
  const segments = new Segments();
  for (const [offset, length] of places) segments.push(memory, offset, length);
  return segments;
}

/** Moves at most `most` bytes a call, and fails with EINTR or EAGAIN in between. */
function reluctant(real: Libc, most: number): Partial<Libc> {
  let calls = 0;
  let errno = 0;
  const fail = () => {
    calls++;
    errno = calls % 6 === 2 ? EINTR : EAGAIN;
    return calls % 3 === 2;
  };
  // Pieces of a vector are cut at the first: that is less than was asked for.
  const one = (vectors: number, call: (address: number, length: number) => number) => {
    const words = new Uint32Array(real.view(vectors, 16));
    return call(words[1] * 2 ** 32 + words[0], Math.min(words[2], most));
  };
  return {
    errno: () => errno,
    pread: (fd, address, length, at) => (fail() ? -1 : real.pread(fd, address, Math.min(length, most), at)),
    pwrite: (fd, address, length, at) => (fail() ? -1 : real.pwrite(fd, address, Math.min(length, most), at)),
    preadv: (fd, vectors, _, at) =>
      fail() ? -1 : one(vectors, (address, n) => real.pread(fd, address, n, at)),
    pwritev: (fd, vectors, _, at) =>
      fail() ? -1 : one(vectors, (address, n) => real.pwrite(fd, address, n, at)),
  };
}

test('R3: short and interrupted calls go on at the byte where they ended', native, (t) => {
  const { libc } = imageHost();
  const { store, bytes, memory, path } = open(t, reluctant(libc, 700));
  const cuts = fc.array(fc.integer({ min: 1, max: 2000 }), { maxLength: 8 });
  fc.assert(
    fc.property(
      fc.nat(100),
      fc.integer({ min: 1, max: 20 }),
      cuts,
      fc.nat(255),
      (sector, count, lengths, salt) => {
        const segments = new Segments();
        for (let left = count * SECTOR, at = 5; left > 0; ) {
          const length = Math.min(lengths[segments.count] ?? left, left);
          segments.push(memory, at, length);
          at += length + 1;
          left -= length;
        }
        memory.u8.fill(0xee);
        assert.equal(store.read(sector * SECTOR, segments), 'ok');
        const got = new Uint8Array(segments.byteLength);
        segments.copyTo(got, 0, got.length);
        assert.deepEqual(got, bytes.slice(sector * SECTOR, (sector + count) * SECTOR));
        memory.u8.fill(salt);
        assert.equal(store.write(sector * SECTOR, segments), 'ok');
        bytes.fill(salt, sector * SECTOR, (sector + count) * SECTOR);
        assert.ok(readFileSync(path).equals(bytes));
      },
    ),
    { seed: 3, numRuns: 60 },
  );
});

test('R3: a call that is interrupted for ever, or moves nothing, is an error in the end', native, (t) => {
  let [result, errno] = [-1, EINTR];
  const { store, memory } = open(t, { errno: () => errno, pread: () => result, pwrite: () => result });
  const one = pieces(memory, [0, SECTOR]);
  for (errno of [EINTR, EAGAIN]) assert.deepEqual([store.read(0, one), store.write(0, one)], ['EIO', 'EIO']);
  result = 0;
  assert.deepEqual([store.write(0, one), store.flush()], ['EIO', 'ok']);
  assert.deepEqual([store.read(0, one), store.flush()], ['EIO', 'EIO'], 'the image became shorter');
});

for (const [name, errno, expected] of [
  ['ENOSPC', ENOSPC, 'ENOSPC'],
  ['EDQUOT', EDQUOT, 'ENOSPC'],
  ['EIO', EIO, 'EIO'],
  ['EINVAL', EINVAL, 'EIO'],
] as const) {
  test(`R1: ${name} fails that request, and the disk goes on`, native, (t) => {
    let failing = true;
    const { libc } = imageHost();
    const pwrite: Libc['pwrite'] = (...args) => (failing ? -1 : libc.pwrite(...args));
    const { store, memory, bytes, path } = open(t, { errno: () => errno, pwrite });
    assert.equal(store.write(0, pieces(memory, [0, SECTOR])), expected);
    assert.ok(readFileSync(path).equals(bytes));
    failing = false;
    assert.equal(store.write(0, pieces(memory, [0, SECTOR])), 'ok');
  });
}

test('R1: a file system without space is ENOSPC, what was there stays, and the disk goes on', native, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', folder], { stdio: 'ignore' });
  } catch {
    rmSync(folder, { recursive: true });
    t.skip('this machine does not let us mount a small file system');
    return;
  }
  t.after(() => {
    execFileSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  });
  const path = join(folder, 'disk.img');
  writeFileSync(path, new Uint8Array(4096).fill(7));
  truncateSync(path, 2 ** 20);
  const host = imageHost();
  const store = new VectoredImage(host, path, { readOnly: false });
  const memory = memoryOf(host, 64 * 1024);
  assert.equal(store.write(4096, pieces(memory, [0, 64 * 1024])), 'ENOSPC');
  assert.equal(store.writeZeroes(2 ** 19, 2 ** 18, false), 'ENOSPC');
  assert.equal(store.discard(8192, 2 ** 20 - 8192), 'ok');
  assert.equal(store.write(8192, pieces(memory, [0, 4096])), 'ok', 'a discard has made room');
  assert.equal(readFileSync(path)[4095], 7);
  store.close();
});

test(
  'R5: an image truncated under us fails reads past its end, and every flush from then on',
  native,
  (t) => {
    const { store, memory, path } = open(t);
    truncateSync(path, 10 * SECTOR);
    assert.equal(store.read(9 * SECTOR, pieces(memory, [0, SECTOR])), 'ok');
    assert.equal(store.read(9 * SECTOR, pieces(memory, [0, 600], [1000, 424])), 'EIO');
    assert.equal(store.flush(), 'EIO');
    truncateSync(path, SIZE);
    assert.equal(store.flush(), 'EIO', 'also when it has grown again');
  },
);

test('C8: an fdatasync that failed once is never believed again', native, (t) => {
  let failing = true;
  const { store } = open(t, { errno: () => EIO, fdatasync: () => (failing ? -1 : 0) });
  assert.equal(store.flush(), 'EIO');
  failing = false;
  assert.equal(store.flush(), 'EIO');
});

test('a discard, and zeroes that may be unmapped, give space back; others keep it', native, (t) => {
  const { store, path, bytes } = open(t, {}, { size: 2 ** 20 });
  store.flush();
  const full = statSync(path).blocks;
  assert.equal(store.freesZeroes, true);
  assert.equal(store.writeZeroes(0, 2 ** 18, false), 'ok');
  assert.equal(statSync(path).blocks, full);
  assert.equal(store.writeZeroes(2 ** 18, 2 ** 18, true), 'ok');
  const half = statSync(path).blocks;
  assert.ok(half < full, `${half} of ${full} blocks`);
  assert.equal(store.discard(2 ** 19, 2 ** 18), 'ok');
  assert.ok(statSync(path).blocks < half);
  assert.equal(statSync(path).size, 2 ** 20);
  const after = readFileSync(path);
  assert.ok(after.subarray(0, 2 ** 19).every((byte) => byte === 0));
  assert.ok(after.subarray(3 * 2 ** 18).equals(bytes.subarray(3 * 2 ** 18)));
});

for (const [name, errno] of Object.entries({ EOPNOTSUPP, EINVAL })) {
  test(
    `where fallocate is refused with ${name}, zeroes are written and a discard does nothing`,
    native,
    (t) => {
      const { store, path, bytes } = open(t, { errno: () => errno, fallocate: () => -1 });
      assert.equal(store.freesZeroes, false);
      assert.equal(store.discard(0, SECTOR), 'ok');
      for (const mayUnmap of [false, true]) {
        const from = mayUnmap ? 2 : 150;
        assert.equal(store.writeZeroes(from * SECTOR, 100 * SECTOR, mayUnmap), 'ok');
        bytes.fill(0, from * SECTOR, (from + 100) * SECTOR);
      }
      assert.ok(readFileSync(path).equals(bytes));
    },
  );
}

test(
  'R3: an interrupted fallocate is repeated, but not for ever; its failure fails the request',
  native,
  (t) => {
    let [calls, errno] = [0, EINTR];
    const { libc } = imageHost();
    const fallocate: Libc['fallocate'] = (...args) => (calls++ < 5 ? -1 : libc.fallocate(...args));
    const { store } = open(t, { errno: () => errno, fallocate });
    calls = 0;
    assert.equal(store.writeZeroes(0, SECTOR, false), 'ok');
    calls = Number.NEGATIVE_INFINITY;
    assert.equal(store.writeZeroes(0, SECTOR, false), 'EIO');
    errno = ENOSPC;
    assert.equal(store.writeZeroes(0, SECTOR, false), 'ENOSPC');
  },
);

test('direct I/O moves what it can itself, the rest by way of our memory or the page cache', native, (t) => {
  const { libc } = imageHost();
  const seen: { address: number; length: number; offset: number }[] = [];
  const pread: Libc['pread'] = (fd, address, length, offset) => {
    seen.push({ address, length, offset });
    return libc.pread(fd, address, length, offset);
  };
  // A disk of 4 KiB sectors, whatever the one of this machine has.
  const statx: Libc['statx'] = (...args) => {
    const result = libc.statx(...args);
    const view = new DataView(libc.view(args[4], 256));
    view.setUint32(0, view.getUint32(0, true) | 0x2000, true);
    view.setUint32(152, 512, true);
    view.setUint32(156, 4096, true);
    return result;
  };
  const { store, host, memory, bytes } = open(t, { pread, statx }, { direct: true });
  assert.deepEqual(store.alignment, { memory: 512, file: 4096 });
  const { bounce } = host.scratch;
  for (const [offset, place, length, isDirect] of [
    [4096, 512, 4096, true],
    [8192, 520, 8192, false],
    [512, 512, 4096, true],
    [0, 4096, 1024, true],
  ] as const) {
    seen.length = 0;
    memory.u8.fill(0);
    assert.equal(store.read(offset, pieces(memory, [place, length])), 'ok');
    assert.deepEqual(memory.u8.slice(place, place + length), bytes.slice(offset, offset + length));
    assert.deepEqual(seen, [{ address: isDirect ? memory.address + place : bounce.address, length, offset }]);
  }
  memory.u8.fill(0x5c);
  for (const offset of [0, 512, 4096]) {
    assert.equal(store.write(offset, pieces(memory, [1, 4096])), 'ok');
    assert.equal(store.writeZeroes(offset + 8192, 4096, false), 'ok');
    bytes.fill(0x5c, offset, offset + 4096);
    bytes.fill(0, offset + 8192, offset + 8192 + 4096);
  }
  assert.equal(store.putZeroes(20 * 512, 512), 'ok');
  assert.equal(store.read(0, pieces(memory, [0, 65536])), 'ok');
  bytes.fill(0, 20 * 512, 21 * 512);
  assert.deepEqual(memory.u8.slice(), bytes.slice(0, 65536));
});

for (const direct of [true, false])
  test(
    `R1: memory that the kernel cannot use is ${direct ? 'no error of direct I/O' : 'an error'}`,
    native,
    (t) => {
      const { libc } = imageHost();
      let foreign = 0;
      let errno = 0;
      const refuse = (): number => {
        errno = EFAULT;
        return -1;
      };
      const one =
        (call: Libc['pread']): Libc['pread'] =>
        (fd, address, length, offset) =>
          address >= foreign && address < foreign + 65536 ? refuse() : call(fd, address, length, offset);
      const fakes: Partial<Libc> = {
        ...{ pread: one(libc.pread), pwrite: one(libc.pwrite), preadv: refuse, pwritev: refuse },
        errno: () => errno,
      };
      const { store, path, memory, bytes } = open(t, fakes, { direct });
      foreign = memory.address;
      const expected = direct ? 'ok' : 'EIO';
      assert.equal(store.read(4096, pieces(memory, [0, 4096])), expected);
      if (direct) assert.deepEqual(memory.u8.slice(0, 4096), bytes.slice(4096, 8192));
      memory.u8.fill(0x3e);
      assert.equal(store.write(8192, pieces(memory, [0, 4096], [8192, 4096])), expected);
      if (direct) bytes.fill(0x3e, 8192, 16384);
      assert.ok(readFileSync(path).equals(bytes));
    },
  );

test('an image that may not be written is refused with the option of who serves it', native, () => {
  // A file of sysfs that has nothing to write to may not be opened so, not even by root.
  assert.throws(() => new VectoredImage(imageHost(), '/sys/devices/system/cpu/online', { readOnly: false }), {
    name: 'ImageError',
    message:
      'disk image /sys/devices/system/cpu/online: may not be opened for writing; say --read-only to serve it read-only',
  });
});

test(
  'direct I/O without a file system that has it is refused in words, and nothing stays open',
  native,
  (t) => {
    const { path } = imageFile(t);
    const { libc } = imageHost();
    const before = openDescriptors();
    const statx: Libc['statx'] = (...args) => {
      const view = new DataView(libc.view(args[4], 256));
      view.setUint32(0, 0x2000, true);
      return 0;
    };
    assert.throws(() => new VectoredImage(imageHost({ statx }), path, { readOnly: true, direct: true }), {
      name: 'ImageError',
      message: `disk image ${path}: its file system has no direct I/O; serve it through the page cache`,
    });
    assert.equal(openDescriptors(), before);
  },
);

test('a kernel that does not tell its alignment is treated with caution', native, (t) => {
  const { store } = open(t, { statx: () => -1 }, { direct: true });
  assert.deepEqual(store.alignment, { memory: 4096, file: 4096 });
});

test('a block device is an image, of the size that the kernel tells', native, (t) => {
  const { path, bytes } = imageFile(t);
  let device = '';
  try {
    device = execFileSync('losetup', ['--find', '--show', path], { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    t.skip('this machine has no loop devices');
    return;
  }
  t.after(() => execFileSync('losetup', ['--detach', device]));
  for (const direct of [false, true]) {
    const host = imageHost();
    const store = new VectoredImage(host, device, { readOnly: false, direct });
    assert.equal(store.size, SIZE);
    assert.equal(store.freesZeroes, false);
    const memory = memoryOf(host, 64 * 1024);
    assert.equal(store.read(SECTOR, pieces(memory, [0, SECTOR])), 'ok');
    assert.deepEqual(memory.u8.slice(0, SECTOR), bytes.slice(SECTOR, 2 * SECTOR));
    assert.equal(store.writeZeroes(8192, 4096, true), 'ok');
    assert.equal(store.flush(), 'ok');
    assert.equal(store.read(8192, pieces(memory, [0, 4096])), 'ok');
    assert.ok(memory.u8.subarray(0, 4096).every((byte) => byte === 0));
    store.close();
  }
});

test('an image that one program writes is refused to another, and free when the first ends', native, (t) => {
  const { path } = imageFile(t);
  const host = imageHost();
  const opened = (readOnly: boolean) => {
    const store = new VectoredImage(host, path, { readOnly });
    t.after(() => store.close());
    return store.image;
  };
  const first = new VectoredImage(host, path, { readOnly: false });
  assert.equal(lockImage(host.libc, host.arena, first.image), true);
  for (const readOnly of [false, true])
    assert.throws(() => lockImage(host.libc, host.arena, opened(readOnly)), {
      name: 'ImageError',
      message: `disk image ${path}: another program ${readOnly ? 'writes' : 'uses'} it; end that, or serve a copy`,
    });
  first.close();
  assert.equal(lockImage(host.libc, host.arena, opened(true)), true);
  assert.equal(lockImage(host.libc, host.arena, opened(true)), true, 'readers do not mind each other');
  assert.throws(() => lockImage(host.libc, host.arena, opened(false)), /another program uses it/);
});

test('a file system without locks is said to have none', native, (t) => {
  const { libc } = imageHost();
  const F_OFD_SETLK = 37;
  const fcntl: Libc['fcntl'] = (fd, command, argument) =>
    command === F_OFD_SETLK ? -1 : libc.fcntl(fd, command, argument);
  const { host, store } = open(t, { fcntl, errno: () => EOPNOTSUPP });
  assert.equal(lockImage(host.libc, host.arena, store.image), false);
});

test(
  'a mapped image larger than one window is read and written across them, and ends with its mapping',
  native,
  (t) => {
    const { path } = imageFile(t);
    const GIB = 2 ** 30;
    truncateSync(path, 2 * GIB + 4096);
    const host = imageHost();
    const before = openDescriptors();
    const store = new MappedImage(host, path, false);
    const memory = memoryOf(host, 64 * 1024);
    memory.u8.fill(0x42);
    for (const offset of [GIB - 512, 2 * GIB - 1024]) {
      assert.equal(store.write(offset, pieces(memory, [8, 1000], [2000, 1048])), 'ok');
      memory.u8.fill(1);
      assert.equal(store.read(offset - 512, pieces(memory, [0, 2560])), 'ok');
      assert.equal(store.writeZeroes(offset, 1024, true), 'ok');
      assert.deepEqual([...new Set(memory.u8.subarray(0, 512))], [0]);
      assert.deepEqual([...new Set(memory.u8.subarray(512, 2560))], [0x42]);
      memory.u8.fill(0x42);
    }
    assert.equal(store.flush(), 'ok');
    store.close();
    assert.equal(openDescriptors(), before);
  },
);
