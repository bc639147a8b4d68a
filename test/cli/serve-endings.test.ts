// How `grantio serve` ends, and what it outlives: signals under load, guests that take their memory away, and processes
// that are killed. With a guest whose requests are written by hand (test/support/vhost-guest.test.helper.ts).

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { VIRTIO_BLK_T_OUT } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { type Running, startServe, temporaryFolder } from '../support/grantio.ts';
import { writeImage } from '../support/vhost-backend.test.helper.ts';
import { VhostFrontend } from '../support/vhost-frontend.test.helper.ts';
import { DiskGuest } from '../support/vhost-guest.test.helper.ts';
import { offeredFeatures } from '../support/vhost.ts';

const BLOCK = 4096;
/** Requests that the guest has under way: three descriptors each, of 64. */
const HEADS = Array.from({ length: 16 }, (_, i) => i * 4);

interface Served {
  readonly folder: string;
  readonly socket: string;
  readonly running: Running;
}

/** Serves a disk of a folder of its own. */
async function serveDisk(t: TestContext, ...more: string[]): Promise<Served> {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const socket = join(folder, 'disk.sock');
  const running = startServe(t, ['blk', '--disk', 'disk.img', '--socket-path', socket, ...more], {
    cwd: folder,
  });
  await running.says(/served at/);
  return { folder, socket, running };
}

/** A guest that has begun; it goes with the test at the latest. */
function guestAt(t: TestContext, socket: string, sealed = true): DiskGuest {
  const frontend = new VhostFrontend(socket);
  t.after(() => frontend.close());
  return new DiskGuest(frontend, { sealed }).begin();
}

/** Has one block written by each head: block i of what is free of them is full of the number i. */
function writeBlocks(guest: DiskGuest, from: number): void {
  for (const [i, head] of HEADS.entries()) {
    guest.memory.u8.fill(from + i, guest.dataAt(head), guest.dataAt(head) + BLOCK);
    guest.request(head, VIRTIO_BLK_T_OUT, ((from + i) * BLOCK) / 512, BLOCK);
  }
  guest.kick();
}

for (const signal of ['SIGTERM', 'SIGINT'] as const)
  test(
    `C9: ${signal} under load: what was acknowledged is in the image, and the end is in order`,
    native,
    async (t) => {
      const { folder, socket, running } = await serveDisk(t);
      const guest = guestAt(t, socket);
      for (let batch = 0; batch < 8; batch++) {
        writeBlocks(guest, batch * HEADS.length);
        guest.reported(HEADS.length);
      }
      writeBlocks(guest, 8 * HEADS.length);
      running.signal(signal);
      guest.frontend.isClosed();
      const { status, stderr } = await running.ended;
      assert.equal(status, 0, stderr);
      assert.deepEqual(readdirSync(folder), ['disk.img']);
      const disk = readFileSync(join(folder, 'disk.img'));
      const last = HEADS.flatMap((head, i) => (guest.status(head) === 0 ? [8 * HEADS.length + i] : []));
      for (const block of [...Array(8 * HEADS.length).keys(), ...last]) {
        const written = disk.subarray(block * BLOCK, (block + 1) * BLOCK);
        assert.ok(
          written.every((byte) => byte === block),
          `block ${block} was acknowledged and is not in the image`,
        );
      }
      guest.close();
    },
  );

test('a process with several devices takes no memory that can shrink', native, async (t) => {
  const folder = temporaryFolder(t);
  writeImage(join(folder, 'disk.img'));
  const devices = [
    { type: 'blk', disk: 'disk.img', 'socket-path': 'disk.sock' },
    { type: 'rng', 'socket-path': 'rng.sock' },
  ];
  writeFileSync(join(folder, 'devices.json'), JSON.stringify({ devices }));
  const running = startServe(t, ['--config', 'devices.json'], { cwd: folder });
  await running.says(/rng: served at/);
  const unsealed = guestAt(t, join(folder, 'disk.sock'), false);
  await running.says(/blk: closed the connection: .*can shrink.*seal=on/s);
  unsealed.close();
  const sealed = guestAt(t, join(folder, 'disk.sock'));
  assert.equal(sealed.write(0, new Uint8Array(512)), 0);
  sealed.close();
});

test('--own-process: a guest that takes its memory away ends its device for a moment', native, async (t) => {
  const { socket, running } = await serveDisk(t, '--own-process');
  const guest = guestAt(t, socket, false);
  assert.equal(guest.write(0, new Uint8Array(512)), 0);
  guest.frontend.libc.ftruncate(guest.memory.fd, 0);
  guest.kick();
  await running.says(/blk: its process has ended \(SIGBUS\); another one starts/);
  // The socket was never away: who connects is served when the new process is there.
  const next = guestAt(t, socket, false);
  assert.equal(next.write(0, new Uint8Array(512)), 0);
  next.close();
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
});

test('--own-process: a killed process of a device leaves its neighbours alone', native, async (t) => {
  const folder = temporaryFolder(t);
  const devices = ['one', 'two'].map((name) => ({ type: 'rng', name, 'socket-path': `${name}.sock` }));
  writeFileSync(join(folder, 'devices.json'), JSON.stringify({ devices }));
  const words = ['--config', 'devices.json', '--own-process'];
  const running = startServe(t, words, { cwd: folder });
  await running.says(/two: served at/);
  const processes = () =>
    [...running.stderr.matchAll(/(\w+): its process is (\d+)/g)].map(([, name, id]) => [name, id]);
  const [[, one], [, two]] = processes();
  process.kill(Number(one), 'SIGKILL');
  await running.says(/one: its process has ended \(SIGKILL\)/);
  for (const name of ['one', 'two']) assert.ok((await offeredFeatures(join(folder, `${name}.sock`))) > 0n);
  assert.ok(process.kill(Number(two), 0), 'the neighbour is still the same process');
  assert.deepEqual(
    processes().map(([name]) => name),
    ['one', 'two', 'one'],
  );
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
  for (const [, id] of processes()) assert.throws(() => process.kill(Number(id), 0), /ESRCH/);
  assert.deepEqual(readdirSync(folder), ['devices.json']);
});

test('--own-process: a device that cannot be served ends the supervisor', native, async (t) => {
  const folder = temporaryFolder(t);
  const words = ['blk', '--disk', 'missing.img', '--socket-path', 'disk.sock', '--own-process'];
  const { status, stderr } = await startServe(t, words, { cwd: folder }).ended;
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^grantio: disk image missing\.img: no such file\ngrantio: 'blk' cannot be served\n$/m,
  );
  assert.deepEqual(readdirSync(folder), []);
});

test('--own-process: the processes of devices end with a supervisor that is killed', native, async (t) => {
  const { socket, running } = await serveDisk(t, '--own-process');
  const guest = guestAt(t, socket);
  assert.equal(guest.write(0, new Uint8Array(512)), 0);
  running.signal('SIGKILL');
  assert.ok(guest.frontend.isClosed());
  guest.close();
});
