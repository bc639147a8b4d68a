// The block driver against virtio 1.3 §5.2.5 and §5.2.6.1: what it puts on the queue.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import { MMIO_CONFIG } from '../../src/abi/virtio-mmio.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';

interface Seen {
  readonly type: number;
  readonly sector: number;
  /** Bytes of data that the device reads, and how many it may write. */
  readonly sent: Uint8Array;
  readonly room: number;
}

/** What the oldest request that the device holds says. */
function seen(scene: HostileScene): Seen {
  const { readable, writable } = scene.device.held[0].chain;
  const bytes = new Uint8Array(readable.byteLength);
  readable.copyTo(bytes, 0, bytes.length);
  const { type, sector } = blk.virtioBlkRequestHeader.over(bytes);
  return { type, sector, sent: bytes.subarray(16), room: writable.byteLength - 1 };
}

/** Runs `ask` to its end against a disk that answers with success; returns the requests it made. */
async function requests(scene: HostileScene, ask: Promise<void>): Promise<Seen[]> {
  const all: Seen[] = [];
  let settled = false;
  const end = () => {
    settled = true;
  };
  ask.then(end, end);
  for (let turn = 0; !settled && turn < 1000; turn++) {
    scene.run();
    if (scene.device.held.length > 0) {
      all.push(seen(scene));
      scene.device.serve(blk.VIRTIO_BLK_S_OK);
    }
    await Promise.resolve();
  }
  await ask;
  return all;
}

test('§5.2.6 a read and a write carry type, sector and data, header first and status last', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(1024);
  buffer.bytes.fill(0x42);
  const [write] = await requests(scene, disk.write(3 * 512, buffer, 1024));
  assert.deepEqual([write.type, write.sector, write.room], [blk.VIRTIO_BLK_T_OUT, 3, 0]);
  assert.deepEqual(write.sent, new Uint8Array(1024).fill(0x42));
  const [read] = await requests(scene, disk.read(127 * 512, buffer, 512));
  assert.deepEqual([read.type, read.sector, read.sent.length, read.room], [blk.VIRTIO_BLK_T_IN, 127, 0, 512]);
  scene.detach(disk);
});

test('§5.2.6.1 a flush has sector 0 and no data', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const [flush] = await requests(scene, disk.flush());
  assert.deepEqual(
    [flush.type, flush.sector, flush.sent.length, flush.room],
    [blk.VIRTIO_BLK_T_FLUSH, 0, 0, 0],
  );
  scene.detach(disk);
});

test('§5.2.6.1 a discard never has unmap set, and its ranges are as long as the device announces', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const made = await requests(scene, disk.discard(2 * 512, 40 * 512));
  assert.deepEqual(
    made.map(({ type, sector, sent }) => {
      const range = blk.virtioBlkRange.over(sent);
      return [type, sector, sent.length, range.sector, range.num_sectors, range.flags];
    }),
    [
      [blk.VIRTIO_BLK_T_DISCARD, 0, 16, 2, 16, 0],
      [blk.VIRTIO_BLK_T_DISCARD, 0, 16, 18, 16, 0],
      [blk.VIRTIO_BLK_T_DISCARD, 0, 16, 34, 8, 0],
    ],
  );
  scene.detach(disk);
});

test('§5.2.6.1 write zeroes sets unmap only if it may', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  for (const mayUnmap of [false, true]) {
    const [request] = await requests(scene, disk.writeZeroes(0, 512, mayUnmap));
    assert.equal(request.type, blk.VIRTIO_BLK_T_WRITE_ZEROES);
    assert.equal(blk.virtioBlkRange.over(request.sent).flags, mayUnmap ? 1 : 0);
  }
  scene.detach(disk);
});

test('§5.2.6.1 nothing past the capacity, and nothing but whole sectors, is ever asked for', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(4096);
  for (const [offset, length] of [
    [128 * 512, 512],
    [127 * 512, 1024],
    [-512, 512],
    [0, 0],
    [0, 511],
    [1, 512],
    [0, 8192],
  ]) {
    await assert.rejects(disk.read(offset, buffer, length), { code: 'EINVAL' });
    await assert.rejects(disk.write(offset, buffer, length), { code: 'EINVAL' });
  }
  await assert.rejects(disk.discard(127 * 512, 1024), { code: 'EINVAL' });
  await assert.rejects(disk.writeZeroes(0, 100, true), { code: 'EINVAL' });
  scene.run();
  assert.equal(scene.device.held.length, 0);
  scene.detach(disk);
});

test('§5.2.5 features that are not offered are not used', async () => {
  const scene = new HostileScene(new HostileDisk({ features: blk.VIRTIO_BLK_F_RO }));
  const disk = scene.attach('bounce', 2);
  const buffer = await disk.buffer(512);
  assert.equal(disk.readOnly, true);
  assert.deepEqual([disk.canFlush, disk.canDiscard, disk.canWriteZeroes], [false, false, false]);
  await assert.rejects(disk.write(0, buffer, 512), { code: 'EROFS' });
  await assert.rejects(disk.discard(0, 512), { code: 'ENOTSUP' });
  await assert.rejects(disk.writeZeroes(0, 512, true), { code: 'ENOTSUP' });
  await disk.flush();
  scene.run();
  assert.equal(scene.device.held.length, 0);
  assert.equal(scene.served.state.queue(1)?.enabled, false, 'one queue without VIRTIO_BLK_F_MQ');
  scene.detach(disk);
});

test('§2.2.1 no feature is accepted that was not offered', () => {
  for (const features of [0n, blk.VIRTIO_BLK_F_FLUSH, blk.VIRTIO_BLK_F_MQ | blk.VIRTIO_BLK_F_DISCARD]) {
    const scene = new HostileScene(new HostileDisk({ features }));
    const disk = scene.attach('bounce');
    assert.equal(scene.served.state.driverFeatures & ~scene.served.state.offered, 0n);
    scene.detach(disk);
  }
});

const optional: [string, bigint, (keyof typeof at)[]][] = [
  ['none', 0n, []],
  ['VIRTIO_BLK_F_SEG_MAX', blk.VIRTIO_BLK_F_SEG_MAX, ['seg_max']],
  ['VIRTIO_BLK_F_MQ', blk.VIRTIO_BLK_F_MQ, ['num_queues']],
  ['VIRTIO_BLK_F_DISCARD', blk.VIRTIO_BLK_F_DISCARD, ['max_discard_sectors']],
  ['VIRTIO_BLK_F_WRITE_ZEROES', blk.VIRTIO_BLK_F_WRITE_ZEROES, ['max_write_zeroes_sectors']],
  ['VIRTIO_BLK_F_FLUSH', blk.VIRTIO_BLK_F_FLUSH, []],
];
const at = { seg_max: 12, num_queues: 34, max_discard_sectors: 36, max_write_zeroes_sectors: 48 };

for (const [name, features, fields] of optional) {
  test(`§2.5.1 with feature ${name}, capacity and ${fields.join() || 'nothing else'} of the configuration is read`, () => {
    const scene = new HostileScene(new HostileDisk({ features }));
    const read = new Set<number>();
    scene.lie((register, truth) => {
      if (register >= MMIO_CONFIG) read.add(register - MMIO_CONFIG);
      return truth;
    });
    const disk = scene.attach('bounce');
    assert.deepEqual([...read], [0, 4, ...fields.map((field) => at[field])]);
    scene.detach(disk);
  });
}
