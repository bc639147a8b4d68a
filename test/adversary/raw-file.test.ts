// R1 R3 R5 A raw image on a host that runs out of space, interrupts, moves less than it was asked for, or
// loses the end of the file: requests fail or are finished, other data are intact, and the disk goes on.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs, { mkdtempSync, rmdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { regionOver } from '../../src/abi/region.ts';
import * as blk from '../../src/abi/virtio-blk.ts';
import { Segments } from '../../src/memory/segments.ts';
import { RawFile } from '../../src/storage/raw-file.ts';
import { RawDisk, range } from '../support/raw-disk.test.helper.ts';
import { DISK_SIZE, diskBytes, Scene } from '../support/scene.test.helper.ts';

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;
const IN = blk.VIRTIO_BLK_T_IN;
const OUT = blk.VIRTIO_BLK_T_OUT;

/** A disk on an image file, served to a driver that the test plays. */
function serveFile(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  const bytes = diskBytes(DISK_SIZE, 0x3d);
  writeFileSync(path, bytes);
  const store = new RawFile(path, false);
  t.after(() => {
    store.close();
    rmSync(folder, { recursive: true });
  });
  const scene = new Scene({ store });
  return { scene, path, bytes, disk: new RawDisk(scene) };
}

/** An image without a device, which can be opened once more. */
function openFile(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const path = join(folder, 'disk.img');
  writeFileSync(path, diskBytes(DISK_SIZE, 0x3e));
  const opened: RawFile[] = [];
  t.after(() => {
    for (const store of opened) store.close();
    rmSync(folder, { recursive: true });
  });
  const again = () => {
    const store = new RawFile(path, false);
    opened.push(store);
    return store;
  };
  return { store: again(), path, again };
}

/** The image as it is, read by other calls than those that are faked here. */
async function contents(path: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(path));
}

/** Mounts a file system of so many KiB, where the machine lets us. */
function mountTiny(folder: string, kib: number): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kib}k`, 'none', folder], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** One of the system calls of raw-file.ts, which takes what there is to move and where to. */
type Call = (...args: never[]) => number;

/** Has `call` of node:fs answered by `fake`, which is given the real one, until the test is over. */
function fakeCall(
  t: TestContext,
  call: 'readSync' | 'readvSync' | 'writeSync' | 'writevSync' | 'fdatasyncSync',
  fake: (real: Call, args: never[]) => number,
): void {
  const real = fs[call] as Call;
  t.mock.method(fs, call, (...args: never[]) => fake(real, args));
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
}

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made up`), { code });
}

/** Has every reading and writing call fail with `code` as long as `failing()` says so. */
function failWith(t: TestContext, code: string, failing: () => boolean): void {
  for (const call of ['readSync', 'readvSync', 'writeSync', 'writevSync'] as const)
    fakeCall(t, call, (real, args) => {
      if (failing()) throw systemError(code);
      return real(...args);
    });
}

test('R5 an image that was truncated under us: reads past its end fail, others go on', async (t) => {
  const { scene, path, bytes, disk } = serveFile(t);
  truncateSync(path, 10 * 512 + 100);
  assert.equal(disk.ask(IN, 9, undefined, 512).status, OK);
  assert.equal(disk.ask(IN, 10, undefined, 512).status, IOERR, 'half of it is there');
  assert.equal(disk.ask(IN, 11, undefined, 512).status, IOERR);
  assert.equal(disk.ask(IN, 8, undefined, 4096).status, IOERR);
  const head = disk.ask(IN, 0, undefined, 512);
  assert.equal(head.status, OK);
  assert.deepEqual(head.data, bytes.slice(0, 512));
  truncateSync(path, 0);
  assert.equal(disk.ask(IN, 0, undefined, 512).status, IOERR);
  assert.equal(
    disk.ask(OUT, 0, new Uint8Array(512).fill(1)).status,
    OK,
    'a write makes the file longer again',
  );
  assert.equal(disk.ask(IN, 0, undefined, 512).status, OK);
  await scene.finish();
});

for (const code of ['ENOSPC', 'EDQUOT', 'EIO', 'EBADF', 'ENXIO']) {
  test(`R1 ${code} is an I/O error of that request; existing data are intact and the disk goes on`, async (t) => {
    const { scene, path, bytes, disk } = serveFile(t);
    let failing = true;
    failWith(t, code, () => failing);
    assert.equal(disk.ask(OUT, 4, new Uint8Array(1024).fill(9)).status, IOERR);
    assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(8, 4)).status, IOERR);
    assert.equal(disk.ask(IN, 4, undefined, 512).status, IOERR);
    assert.deepEqual(await contents(path), bytes);
    failing = false;
    assert.equal(disk.ask(OUT, 4, new Uint8Array(1024).fill(9)).status, OK);
    bytes.fill(9, 4 * 512, 6 * 512);
    assert.deepEqual(await contents(path), bytes);
    await scene.finish();
  });
}

test('R1 a file system that is really full: those writes fail, what is on the disk stays', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  const mounted = mountTiny(folder, 64);
  let store: RawFile | undefined;
  t.after(() => {
    store?.close();
    if (mounted) execFileSync('umount', [folder]);
    rmdirSync(folder);
  });
  if (!mounted) return t.skip('no tmpfs can be mounted here');
  const path = join(folder, 'sparse.img');
  writeFileSync(path, '');
  truncateSync(path, 2 ** 20);
  store = new RawFile(path, false);
  const scene = new Scene({ store });
  const disk = new RawDisk(scene);
  const statuses: number[] = [];
  for (let page = 0; page < 32; page++)
    statuses.push(disk.ask(OUT, page * 8, new Uint8Array(4096).fill(page + 1)).status);
  const full = statuses.indexOf(IOERR);
  assert.ok(full > 0 && full < 32, `full after ${full} pages`);
  assert.ok(statuses.slice(full).every((status) => status === IOERR));
  for (let page = 0; page < full; page++)
    assert.deepEqual(disk.ask(IN, page * 8, undefined, 512).data, new Uint8Array(512).fill(page + 1));
  assert.equal(
    disk.ask(OUT, 0, new Uint8Array(512).fill(99)).status,
    OK,
    'there is room where there was data',
  );
  await scene.finish();
});

test('R1 ENOSPC half way through a write leaves all other sectors as they were', async (t) => {
  const { scene, path, bytes, disk } = serveFile(t);
  let room = 700;
  fakeCall(t, 'writeSync', (real, args) => {
    if (room === 0) throw systemError('ENOSPC');
    const [fd, data, from, length, position] = args as unknown as [
      number,
      Uint8Array,
      number,
      number,
      number,
    ];
    const piece = Math.min(length, room);
    room -= piece;
    return real(...([fd, data, from, piece, position] as never[]));
  });
  assert.equal(disk.ask(OUT, 2, new Uint8Array(2048).fill(7)).status, IOERR);
  const after = await contents(path);
  assert.deepEqual(after.slice(0, 1024), bytes.slice(0, 1024));
  assert.deepEqual(after.slice(6 * 512), bytes.slice(6 * 512));
  await scene.finish();
});

test('R5 an image that was truncated under us: a flush fails until the image is opened again, also when it has grown', (t) => {
  for (const notice of ['by the flush', 'by a read']) {
    const { store, path, again } = openFile(t);
    truncateSync(path, 512);
    const memory = regionOver(new ArrayBuffer(512));
    const one = new Segments();
    one.push(memory, 0, 512);
    if (notice === 'by the flush') assert.equal(store.flush(), 'EIO');
    else assert.equal(store.read(1024, one), 'EIO');
    assert.equal(store.write(DISK_SIZE - 512, one), 'ok', 'the hole would read as zeroes');
    assert.equal(store.flush(), 'EIO', notice);
    assert.equal(again().flush(), 'ok');
  }
});

for (const code of ['EINTR', 'EAGAIN']) {
  test(`R3 ${code} for ever is an error of the request in the end`, async (t) => {
    const { scene, disk } = serveFile(t);
    failWith(t, code, () => true);
    assert.equal(disk.ask(IN, 3, undefined, 1024).status, IOERR);
    assert.equal(disk.ask(OUT, 3, new Uint8Array(512)).status, IOERR);
    await scene.finish();
  });

  test(`R3 ${code} is tried again until the call gets through`, async (t) => {
    const { scene, path, bytes, disk } = serveFile(t);
    let calls = 0;
    failWith(t, code, () => ++calls % 4 !== 0);
    assert.deepEqual(disk.ask(IN, 3, undefined, 1024).data, bytes.slice(3 * 512, 5 * 512));
    assert.equal(disk.ask(OUT, 3, new Uint8Array(512).fill(8)).status, OK);
    assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(20, 1)).status, OK);
    bytes.fill(8, 3 * 512, 4 * 512).fill(0, 20 * 512, 21 * 512);
    assert.deepEqual(await contents(path), bytes);
    assert.ok(calls >= 12);
    await scene.finish();
  });
}

test('R3 calls that move nothing at all are an error, not an endless loop', async (t) => {
  const { scene, disk } = serveFile(t);
  let calls = 0;
  for (const call of ['readSync', 'readvSync', 'writeSync', 'writevSync'] as const)
    fakeCall(t, call, () => {
      if (++calls > 100) throw systemError('EPROTO');
      return 0;
    });
  assert.equal(disk.ask(IN, 0, undefined, 512).status, IOERR);
  assert.equal(disk.ask(OUT, 0, new Uint8Array(512)).status, IOERR);
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(0, 1)).status, IOERR);
  assert.equal(calls, 3);
  await scene.finish();
});

for (const most of [1, 100, 511, 513]) {
  test(`R3 calls that move ${most} bytes at most are made until everything is moved`, async (t) => {
    const { scene, path, bytes, disk } = serveFile(t);
    for (const call of ['readSync', 'writeSync'] as const)
      fakeCall(t, call, (real, args) => {
        const [fd, data, from, length, position] = args as unknown as [
          number,
          Uint8Array,
          number,
          number,
          number,
        ];
        return real(...([fd, data, from, Math.min(length, most), position] as never[]));
      });
    assert.deepEqual(disk.ask(IN, 1, undefined, 1024).data, bytes.slice(512, 3 * 512));
    const data = diskBytes(1024, 0x10);
    assert.equal(disk.ask(OUT, 30, data).status, OK);
    assert.equal(disk.ask(blk.VIRTIO_BLK_T_WRITE_ZEROES, 0, range(40, 3)).status, OK);
    bytes.set(data, 30 * 512);
    bytes.fill(0, 40 * 512, 43 * 512);
    assert.deepEqual(await contents(path), bytes);
    await scene.finish();
  });
}

test('R3 a vectored call that stops anywhere is finished piece by piece', async (t) => {
  const { scene, path, bytes } = serveFile(t);
  for (const call of ['readvSync', 'writevSync'] as const) {
    let stop = 0;
    fakeCall(t, call, (real, args) => {
      const [fd, pieces, position] = args as unknown as [number, Uint8Array[], number];
      // Everything up to a byte that moves on from call to call.
      const cut: Uint8Array[] = [];
      stop += 37;
      let left = stop;
      for (const piece of pieces) {
        if (left > 0) cut.push(piece.subarray(0, left));
        left -= piece.length;
      }
      return real(...([fd, cut, position] as never[]));
    });
  }
  const queue = scene.driver.start(16);
  const request = scene.driver.share(2);
  const data = scene.driver.share(3);
  const lengths = [1, 200, 511, 312];
  for (let round = 0; round < 40; round++) {
    const write = round % 2 === 1;
    const sector = round;
    request.bytes.set(blk.virtioBlkRequestHeader.make({ type: write ? OUT : IN, sector }).bytes);
    data.bytes.fill(round);
    let at = 50;
    const pieces = lengths.map((length) => {
      const buffer = { at: { low: data.low + at, high: data.high }, length, writable: !write };
      at += length + 90;
      return buffer;
    });
    const status = { at: { low: request.low + 100, high: request.high }, length: 1, writable: true };
    scene.driver.chain(queue, 0, [{ at: request, length: 16 }, ...pieces, status]);
    scene.driver.submit(queue, 0);
    assert.equal(request.bytes[100], OK);
    if (write) bytes.fill(round, sector * 512, (sector + 2) * 512);
    else {
      const got = pieces.flatMap(({ at: place, length }) => [
        ...data.bytes.subarray(place.low - data.low, place.low - data.low + length),
      ]);
      assert.deepEqual(Uint8Array.from(got), bytes.slice(sector * 512, (sector + 2) * 512));
    }
  }
  assert.deepEqual(await contents(path), bytes);
  await scene.finish();
});

test('R1 a flush that failed once fails for good: what was written before may be lost', async (t) => {
  const { scene, disk } = serveFile(t);
  let failing = false;
  fakeCall(t, 'fdatasyncSync', (real, args) => {
    if (failing) throw systemError('EIO');
    return real(...args);
  });
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_FLUSH, 0).status, OK);
  failing = true;
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_FLUSH, 0).status, IOERR);
  failing = false;
  assert.equal(disk.ask(blk.VIRTIO_BLK_T_FLUSH, 0).status, IOERR);
  assert.equal(disk.ask(IN, 0, undefined, 512).status, OK, 'reads go on');
  await scene.finish();
});

test('R1 after a failed flush a driver that cannot flush is told with each write, until the image is opened again', async (t) => {
  const { store, again } = openFile(t);
  let failing = true;
  fakeCall(t, 'fdatasyncSync', (real, args) => {
    if (failing) throw systemError('EIO');
    return real(...args);
  });
  const ask = async (image: RawFile) => {
    const scene = new Scene({ store: image });
    const { status } = new RawDisk(scene, blk.VIRTIO_BLK_F_FLUSH).ask(OUT, 0, new Uint8Array(512));
    await scene.finish();
    return status;
  };
  assert.equal(await ask(store), IOERR);
  failing = false;
  assert.equal(await ask(store), IOERR);
  assert.equal(await ask(again()), OK);
});

test('a mistake of ours is no I/O error of the guest', (t) => {
  const { store } = openFile(t);
  const beyond = new Segments();
  beyond.push(regionOver(new ArrayBuffer(512)), 0, 1024);
  for (const call of [() => store.read(0, beyond), () => store.write(0, beyond)])
    assert.throws(call, { code: 'ERR_OUT_OF_RANGE' });
});
