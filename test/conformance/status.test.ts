// The device status field and feature negotiation, device side: virtio 1.3 §2.1, §2.2, §2.4 and §3.1.1.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { MMIO_STATUS } from '../../src/abi/virtio-mmio.ts';
import * as virtio from '../../src/abi/virtio.ts';
import { RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

test('§3.1.1 the bits of the initialisation sequence stick one after the other', async () => {
  const scene = new Scene();
  const { driver } = scene;
  assert.equal(driver.status, 0);
  for (const [written, expected] of [
    [1, 1],
    [3, 3],
  ]) {
    driver.write(MMIO_STATUS, written);
    assert.equal(driver.status, expected);
  }
  driver.writeFeatures(driver.readFeatures());
  driver.write(MMIO_STATUS, 11);
  assert.equal(driver.status, 11);
  driver.write(MMIO_STATUS, 15);
  assert.equal(driver.status, 15);
  await scene.finish();
});

test('§2.1.1 bits that are written one by one add up', async () => {
  const scene = new Scene();
  const { driver } = scene;
  for (const bit of [1, 2]) driver.write(MMIO_STATUS, bit);
  driver.writeFeatures(driver.readFeatures());
  for (const bit of [8, 4]) driver.write(MMIO_STATUS, bit);
  assert.equal(driver.status, 15);
  await scene.finish();
});

test('§2.1.1 a driver may give the device up with FAILED, and reset it later', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  driver.write(MMIO_STATUS, driver.status | virtio.VIRTIO_STATUS_FAILED);
  assert.equal(driver.status, 11 | virtio.VIRTIO_STATUS_FAILED);
  await scene.worksAfterReset();
  await scene.finish();
});

test('§2.1 a driver cannot set DEVICE_NEEDS_RESET', async () => {
  const scene = new Scene();
  scene.driver.write(MMIO_STATUS, 1 | virtio.VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  assert.equal(scene.driver.status, 1);
  await scene.worksAfterReset();
  await scene.finish();
});

test('§2.1.2 nothing is consumed before DRIVER_OK, and what was there is served after it', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  const queue = driver.layOut(0, 16);
  driver.enable(queue);
  const request = new RawRequest(driver);
  request.header(0, 0);
  driver.chain(queue, 0, request.read(512));
  driver.submit(queue, 0);
  assert.equal(queue.used.index, 0);
  driver.driverOk();
  driver.notify(0);
  driver.run();
  assert.equal(queue.used.index, 1);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});

test('§2.1.2 status is 0 after a reset, of a broken device too', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 99);
  assert.notEqual(scene.driver.status, 0);
  scene.driver.reset();
  assert.equal(scene.driver.status, 0);
  await scene.finish();
});

test('§2.2.2 any subset of the optional features is accepted', async () => {
  const scene = new Scene();
  const { driver } = scene;
  const offered = driver.readFeatures();
  const needed = virtio.VIRTIO_F_VERSION_1 | virtio.VIRTIO_F_ACCESS_PLATFORM;
  const optional = [...offered.toString(2)]
    .reverse()
    .flatMap((digit, bit) => (digit === '1' ? [1n << BigInt(bit)] : []))
    .filter((feature) => (feature & needed) === 0n);
  assert.equal(optional.length, 9);
  for (let subset = 0; subset < 2 ** optional.length; subset++) {
    driver.negotiate(optional.reduce((without, bit, i) => without | (subset & (1 << i) ? bit : 0n), 0n));
    assert.ok(driver.status & virtio.VIRTIO_STATUS_FEATURES_OK);
  }
  await scene.finish();
});

test('§2.2 features can be chosen anew only after a reset', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate(virtio.VIRTIO_F_EVENT_IDX);
  driver.writeFeatures(driver.readFeatures());
  assert.equal(scene.served.state.driverFeatures & virtio.VIRTIO_F_EVENT_IDX, 0n);
  driver.negotiate();
  assert.notEqual(scene.served.state.driverFeatures & virtio.VIRTIO_F_EVENT_IDX, 0n);
  await scene.finish();
});

test('§6.1 a restricted device offers VERSION_1 and ACCESS_PLATFORM, and does without neither', async () => {
  const scene = new Scene();
  const { driver } = scene;
  for (const feature of [virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_F_ACCESS_PLATFORM]) {
    assert.ok(driver.readFeatures() & feature);
    driver.negotiate(feature);
    assert.equal(driver.status & virtio.VIRTIO_STATUS_FEATURES_OK, 0);
  }
  await scene.finish();
});
