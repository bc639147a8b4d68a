// Our block driver on our own backend, through the vhost-user protocol: what works, in whatever way it is offered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as user from '../../abi/vhost-user.ts';
import { virtioBlkConfig } from '../../abi/virtio-blk.ts';
import { VIRTIO_F_RING_RESET, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../abi/virtio.ts';
import { MMIO_INTERRUPT_CONFIG, MMIO_INTERRUPT_VRING } from '../../abi/virtio-mmio.ts';
import { BlkDriver } from '../../drivers/blk.ts';
import { Loopback, QUEUE_SIZE, SECTORS } from './loopback.test.helper.ts';

const OPTIONS = { queues: 4, queueSize: QUEUE_SIZE };

/** A disk that works. */
function start(loopback: Loopback): BlkDriver {
  return new BlkDriver(loopback.deviceOf(loopback.connect()), OPTIONS);
}

/** Reads all of the disk, in requests of `sectors`. */
async function readAll(disk: BlkDriver, sectors = 16): Promise<Uint8Array> {
  const all = new Uint8Array(disk.capacity);
  const length = sectors * 512;
  const buffer = await disk.buffer(length);
  for (let at = 0; at < disk.capacity; at += length) {
    const done = disk.read(at, buffer, length);
    disk.poll();
    await done;
    all.set(buffer.bytes.subarray(0, length), at);
  }
  buffer.release();
  return all;
}

/** Writes a sector of `byte`. */
async function writeSector(disk: BlkDriver, sector: number, byte: number): Promise<void> {
  const buffer = await disk.buffer(512);
  buffer.bytes.fill(byte);
  const done = disk.write(sector * 512, buffer, 512);
  disk.poll();
  await done;
  buffer.release();
}

/** What the backend offers of its protocol features. */
function offer(loopback: Loopback, features: bigint): void {
  loopback.tamper = (said) => {
    if (said.request !== user.VHOST_USER_GET_PROTOCOL_FEATURES) return [said];
    const bytes = said.bytes.slice();
    bytes.set(user.vhostUserU64.make({ value: features }).bytes, user.vhostUserHeader.size);
    return [{ ...said, bytes }];
  };
}

for (const queues of [1, 4])
  for (const cut of [1, 4096])
    test(`T1: a disk of ${queues} queues is read and written, ${cut} bytes at a time`, async () => {
      const loopback = new Loopback(queues);
      loopback.cut = cut;
      const disk = start(loopback);
      assert.equal(disk.capacity, SECTORS * 512);
      assert.deepEqual(await readAll(disk), loopback.disk);
      await writeSector(disk, 3, 0xab);
      assert.ok(loopback.disk.subarray(3 * 512, 4 * 512).every((byte) => byte === 0xab));
      assert.deepEqual(await readAll(disk, 1), loopback.disk);
      assert.equal(disk.close(), true);
      assert.ok(
        loopback.memory.shared.every((byte) => byte === 0),
        'nothing is left in the window',
      );
      loopback.finish();
    });

test('no ring is enabled before the driver is ready, and each is stopped before the device is reset', () => {
  const loopback = new Loopback(2);
  const disk = start(loopback);
  const { asked } = loopback;
  const kicks = asked.lastIndexOf(user.VHOST_USER_SET_VRING_KICK);
  assert.ok(asked.indexOf(user.VHOST_USER_SET_VRING_ENABLE) > kicks, 'enabled last');
  assert.ok(asked.indexOf(user.VHOST_USER_SET_MEM_TABLE) < asked.indexOf(user.VHOST_USER_SET_VRING_ADDR));
  asked.length = 0;
  disk.close();
  assert.deepEqual(asked.slice(0, 3), [
    user.VHOST_USER_GET_VRING_BASE,
    user.VHOST_USER_GET_VRING_BASE,
    user.VHOST_USER_RESET_DEVICE,
  ]);
  loopback.finish();
});

const LEAST = user.VHOST_USER_PROTOCOL_F_CONFIG;
for (const [words, features] of [
  ['its configuration alone', LEAST],
  ['acknowledgements', LEAST | user.VHOST_USER_PROTOCOL_F_REPLY_ACK],
  ['a status', LEAST | user.VHOST_USER_PROTOCOL_F_STATUS],
  ['everything that there is', 0xffff_ffff_ffff_ffffn & ~user.VHOST_USER_PROTOCOL_F_LOG_SHMFD],
] as const)
  test(`a backend that offers ${words} is used`, async () => {
    const loopback = new Loopback();
    offer(loopback, features);
    const disk = start(loopback);
    assert.deepEqual(await readAll(disk), loopback.disk);
    disk.close();
    loopback.finish();
  });

test('a driver does not see what is not its business, and no more queues than there are', () => {
  const loopback = new Loopback(3);
  const frontend = loopback.connect();
  const hidden = user.VHOST_USER_F_PROTOCOL_FEATURES | user.VHOST_F_LOG_ALL | VIRTIO_F_RING_RESET;
  assert.equal(frontend.readFeatures() & hidden, 0n);
  assert.equal(frontend.resetQueue(), false);
  assert.deepEqual(
    [0, 2, 3, 0xffff].map((index) => frontend.queueSizeMax(index) > 0),
    [true, true, false, false],
  );
  assert.equal(frontend.readConfig(virtioBlkConfig.fields.slice(0, 1)).length, 8);
  loopback.finish();
});

test('a change of the configuration is acknowledged and interrupts the driver', () => {
  const loopback = new Loopback();
  const frontend = loopback.connect();
  loopback.configChanged();
  assert.equal(frontend.takeInterrupt(), MMIO_INTERRUPT_CONFIG);
  assert.equal(frontend.takeInterrupt(), 0);
  // The next one comes only because the last one was acknowledged.
  loopback.configChanged();
  assert.equal(frontend.takeInterrupt(), MMIO_INTERRUPT_CONFIG);
  loopback.finish();
});

test('a backend that answers nothing before its own question is answered is not waited for in vain', () => {
  const loopback = new Loopback();
  const frontend = loopback.connect();
  const held: Parameters<Loopback['say']>[0][] = [];
  loopback.tamper = (said) => {
    held.push(said);
    return [];
  };
  let changes = 0;
  loopback.onWait = () => {
    if (changes++ === 0) loopback.configChanged();
    if (loopback.acknowledgements === 0) return;
    loopback.tamper = (said) => [said];
    for (const said of held.splice(0)) loopback.say(said);
  };
  assert.equal(frontend.readConfig(virtioBlkConfig.fields.slice(0, 1)).length, 8);
  assert.equal(frontend.takeInterrupt(), MMIO_INTERRUPT_CONFIG);
  loopback.finish();
});

test('a request that was completed interrupts the driver once it has asked for that', () => {
  const loopback = new Loopback();
  const disk = start(loopback);
  loopback.frontend!.takeInterrupt();
  assert.equal(disk.arm(), false);
  const done: number[] = [];
  disk.submit(0, 0, loopback.memory.memory.allocatePages(1)!, 512, (status) => done.push(status));
  assert.equal(loopback.frontend!.takeInterrupt(), MMIO_INTERRUPT_VRING);
  disk.poll();
  assert.deepEqual(done, [0]);
  disk.close();
  loopback.finish();
});

test('B20 C1: what a backend that dies has not answered is asked again of the next one, and answered once', () => {
  const first = new Loopback(2);
  const disk = start(first);
  first.serves = false;
  const page = first.memory.memory.allocatePages(4)!;
  const answers: [request: number, status: number][] = [];
  for (let i = 0; i < 4; i++) disk.submit(1, i, page + i * 4096, 512, (status) => answers.push([i, status]));
  first.die();
  first.frontend!.look();
  assert.match(first.frontend!.failure ?? '', /closed the connection/);
  assert.equal(disk.holdsDevice, false);
  disk.suspend('gone');
  assert.ok(
    first.memory.shared.every((byte) => byte === 0),
    'nothing is left in the window',
  );
  first.finish();
  assert.deepEqual(answers, []);
  const second = new Loopback(2, first.memory);
  disk.resume(second.deviceOf(second.connect()));
  disk.poll();
  assert.deepEqual(
    answers.sort(),
    [0, 1, 2, 3].map((i) => [i, 0]),
  );
  disk.close();
  second.finish();
});

test('a ring that the backend finds in error has the device reset, and its requests asked again', () => {
  const loopback = new Loopback();
  const disk = start(loopback);
  loopback.serves = false;
  let status = -2;
  const page = loopback.memory.memory.allocatePages(1)!;
  disk.submit(0, 0, page, 512, (answer) => {
    status = answer;
  });
  // An available index from nowhere: the backend stops the ring and says so.
  loopback.available.index += 1000;
  loopback.serves = true;
  loopback.frontend!.notify(0);
  assert.notEqual(loopback.frontend!.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
  disk.interrupt();
  assert.equal(disk.resets, 1);
  disk.poll();
  assert.equal(status, 0);
  disk.close();
  loopback.finish();
});

test('with no descriptor left at any step, the frontend throws so and leaves nothing open', () => {
  for (let left = 0; ; left++) {
    const loopback = new Loopback();
    loopback.descriptorsLeft = left;
    let disk: BlkDriver | undefined;
    try {
      disk = start(loopback);
    } catch (error) {
      assert.match(`${error}`, /EMFILE/);
    }
    disk?.close();
    loopback.finish();
    if (disk === undefined) continue;
    assert.ok(left >= 4, 'two eventfds, a pair of sockets, and an eventfd for the ring');
    return;
  }
});
