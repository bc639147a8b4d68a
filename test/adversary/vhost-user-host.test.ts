// What goes wrong under a served disk: the guest's memory goes away, the image becomes shorter, cannot grow or may not
// be written, and the process is told to end under load.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, truncateSync } from 'node:fs';
import { test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import * as blk from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { DISK_BYTES, firstByte, TestBackend } from '../support/vhost-backend.test.helper.ts';
import { BUFFERS, DiskGuest } from '../support/vhost-guest.test.helper.ts';
import { DiskProgram } from '../support/vhost-program.test.helper.ts';

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK, VIRTIO_BLK_S_UNSUPP: UNSUPP } = blk;
const { VIRTIO_BLK_T_IN: IN, VIRTIO_BLK_T_OUT: OUT, VIRTIO_BLK_T_FLUSH: FLUSH } = blk;
const SECTORS = DISK_BYTES / 512;

test(
  'R7: memory that is truncated ends the process of its own guest, and no other process; the image is intact',
  native,
  async (t) => {
    const [program, other] = [new DiskProgram(t), new DiskProgram(t)];
    await Promise.all([program.start(), other.start()]);
    const guest = new DiskGuest(program.connect(), { sealed: false }).begin();
    const neighbour = new DiskGuest(other.connect()).begin();
    assert.equal(guest.write(3, new Uint8Array(512).fill(0x77)), OK);
    guest.frontend.libc.ftruncate(guest.memory.fd, 0);
    guest.kick();
    const { status, signal } = await program.running.ended;
    assert.deepEqual([status, signal], [null, 'SIGBUS']);
    assert.equal(neighbour.read(4)[0], firstByte(4));
    assert.equal(readFileSync(program.image)[3 * 512], 0x77);
    await program.start();
    assert.equal(new DiskGuest(program.connect()).begin().read(3)[0], 0x77);
  },
);

test(
  'R5: an image that is truncated: reads past its end and flushes fail from then on, until it is opened again',
  native,
  async (t) => {
    const program = new DiskProgram(t);
    await program.start();
    const guest = new DiskGuest(program.connect()).begin();
    assert.equal(guest.ask(FLUSH, 0, 0), OK);
    truncateSync(program.image, 8 * 512);
    assert.equal(guest.ask(IN, 7, 512), OK);
    assert.equal(guest.ask(IN, 8, 512), IOERR);
    assert.equal(guest.ask(IN, 7, 1024), IOERR, 'half of it is there');
    assert.equal(guest.ask(FLUSH, 0, 0), IOERR);
    assert.equal(guest.write(SECTORS - 1, new Uint8Array(512)), OK, 'the image has its length again');
    assert.equal(guest.ask(FLUSH, 0, 0), IOERR, 'and yet nobody can vouch for it');
    guest.frontend.reconnect(program.socket);
    for (const [request, payload, fds] of guest.beginning().slice(0, 4))
      guest.frontend.send(request, payload, fds);
    for (const [request, payload, fds] of guest.ringMessages(0, guest.rings[0], guest.rings[0].used.index))
      guest.frontend.send(request, payload, fds);
    assert.equal(guest.ask(FLUSH, 0, 0), IOERR, 'nor for another frontend');
  },
);

test(
  'R1 R3: writes behind what the process may write fail, short ones as well; all other sectors are intact',
  native,
  async (t) => {
    const program = new DiskProgram(t);
    const half = DISK_BYTES / 2;
    await program.start([], ['prlimit', `--fsize=${half}`]);
    const before = readFileSync(program.image);
    const guest = new DiskGuest(program.connect()).begin();
    const data = new Uint8Array(4096).fill(0x99);
    assert.equal(guest.write(half / 512 - 8, data), OK);
    assert.equal(guest.write(half / 512, data), IOERR);
    assert.equal(guest.write(half / 512 - 4, data), IOERR, 'half of it can be written');
    assert.equal(guest.read(SECTORS - 1)[0], firstByte(SECTORS - 1));
    assert.equal(guest.write(0, data), OK, 'it goes on');
    before.fill(0x99, half - 4096, half).fill(0x99, 0, 4096);
    assert.deepEqual(readFileSync(program.image), before);
  },
);

test('D2: a disk that may only be read writes nothing', native, async (t) => {
  const backend = await TestBackend.start(t, { readOnly: true });
  const before = readFileSync(backend.imageOf(0));
  const guest = backend.guest(t);
  assert.equal(guest.write(0, new Uint8Array(512)), IOERR);
  const zeroes = blk.virtioBlkRange.make({ sector: 0, num_sectors: 8, flags: 0 }).bytes;
  for (const type of [blk.VIRTIO_BLK_T_WRITE_ZEROES, blk.VIRTIO_BLK_T_DISCARD]) {
    guest.memory.u8.set(zeroes, guest.dataAt(0));
    assert.equal(guest.ask(type, 0, zeroes.length), IOERR);
  }
  assert.equal(guest.read(1)[0], firstByte(1));
  assert.deepEqual(readFileSync(backend.imageOf(0)), before);
});

test(
  'D2 D3: requests that make no sense fail or are not supported, and the disk is unchanged',
  native,
  async (t) => {
    const backend = await TestBackend.start(t);
    const before = readFileSync(backend.imageOf(0));
    const guest = backend.guest(t);
    assert.equal(guest.ask(IN, 0, 100), IOERR, 'no whole sector');
    assert.equal(guest.ask(IN, SECTORS, 512), IOERR, 'behind the end');
    assert.equal(guest.ask(IN, SECTORS - 1, 1024), IOERR, 'across the end');
    assert.equal(guest.ask(OUT, Number.MAX_SAFE_INTEGER, 512), IOERR);
    assert.equal(guest.ask(77, 0, 512), UNSUPP);
    for (const [type, range, status] of [
      [blk.VIRTIO_BLK_T_DISCARD, { sector: 0, num_sectors: 1, flags: 1 }, UNSUPP],
      [blk.VIRTIO_BLK_T_WRITE_ZEROES, { sector: 0, num_sectors: 1, flags: 2 }, UNSUPP],
      [blk.VIRTIO_BLK_T_WRITE_ZEROES, { sector: SECTORS - 1, num_sectors: 2, flags: 0 }, IOERR],
      [blk.VIRTIO_BLK_T_WRITE_ZEROES, { sector: 0, num_sectors: 0xffff_ffff, flags: 0 }, IOERR],
    ] as const) {
      const { bytes } = blk.virtioBlkRange.make(range);
      guest.memory.u8.set(bytes, guest.dataAt(0));
      assert.equal(guest.ask(type, 0, bytes.length), status);
    }
    // The status is in a descriptor that may only be read: there is no room for it.
    guest.rings[0].chain(0, [
      [BUFFERS, 16, false],
      [BUFFERS + 0x1000, 1, false],
    ]);
    guest.rings[0].publish(0);
    guest.kick();
    assert.match((await backend.says(/has stopped/)).message, /without room for its status/);
    assert.deepEqual(readFileSync(backend.imageOf(0)), before);
  },
);

test(
  'C9: told to end under load, it ends with status 0, and the image has all that was reported',
  native,
  async (t) => {
    const program = new DiskProgram(t);
    await program.start();
    const guest = new DiskGuest(program.connect()).begin();
    const expected = readFileSync(program.image);
    const under = new Map<number, number>();
    const done = new Map<number, number>();
    let made = 0;
    const turn = (): void => {
      for (const head of guest.newlyReported()) {
        done.set(under.get(head)!, guest.status(head));
        under.delete(head);
      }
      for (let head = 0; head < 64 && made < SECTORS; head += 4) {
        if (under.has(head)) continue;
        guest.memory.u8.fill(0xa5, guest.dataAt(head), guest.dataAt(head) + 512);
        under.set(head, made);
        guest.request(head, OUT, made++, 512);
      }
      guest.kick();
    };
    while (done.size < 300) turn();
    program.running.signal('SIGTERM');
    while (guest.frontend.send(user.VHOST_USER_SET_OWNER)) turn();
    const { status, signal } = await program.running.ended;
    assert.deepEqual([status, signal], [0, null]);
    turn();
    const image = readFileSync(program.image);
    for (const [sector, answer] of done) {
      assert.equal(answer, OK);
      expected.fill(0xa5, sector * 512, (sector + 1) * 512);
    }
    // A request that was not reported may be done or not.
    for (let sector = 0; sector < SECTORS; sector++)
      assert.ok(
        image[sector * 512] === expected[sector * 512] || (!done.has(sector) && sector < made),
        `${sector}`,
      );
  },
);

test(
  'with no descriptor left, a frontend waits to be taken, the one that is served goes on, and the log says so once',
  native,
  async (t) => {
    const program = new DiskProgram(t);
    await program.start();
    const guest = new DiskGuest(program.connect()).begin();
    assert.equal(guest.read(3)[0], firstByte(3));
    const limitFiles = (count: number) =>
      execFileSync('prlimit', ['--pid', `${program.running.pid}`, `--nofile=${count}:`]);
    limitFiles(3);
    const next = program.connect();
    await program.running.says(/accept4 failed: EMFILE/);
    assert.equal(guest.read(4)[0], firstByte(4));
    limitFiles(1024);
    guest.close();
    assert.equal(new DiskGuest(next).begin().read(5)[0], firstByte(5));
    assert.equal(program.running.stderr.match(/EMFILE/g)?.length, 1);
  },
);
