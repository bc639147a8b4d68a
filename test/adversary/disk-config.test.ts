// B10 A disk whose configuration is nonsense is refused, or used within what makes sense; the driver leaves
// nothing behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import { BASE } from '../support/scene.test.helper.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';

type Config = Parameters<typeof blk.virtioBlkConfig.make>[0];

const nonsense: [string, Config, RegExp][] = [
  ['a capacity of 2^64 - 1 sectors', {}, /claims \d+ sectors/],
  ['no data segments (seg_max 0)', { seg_max: 0 }, /seg_max 0/],
  ['no queues (num_queues 0)', { num_queues: 0 }, /num_queues 0/],
  ['more queues than it has', { num_queues: 3 }, /no queue 2/],
];

for (const [what, config, reason] of nonsense) {
  test(`B10 a disk that claims ${what} is refused`, () => {
    const device = new HostileDisk({ config });
    if (/capacity/.test(what)) device.config.fill(0xff, 0, 8);
    const scene = new HostileScene(device);
    assert.throws(() => scene.attach('bounce', 4), { name: 'DeviceRefused', message: reason });
    scene.nothingLeft();
  });
}

for (const size of [1, 2]) {
  test(`B10 a disk whose queues hold ${size} descriptors is refused: no request fits`, () => {
    const scene = new HostileScene(new HostileDisk({ queueSizes: [size] }));
    assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message: /less than a request/ });
    scene.nothingLeft();
  });
}

const odd: [string, Config][] = [
  ['blk_size 0', { blk_size: 0 }],
  ['an odd blk_size', { blk_size: 513 }],
  ['a huge blk_size', { blk_size: 0xffff_ffff }],
  ['ranges of no sectors', { max_discard_sectors: 0, max_write_zeroes_sectors: 0 }],
  ['huge ranges', { max_discard_sectors: 0xffff_ffff, max_write_zeroes_sectors: 0xffff_ffff }],
  ['65535 queues', { num_queues: 0xffff }],
];

for (const [what, config] of odd) {
  test(`B10 a disk that claims ${what} still reads and writes whole sectors`, async () => {
    const scene = new HostileScene(new HostileDisk({ config }));
    const disk = scene.attach('bounce');
    assert.equal(disk.capacity, 128 * 512);
    const { max_discard_sectors } = blk.virtioBlkConfig.over(scene.device.config);
    assert.equal(disk.canDiscard, max_discard_sectors > 0);
    const buffer = await disk.buffer(512);
    const read = disk.read(0, buffer, 512);
    scene.run();
    scene.device.serve(0);
    await scene.machine.settle(read);
    assert.ok(buffer.bytes.subarray(0, 512).every((byte) => byte === HostileDisk.CONTENT));
    scene.detach(disk);
  });
}

test('B10 a disk of no sectors has nothing to read', async () => {
  const scene = new HostileScene(new HostileDisk({ config: { capacity: 0 } }));
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(512);
  await assert.rejects(disk.read(0, buffer, 512), { code: 'EINVAL' });
  scene.detach(disk);
});

test('B10 a device that is no disk, or nothing, is refused', () => {
  const scene = new HostileScene(new HostileDisk({ deviceId: 4 }));
  assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message: /type 2, found type 4/ });
  assert.throws(() => scene.attach('bounce', 1, BASE + 0x1000), { message: /no virtio device/ });
  scene.nothingLeft();
});

test('G20 a legacy device, version 1, is refused: its 32-bit queue addresses cannot name a grant', () => {
  const scene = new HostileScene(new HostileDisk({}));
  scene.lie((register, truth) => (register === 0x004 ? 1 : truth));
  assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message: /legacy device/ });
  scene.nothingLeft();
});

for (const [bit, name] of [
  [33n, 'VIRTIO_F_ACCESS_PLATFORM'],
  [32n, 'VIRTIO_F_VERSION_1'],
] as const) {
  test(`G21 a device that does not offer ${name} is refused, and no address leaves the guest`, () => {
    const scene = new HostileScene(new HostileDisk({}));
    let sel = 0;
    const written: number[] = [];
    scene.lie((register, truth) => {
      if (register === 0x010 && sel === 1) return truth & ~Number(1n << (bit - 32n));
      return truth;
    });
    scene.watchWrites((register, value) => {
      if (register === 0x014) sel = value;
      written.push(register);
    });
    assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message: new RegExp(name) });
    assert.ok(
      written.every((register) => register < 0x080 || register > 0x0a4),
      'no queue address is written',
    );
    assert.ok(scene.served.state.status & 128, 'FAILED');
    scene.nothingLeft();
  });
}
