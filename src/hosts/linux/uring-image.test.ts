// R1 R3 R5 C8: an image whose work ends in any order, short, interrupted or failed, on a ring that a test plays.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { Segments } from '../../memory/segments.ts';
import type { StoreResult } from '../../storage/block-store.ts';
import { IoUring, type UringOperation } from './io-uring.ts';
import { imageHost, memoryOf, native, uring } from './native.test.helper.ts';
import { type ImageRing, UringImage } from './uring-image.ts';
import type { ImageHost } from './vectored-image.ts';

const { EINTR, EAGAIN, EFAULT, EIO, ENOSPC, EOPNOTSUPP, EINVAL } = constants.errno;
const SECTOR = 512;
const SECTORS = 128;
/** Sectors that only one request at a time uses, and bytes of memory for it. */
const EACH = 8;
const ROOM = 8192;

interface Work {
  readonly kind: 'read' | 'write' | 'sync' | 'allocate';
  readonly operation: UringOperation;
  /** Moves at most so many bytes, and returns what the kernel would. */
  readonly run: (most: number) => number;
}

/** A ring whose work is done when the test says so. */
class PlayedRing implements ImageRing {
  readonly work: Work[] = [];
  /** Modes and ranges of fallocate. */
  readonly allocations: number[][] = [];
  readonly #host: ImageHost;

  constructor(host: ImageHost) {
    this.#host = host;
  }

  move(
    operation: UringOperation,
    isWrite: boolean,
    fd: number,
    offset: number,
    segments: Segments,
    skip: number,
  ): void {
    const { libc, scratch } = this.#host;
    const run = (most: number): number => {
      const length = Math.min(segments.byteLength - skip, most);
      if (isWrite) {
        segments.copyTo(scratch.bounce.u8, skip, length);
        return libc.pwrite(fd, scratch.bounce.address, length, offset);
      }
      const moved = libc.pread(fd, scratch.bounce.address, length, offset);
      segments.copyFrom(scratch.bounce.u8.subarray(0, moved), skip);
      return moved;
    };
    this.work.push({ kind: isWrite ? 'write' : 'read', operation, run });
  }

  sync(operation: UringOperation): void {
    this.work.push({ kind: 'sync', operation, run: () => 0 });
  }

  allocate(operation: UringOperation, fd: number, mode: number, offset: number, length: number): void {
    this.allocations.push([mode, offset, length]);
    const run = () => this.#host.libc.fallocate(fd, mode, offset, length);
    this.work.push({ kind: 'allocate', operation, run });
  }

  /** Ends one piece of work: as the kernel would, or with `result`. */
  end(choice = 0, result?: number, most = Number.POSITIVE_INFINITY): void {
    const [{ operation, run }] = this.work.splice(choice % this.work.length, 1);
    operation.completed(result ?? run(most));
  }

  wait(): void {
    if (this.work.length > 0) this.end();
  }
}

function open(t: TestContext) {
  const host = imageHost();
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  const bytes = Uint8Array.from({ length: SECTORS * SECTOR }, (_, at) => (at * 7) ^ (at >>> 9));
  writeFileSync(path, bytes);
  const ring = new PlayedRing(host);
  const store = new UringImage(host, ring, path, { readOnly: false });
  t.after(() => {
    store.drain();
    store.close();
    rmSync(folder, { recursive: true });
  });
  const memory = memoryOf(host, 2 ** 17);
  const results: StoreResult[] = [];
  const request = { finish: (result: StoreResult) => results.push(result) };
  const sector = new Segments();
  sector.push(memory, 0, SECTOR);
  return { host, path, bytes, ring, store, memory, results, request, sector };
}

const step = fc.record({
  slot: fc.nat(SECTORS / EACH - 1),
  sectors: fc.integer({ min: 1, max: EACH }),
  isWrite: fc.boolean(),
  cuts: fc.array(fc.integer({ min: 1, max: 1500 }), { maxLength: 6 }),
  choice: fc.nat(63),
  ending: fc.constantFrom('whole', 'short', 'interrupted', 'again', 'failed'),
});

test(
  'R3: any order of short, interrupted and failed ends gives each request its own data, once',
  native,
  (t) => {
    const { ring, store, memory, bytes, path } = open(t);
    const run = fc.property(fc.array(step, { maxLength: 60 }), (script) => {
      const busy = new Map<number, { failed: boolean }>();
      for (const [index, { slot, sectors, isWrite, cuts, choice, ending }] of script.entries()) {
        if (ring.work.length > 0 && index % 2 === 1) {
          if (ending === 'whole') ring.end(choice);
          else if (ending === 'short') ring.end(choice, undefined, 300);
          else if (ending === 'interrupted') ring.end(choice, -EINTR);
          else if (ending === 'again') ring.end(choice, -EAGAIN);
          else ring.end(choice, -EIO);
          continue;
        }
        if (busy.has(slot)) continue;
        const state = { failed: false };
        busy.set(slot, state);
        const [offset, length] = [slot * EACH * SECTOR, sectors * SECTOR];
        const segments = new Segments();
        for (let left = length, at = slot * ROOM; left > 0; ) {
          const piece = Math.min(cuts[segments.count] ?? left, left);
          segments.push(memory, at, piece);
          at += piece + 1;
          left -= piece;
        }
        const data = new Uint8Array(length).fill(index);
        if (isWrite) segments.copyFrom(data, 0);
        const finish = (result: StoreResult) => {
          assert.ok(busy.delete(slot), 'a request is finished once');
          const end = offset + length;
          if (isWrite && result !== 'ok') bytes.set(readFileSync(path).subarray(offset, end), offset);
          else if (isWrite) bytes.set(data, offset);
          else if (result === 'ok') {
            segments.copyTo(data, 0, length);
            assert.deepEqual(data, bytes.slice(offset, end));
          }
        };
        assert.equal(store[isWrite ? 'write' : 'read'](offset, segments, { finish }), 'later');
      }
      store.drain();
      assert.equal(busy.size, 0);
      assert.ok(readFileSync(path).equals(bytes));
    });
    fc.assert(run, { seed: 33, numRuns: 60 });
  },
);

test('R1: what fails, fails with the reason; interrupted for ever is an error', native, (t) => {
  const { ring, store, results, request, sector } = open(t);
  for (const errno of [ENOSPC, EIO, EINVAL]) {
    store.write(0, sector, request);
    ring.end(0, -errno);
  }
  store.write(0, sector, request);
  ring.end(0, 0);
  assert.deepEqual(results, ['ENOSPC', 'EIO', 'EIO', 'EIO']);
  store.read(0, sector, request);
  for (let tries = 0; results.length < 5 && tries < 100_000; tries++) ring.end(0, -EAGAIN);
  assert.equal(results[4], 'EIO');
});

test('R1: what the kernel cannot move to its memory is moved at once, all of it', native, (t) => {
  const { ring, store, results, request, memory, path, bytes } = open(t);
  const sectors = new Segments();
  sectors.push(memory, 0, 4 * SECTOR);
  store.read(SECTOR, sectors, request);
  ring.end(0, undefined, SECTOR);
  ring.end(0, -EFAULT);
  assert.deepEqual(memory.u8.slice(0, 4 * SECTOR), bytes.slice(SECTOR, 5 * SECTOR));
  memory.u8.fill(0x3e);
  store.write(SECTOR, sectors, request);
  ring.end(0, -EFAULT);
  bytes.fill(0x3e, SECTOR, 5 * SECTOR);
  assert.ok(readFileSync(path).equals(bytes));
  assert.deepEqual([results, ring.work.length], [['ok', 'ok'], 0]);
});

test('R5: a read that finds the end of the file fails, and so does every flush from then on', native, (t) => {
  const { ring, store, results, request, sector } = open(t);
  store.read(0, sector, request);
  ring.end(0, 0);
  assert.deepEqual(results, ['EIO']);
  assert.equal(store.flush(request), 'EIO');
});

test('C8: one flush at a time; who asks meanwhile is answered by the next', native, (t) => {
  const { ring, store, results, request } = open(t);
  const names: string[] = [];
  const named = (name: string) => ({ finish: (result: StoreResult) => names.push(`${name} ${result}`) });
  store.flush(named('a'));
  store.flush(named('b'));
  store.flush(named('c'));
  assert.equal(ring.work.length, 1);
  ring.end(0, -EINTR);
  ring.end();
  assert.deepEqual(names, ['a ok']);
  assert.equal(ring.work.length, 1);
  store.flush(named('d'));
  ring.end();
  ring.end();
  assert.deepEqual(names, ['a ok', 'b ok', 'c ok', 'd ok']);
  store.flush(request);
  assert.deepEqual([ring.work.length, results.length], [1, 0]);
});

test('C8: a flush that failed fails all that wait, and every later one', native, (t) => {
  const { ring, store, results, request } = open(t);
  for (let each = 0; each < 3; each++) assert.equal(store.flush(request), 'later');
  ring.end(0, -EIO);
  assert.deepEqual(results, ['EIO', 'EIO', 'EIO']);
  assert.equal(ring.work.length, 0);
  assert.equal(store.flush(request), 'EIO');
});

test('C8: a flush that is asked for by the answer of another is a flush of its own', native, (t) => {
  const { ring, store } = open(t);
  const names: string[] = [];
  store.flush({
    finish: () => {
      names.push('first');
      store.flush({ finish: () => names.push('inner') });
    },
  });
  store.flush({ finish: () => names.push('second') });
  ring.end();
  assert.equal(ring.work.length, 1);
  store.drain();
  assert.deepEqual(names, ['first', 'second', 'inner']);
});

test('zeroes try a hole, then zeroing, then writing; what the host lacks is not tried again', native, (t) => {
  const { ring, store, results, request, path, bytes } = open(t);
  const [PUNCH, ZERO] = [3, 0x11];
  assert.equal(store.writeZeroes(0, SECTOR, true, request), 'later');
  ring.end(0, -EAGAIN);
  ring.end(0, -EINVAL);
  ring.end(0, -EOPNOTSUPP);
  assert.deepEqual(
    ring.allocations.map(([mode]) => mode),
    [PUNCH, PUNCH, ZERO],
  );
  assert.deepEqual(results, ['ok']);
  bytes.fill(0, 0, SECTOR);
  assert.ok(readFileSync(path).equals(bytes));
  assert.equal(store.writeZeroes(SECTOR, SECTOR, false, request), 'ok', 'written at once');
  assert.equal(store.writeZeroes(2 * SECTOR, SECTOR, true, request), 'later');
  ring.end(0, -ENOSPC);
  assert.equal(store.discard(0, SECTOR, request), 'later');
  ring.end(0, -EOPNOTSUPP);
  assert.deepEqual(results, ['ok', 'ENOSPC', 'ok']);
  assert.equal(store.discard(0, SECTOR, request), 'ok');
  bytes.fill(0, SECTOR, 2 * SECTOR);
  assert.ok(readFileSync(path).equals(bytes));
});

test('T11: an image is not closed while the host has something under way', native, (t) => {
  const { store, request, sector } = open(t);
  store.read(0, sector, request);
  assert.throws(() => store.close(), /nothing is under way/);
});

test('direct I/O of many requests at once, on a real ring: each gets its own data', uring, (t) => {
  const host = imageHost();
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  const bytes = Uint8Array.from({ length: 2 ** 20 }, (_, at) => (at * 13) ^ (at >>> 12));
  writeFileSync(path, bytes);
  const ring = new IoUring(host.libc, host.arena);
  const store = new UringImage(host, ring, path, { readOnly: false, direct: true });
  t.after(() => {
    store.close();
    ring.close();
    rmSync(folder, { recursive: true });
  });
  const memory = memoryOf(host, 2 ** 20);
  let finished = 0;
  const finish = (result: StoreResult) => {
    assert.equal(result, 'ok');
    finished++;
  };
  const at = (index: number, length: number) => {
    const segments = new Segments();
    segments.push(memory, index * 4096, length);
    return segments;
  };
  for (let round = 0; round < 4; round++) {
    finished = 0;
    memory.u8.fill(round);
    for (let block = 0; block < 256; block++)
      if (block % 4 === round) store.write(block * 4096, at(block, 4096), { finish });
    store.drain();
    store.flush({ finish });
    store.drain();
    assert.equal(finished, 65);
    for (let block = 0; block < 256; block++)
      if (block % 4 === round) bytes.fill(round, block * 4096, block * 4096 + 4096);
    for (let block = 0; block < 256; block++) store.read(block * 4096, at(block, 4096), { finish });
    store.drain();
    assert.ok(Buffer.from(memory.u8.buffer, 0, 2 ** 20).equals(bytes));
  }
});
