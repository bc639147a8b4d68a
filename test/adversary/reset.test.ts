// F26 A reset while requests are in flight: everything is unmapped, and nothing is written to the guest's
// memory once the reset is done, however late an answer comes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import { HoldingDevice } from '../support/holding-device.test.helper.ts';
import { RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

test('F26 a reset lets go of rings and of buffers in flight at once', async () => {
  const device = new HoldingDevice();
  const scene = new Scene({ device });
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  assert.equal(device.held.length, 1);
  assert.equal(scene.mappedOfSuspect, 6, 'three ring areas, header, data and status');
  scene.driver.reset();
  assert.equal(scene.mappedOfSuspect, 0);
  assert.equal(scene.driver.revokeAll(), 0);
  await scene.finish();
});

test('F26 an answer that comes after the reset is dropped: no used element, no interrupt', async () => {
  const device = new HoldingDevice();
  const scene = new Scene({ device });
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  scene.driver.reset();
  const before = queue.pages.bytes.slice();
  device.answer();
  scene.driver.run();
  assert.deepEqual(queue.pages.bytes, before);
  assert.equal(scene.driver.interrupts, 0);
  await scene.finish();
});

test('F26 an answer to a request of before the reset does not answer one of after it', async () => {
  const device = new HoldingDevice();
  const scene = new Scene({ device });
  const first = readyToRead(scene);
  scene.driver.submit(first.queue, 0);
  const second = readyToRead(scene);
  scene.driver.submit(second.queue, 0);
  assert.equal(device.held.length, 2);
  device.answer();
  assert.equal(second.queue.used.index, 0, 'the late answer is for nobody');
  assert.equal(scene.mappedOfSuspect, 6, 'and unmaps nothing of the new request');
  device.answer();
  assert.equal(second.queue.used.index, 1);
  await scene.finish();
});

test('F26 F35 a driver that breaks a rule while requests are in flight gets all of them unmapped', async () => {
  const device = new HoldingDevice();
  const scene = new Scene({ device });
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  // The same head again, while it is in flight.
  scene.driver.submit(queue, 0);
  assert.equal(scene.served.state.fault?.clause, '§2.7.6');
  assert.equal(scene.mappedOfSuspect, 0);
  const before = queue.pages.bytes.slice();
  device.answer();
  assert.deepEqual(queue.pages.bytes, before);
  await scene.neighbourWorks();
  await scene.finish();
});

test('F26 a reset gives the initial state from every step of initialisation', async () => {
  const scene = new Scene();
  const { driver } = scene;
  const initial = registers(scene);
  const steps: (() => void)[] = [
    () => driver.write(mmio.MMIO_STATUS, 1),
    () => driver.negotiate(),
    () => driver.enable(driver.layOut(0, 16)),
    () => driver.enable(driver.layOut(1, 64)),
    () => driver.driverOk(),
    () => driver.submit(driver.layOut(0, 16), 0),
    () => driver.enable(driver.layOut(0, 3)),
  ];
  for (let last = 0; last < steps.length; last++) {
    for (const step of steps.slice(0, last + 1)) step();
    driver.reset();
    driver.run();
    assert.deepEqual(registers(scene), initial, `after ${last + 1} steps`);
    assert.equal(scene.mappedOfSuspect, 0);
    assert.equal(driver.revokeAll(), 0);
  }
  await scene.worksAfterReset();
  await scene.finish();
});

/** Everything that the driver can read of the device's state. */
function registers(scene: Scene): unknown {
  const { driver } = scene;
  const queues = [0, 1, 2].map((index) => {
    driver.write(mmio.MMIO_QUEUE_SEL, index);
    return [driver.read(mmio.MMIO_QUEUE_SIZE_MAX), driver.read(mmio.MMIO_QUEUE_READY)];
  });
  return { status: driver.status, offered: driver.readFeatures(), queues };
}

test('F26 a reset in the middle of a burst serves what comes after it from a clean ring', async () => {
  const scene = new Scene();
  for (let round = 0; round < 20; round++) {
    const { queue } = readyToRead(scene);
    for (let i = 0; i < round % 16; i++) scene.driver.offer(queue, 0);
    scene.driver.notify(0);
    if (round % 2 === 0) scene.driver.run();
    scene.driver.reset();
    assert.equal(scene.mappedOfSuspect, 0);
    const served = queue.used.index;
    scene.driver.run();
    assert.equal(queue.used.index, served);
    assert.equal(scene.driver.revokeAll(), 0);
  }
  const queue = scene.driver.start(16);
  const request = new RawRequest(scene.driver);
  request.header(blk.VIRTIO_BLK_T_IN, 1);
  scene.driver.chain(queue, 0, request.read(512));
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK);
  await scene.finish();
});
