// A backend that lies in the used ring, rewrites what is the driver's, or completes twice. The driver believes
// its own records; the device is given up, nothing is freed twice, and the guest goes on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';

const ENODEV = { name: 'DiskError', code: 'ENODEV' };
const OK = VIRTIO_BLK_S_OK;

/** Two reads in flight; `lie` does its worst to the used ring; both must fail, and a new start must work. */
async function givenUp(mode: ExposureMode, lie: (scene: HostileScene) => void, reason: RegExp) {
  const scene = new HostileScene();
  const disk = scene.attach(mode);
  const buffers = [await disk.buffer(512), await disk.buffer(512)];
  const reads = buffers.map((buffer, i) => disk.read(i * 512, buffer, 512));
  const outcomes = Promise.allSettled(reads);
  scene.run();
  assert.equal(scene.device.held.length, 2);
  lie(scene);
  scene.run();
  assert.match(disk.failure ?? '', reason);
  for (const outcome of await outcomes)
    assert.equal(outcome.status === 'rejected' && outcome.reason.code, 'ENODEV');
  await assert.rejects(disk.read(0, buffers[0], 512), ENODEV);
  assert.equal(scene.served.state.status, 0, 'the device was reset');
  scene.device.held.length = 0;
  scene.detach(disk);
  await worksAnew(scene, mode);
}

async function worksAnew(scene: HostileScene, mode: ExposureMode): Promise<void> {
  const disk = scene.attach(mode);
  const buffer = await disk.buffer(1024);
  const read = disk.read(0, buffer, 1024);
  scene.run();
  scene.device.serve(OK);
  await scene.machine.settle(read);
  assert.ok(buffer.bytes.subarray(0, 1024).every((byte) => byte === HostileDisk.CONTENT));
  scene.detach(disk);
}

/** Publishes one used element. */
function complete(scene: HostileScene, id: number, length: number): void {
  const ring = scene.ring();
  ring.complete(id, length);
  ring.release();
}

for (const mode of EXPOSURE_MODES) {
  for (const id of [16, 17, 255, 0xffff, 0x1_0000, 0x8000_0000, 0xffff_ffff]) {
    test(`B1 a used id of ${id} in a queue of 16 gives the device up, ${mode}`, () =>
      givenUp(mode, (scene) => complete(scene, id, 513), /not the head of a chain in flight/));
  }

  test(`B1 a used id that is inside a chain, or free, gives the device up, ${mode}`, async () => {
    const heads = new Set<number>();
    await givenUp(
      mode,
      (scene) => {
        for (const { chain } of scene.device.held) heads.add(chain.head);
        const other = [...Array(16).keys()].find((id) => !heads.has(id))!;
        complete(scene, other, 513);
      },
      /not the head of a chain in flight/,
    );
  });

  test(`B1 a used index that jumps past what is in flight gives the device up, ${mode}`, () =>
    givenUp(
      mode,
      (scene) => {
        const ring = scene.ring();
        ring.used.index = 3;
        ring.release();
      },
      /used index 3 ahead with 2 in flight/,
    ));

  test(`B1 a used index that moves back gives the device up, ${mode}`, () =>
    givenUp(
      mode,
      (scene) => {
        const ring = scene.ring();
        ring.used.index = 0xffff;
        ring.release();
      },
      /used index 65535 ahead/,
    ));

  test(`B5 one request completed twice gives the device up, and its buffer is not freed twice, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    const buffers = [await disk.buffer(512), await disk.buffer(512)];
    const reads = buffers.map((buffer, i) => disk.read(i * 512, buffer, 512));
    const outcomes = Promise.allSettled(reads);
    scene.run();
    const { head } = scene.device.held[0].chain;
    scene.device.serve(OK);
    complete(scene, head, 513);
    scene.run();
    const [first, second] = await outcomes;
    assert.deepEqual([first.status, second.status], ['fulfilled', 'rejected']);
    assert.match(disk.failure ?? '', /not the head of a chain in flight/);
    scene.device.held.length = 0;
    scene.detach(disk);
    await worksAnew(scene, mode);
  });

  test(`B2 a used length beyond the buffers is cut to them, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    const buffer = await disk.buffer(512);
    for (const length of [514, 0x7fff_ffff, 0xffff_ffff]) {
      const read = disk.read(0, buffer, 512);
      scene.run();
      const { queue, chain } = scene.device.held[0];
      scene.device.fill(chain.head, OK);
      scene.device.held.shift();
      // Completed honestly, so that its buffers are unmapped; then the length is rewritten.
      queue.complete(chain, 0, 513);
      const ring = scene.ring();
      ring.used.setElement(ring.used.index - 1, chain.head, length);
      ring.release();
      await scene.machine.settle(read);
      assert.ok(buffer.bytes.subarray(0, 512).every((byte) => byte === HostileDisk.CONTENT));
    }
    assert.equal(disk.failure, undefined);
    scene.detach(disk);
  });

  for (const length of [0, 1, 511, 512]) {
    test(`B3 a success of which only ${length} of 513 bytes were written is an error, ${mode}`, async () => {
      const scene = new HostileScene();
      const disk = scene.attach(mode);
      const buffer = await disk.buffer(512);
      const read = disk.read(0, buffer, 512);
      scene.run();
      const { queue, chain } = scene.device.held[0];
      scene.device.fill(chain.head, OK);
      scene.device.held.shift();
      queue.complete(chain, 0, length);
      await assert.rejects(scene.machine.settle(read), { code: 'EIO' });
      assert.equal(disk.failure, undefined, 'the queue goes on');
      scene.detach(disk);
    });
  }

  test(`B6 a descriptor table that the backend rewrites changes nothing about what is unmapped, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    const buffer = await disk.buffer(4096);
    for (let round = 0; round < 40; round++) {
      const read = disk.read(0, buffer, 4096);
      scene.run();
      const ring = scene.ring();
      for (let i = 0; i < ring.size; i++) ring.table.write(i, 0xffff_ffff, 0x8000_0fff, 0xffff_ffff, 7, i);
      for (let i = 0; i < ring.size; i++) ring.available.setHead(i, 0xffff);
      ring.release();
      scene.device.serve(OK);
      await scene.machine.settle(read);
    }
    scene.detach(disk);
    await worksAnew(scene, mode);
  });

  for (const status of [3, 4, 0x7f, 0x80, 0xee, 0xff]) {
    test(`B14 a status byte of ${status} is an I/O error, ${mode}`, async () => {
      const scene = new HostileScene();
      const disk = scene.attach(mode);
      const buffer = await disk.buffer(512);
      const read = disk.read(0, buffer, 512);
      scene.run();
      scene.device.serve(status);
      await assert.rejects(scene.machine.settle(read), { code: 'EIO' });
      assert.equal(disk.failure, undefined);
      scene.detach(disk);
    });
  }

  test(`B14 the statuses that exist are told apart, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    for (const [status, code] of [
      [1, 'EIO'],
      [2, 'ENOTSUP'],
    ] as const) {
      const flush = disk.flush();
      scene.run();
      scene.device.serve(status);
      await assert.rejects(scene.machine.settle(flush), { code });
    }
    scene.detach(disk);
  });
}

test('B7 what the backend writes after completion through a mapping that it kept does not reach the data', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(4096);
  const read = disk.read(0, buffer, 4096);
  scene.run();
  // The backend has kept one more mapping of the data, of which its own unmap knows nothing.
  const { grantMapper } = scene.backend.ports;
  const ring = scene.ring();
  const dataRef = ring.table.addressLow(1) >>> 12;
  ring.release();
  const kept = grantMapper.map(scene.guest.ports.id, dataRef, false);
  assert.ok(kept >= 0);
  scene.device.serve(OK);
  await scene.machine.settle(read);
  grantMapper.region(kept).u8.fill(0, grantMapper.offset(kept), grantMapper.offset(kept) + 4096);
  assert.ok(buffer.bytes.subarray(0, 4096).every((byte) => byte === HostileDisk.CONTENT));
  assert.equal(grantMapper.unmap(kept), 0);
  scene.detach(disk);
});

test('B7 in direct mode a backend that keeps its mapping is not trusted again', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('direct');
  const buffer = await disk.buffer(4096);
  const read = disk.read(0, buffer, 4096);
  scene.run();
  const { grantMapper } = scene.backend.ports;
  const ring = scene.ring();
  const dataRef = ring.table.addressLow(1) >>> 12;
  ring.release();
  const kept = grantMapper.map(scene.guest.ports.id, dataRef, false);
  scene.device.serve(OK);
  await assert.rejects(scene.machine.settle(read), { code: 'EIO' }, 'what was read may still change');
  assert.match(disk.failure ?? '', /does not let go of 1 pages/);
  assert.deepEqual(scene.guest.detach(disk), { live: 0, quarantined: 1 });
  assert.equal(grantMapper.unmap(kept), 0);
});
