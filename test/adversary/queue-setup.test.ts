// A driver that sets its queues and its status up wrong: nothing is activated, nothing stays mapped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import * as virtio from '../../src/abi/virtio.ts';
import { offsetBy, type RawDriver, type RawQueue } from '../support/raw-driver.test.helper.ts';
import { BASE, RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

type Enable = (driver: RawDriver, queue: RawQueue) => void;

const misplaced: [string, Enable][] = [
  ['descriptor table 8 bytes off', (d, q) => d.enable(q, { descriptor: offsetBy(q.pages, 8) })],
  ['available ring 1 byte off', (d, q) => d.enable(q, { driver: offsetBy(q.pages, q.driver + 1) })],
  ['used ring 2 bytes off', (d, q) => d.enable(q, { device: offsetBy(q.pages, q.device + 2) })],
  ['used ring over the descriptor table', (d, q) => d.enable(q, { device: q.pages })],
  [
    'used ring one entry into the available ring',
    (d, q) => d.enable(q, { device: offsetBy(q.pages, q.device - 8) }),
  ],
  ['available ring inside the descriptor table', (d, q) => d.enable(q, { driver: offsetBy(q.pages, 64) })],
  ['all three areas at one place', (d, q) => d.enable(q, { driver: q.pages, device: q.pages })],
  [
    'descriptor table that was not granted',
    (d, q) => d.enable(q, { descriptor: { low: 0, high: 0x8000_0001 } }),
  ],
  ['used ring granted read-only', (d, q) => d.enable(q, { device: d.share(1, true) })],
  [
    'available ring that runs out of its pages',
    (d, q) => d.enable(q, { driver: offsetBy(q.pages, 4096 - 4) }),
  ],
  ['used ring at a plain address', (d, q) => d.enable(q, { device: { low: 0x10_0000, high: 0 } })],
  ['used ring in the window of its registers', (d, q) => d.enable(q, { device: d.shareAt(BASE, 1) })],
];

for (const [what, enable] of misplaced) {
  test(`F19 a ${what} is refused`, async () => {
    const scene = new Scene();
    scene.driver.negotiate();
    const queue = scene.driver.layOut(0, 16);
    enable(scene.driver, queue);
    scene.driver.run();
    assert.equal(scene.driver.read(mmio.MMIO_QUEUE_READY), 0);
    scene.driver.driverOk();
    assert.equal(scene.driver.status & virtio.VIRTIO_STATUS_DRIVER_OK, 0, 'the device does not start');
    await scene.broken();
  });
}

test('F19 ring pages that do not follow each other are refused', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  const { memory } = driver.guest.ports;
  const address = memory.allocatePages(3)!;
  // Consecutive references to the third and the first page.
  const third = driver.shareAt(address + 8192, 1);
  const first = driver.shareAt(address, 1);
  assert.equal(first.ref, third.ref + 1);
  const queue = driver.layOut(0, 16);
  driver.enable(queue, { descriptor: offsetBy(third, 4096 - 16) });
  driver.run();
  await scene.broken('§2.7');
});

for (const size of [0, 3, 15, 17, 65, 96, 128, 32768, 65536, 65552, 0x8000_0000, 0xffff_ffff]) {
  test(`F20 a queue size of ${size} is refused where 64 is the most`, async () => {
    const scene = new Scene();
    scene.driver.negotiate();
    scene.driver.enable(scene.driver.layOut(0, 16), { size });
    scene.driver.run();
    assert.equal(scene.driver.read(mmio.MMIO_QUEUE_READY), 0);
    await scene.broken('§2.7');
  });
}

for (const size of [1, 2, 4, 64]) {
  test(`F20 a queue size of ${size} is accepted`, async () => {
    const scene = new Scene();
    const queue = scene.driver.start(size);
    assert.equal(scene.driver.read(mmio.MMIO_QUEUE_READY), 1);
    assert.equal(queue.size, size);
    await scene.finish();
  });
}

test('F21 registers of an enabled queue are frozen, before and after DRIVER_OK', async () => {
  const scene = new Scene();
  const { driver } = scene;
  const scribble = () => {
    driver.write(mmio.MMIO_QUEUE_SEL, 0);
    driver.write(mmio.MMIO_QUEUE_SIZE, 32);
    for (let register = mmio.MMIO_QUEUE_DESC_LOW; register <= mmio.MMIO_QUEUE_DEVICE_HIGH; register += 4)
      driver.write(register, 0xdead_beef);
    driver.write(mmio.MMIO_QUEUE_READY, 1);
  };
  const { queue, request } = readyToRead(scene);
  scribble();
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  driver.reset();
  driver.revokeAll();
  driver.negotiate();
  const again = driver.layOut(0, 16);
  driver.chain(again, 0, new RawRequest(driver).read(512));
  driver.enable(again);
  scribble();
  driver.driverOk();
  scribble();
  driver.submit(again, 0);
  assert.equal(driver.status & virtio.VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
  assert.equal(again.used.index, 1, 'the ring is still where it was enabled');
  await scene.finish();
});

test('F21 a queue that is enabled only after DRIVER_OK stays disabled', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  driver.driverOk();
  const queue = driver.layOut(0, 16);
  driver.enable(queue);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0);
  driver.submit(queue, 0);
  assert.equal(queue.used.index, 0);
  await scene.worksAfterReset();
  await scene.finish();
});

test('F21 features written after FEATURES_OK change nothing', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene, virtio.VIRTIO_F_EVENT_IDX);
  scene.driver.writeFeatures(scene.driver.readFeatures());
  // With event indices the flag would be ignored.
  queue.available.flags = 1;
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  assert.equal(scene.driver.interrupts, 0);
  await scene.finish();
});

test('F23 no status bit is ever cleared but by a reset', async () => {
  const scene = new Scene();
  readyToRead(scene);
  const { driver } = scene;
  assert.equal(driver.status, 15);
  for (const value of [1, 2, 4, 8, 3, 11]) {
    driver.write(mmio.MMIO_STATUS, value);
    assert.equal(driver.status, 15);
  }
  await scene.worksAfterReset();
  await scene.finish();
});

for (const early of [8, 9, 10, 12, 13]) {
  test(`F23 a status of ${early}, FEATURES_OK before its time, is not taken for FEATURES_OK`, async () => {
    const scene = new Scene();
    const { driver } = scene;
    driver.writeFeatures(driver.readFeatures());
    driver.write(mmio.MMIO_STATUS, early);
    assert.equal(driver.status, early & 3, 'neither FEATURES_OK nor DRIVER_OK');
    driver.write(mmio.MMIO_STATUS, 11);
    assert.equal(driver.status, 11, 'in its order it is');
    await scene.worksAfterReset();
    await scene.finish();
  });
}

const { VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1 } = virtio;
const unacceptable: [string, (offered: bigint) => bigint][] = [
  ['one that was not offered', (offered) => offered | (1n << 50n)],
  ['the packed ring, which is not offered', (offered) => offered | (1n << 34n)],
  ['no VIRTIO_F_VERSION_1', (offered) => offered & ~VIRTIO_F_VERSION_1],
  ['no VIRTIO_F_ACCESS_PLATFORM from a restricted device', (offered) => offered & ~VIRTIO_F_ACCESS_PLATFORM],
  ['none at all', () => 0n],
];

for (const [what, choose] of unacceptable) {
  test(`F23 with features that contain ${what}, FEATURES_OK does not stick`, async () => {
    const scene = new Scene();
    const { driver } = scene;
    driver.negotiate();
    driver.reset();
    driver.write(mmio.MMIO_STATUS, 3);
    driver.writeFeatures(choose(driver.readFeatures()));
    driver.write(mmio.MMIO_STATUS, 11);
    assert.equal(driver.status, 3);
    driver.write(mmio.MMIO_STATUS, 15);
    assert.equal(driver.status, 3, 'and without it there is no DRIVER_OK');
    await scene.worksAfterReset();
    await scene.finish();
  });
}
