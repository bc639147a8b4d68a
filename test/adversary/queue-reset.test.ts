// F26 One queue reset while its requests are in flight (VIRTIO_F_RING_RESET, §2.6.1): it lets go of everything, late
// answers are for nobody, the other queues go on, and the queue may be set up anew: it alone, and only once it is reset.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import { VIRTIO_F_RING_RESET } from '../../src/abi/virtio.ts';
import { HoldingDevice } from '../support/holding-device.test.helper.ts';
import type { RawQueue } from '../support/raw-driver.test.helper.ts';
import { RawRequest, Scene } from '../support/scene.test.helper.ts';

class TwoQueues extends HoldingDevice {
  override readonly queueSizes = [16, 16];
}

/** Two queues, with a request in flight on each. */
function twoInFlight(without = 0n) {
  const device = new TwoQueues();
  const scene = new Scene({ device });
  const { driver } = scene;
  driver.negotiate(without);
  const queues = [driver.layOut(0, 16), driver.layOut(1, 16)];
  for (const queue of queues) driver.enable(queue);
  driver.driverOk();
  for (const queue of queues) submit(scene, queue);
  assert.equal(scene.mappedOfSuspect, 12, 'three ring areas, header, data and status of each');
  return { scene, device, queues };
}

function submit(scene: Scene, queue: RawQueue): RawRequest {
  const request = new RawRequest(scene.driver);
  request.header(blk.VIRTIO_BLK_T_IN, 0);
  scene.driver.chain(queue, 0, request.read(512));
  scene.driver.submit(queue, 0);
  return request;
}

function resetQueue({ driver }: Scene, index: number): void {
  driver.write(mmio.MMIO_QUEUE_SEL, index);
  driver.write(mmio.MMIO_QUEUE_RESET, 1);
}

test('F26 §2.6.1.1 a queue that is reset lets go of its rings and buffers; the other one keeps its own', async () => {
  const { scene, device, queues } = twoInFlight();
  const { driver } = scene;
  resetQueue(scene, 0);
  assert.equal(driver.read(mmio.MMIO_QUEUE_RESET), 0, 'it is over');
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0);
  assert.equal(scene.mappedOfSuspect, 6);
  const before = queues[0].pages.bytes.slice();
  device.answer();
  assert.deepEqual(queues[0].pages.bytes, before, 'the late answer is for nobody');
  device.answer();
  assert.equal(queues[1].used.index, 1);
  await scene.finish();
});

test('F26 a queue works again after its reset, with another size and other rings, from clean indices', async () => {
  const { scene, device } = twoInFlight();
  const { driver } = scene;
  resetQueue(scene, 0);
  const anew = driver.layOut(0, 8);
  driver.enable(anew);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 1);
  submit(scene, anew);
  assert.equal(device.held.length, 3);
  device.answer();
  assert.equal(anew.used.index, 0, 'the answer to the request of before');
  device.answer();
  device.answer();
  assert.equal(anew.used.index, 1);
  await scene.finish();
});

test('F21 registers of a queue are frozen unless it was reset, and again once it is enabled', async () => {
  const { scene } = twoInFlight();
  const { driver } = scene;
  resetQueue(scene, 0);
  driver.enable(driver.layOut(1, 8));
  assert.equal(scene.served.state.queue(1)?.size, 16, 'queue 1 was not reset');
  const anew = driver.layOut(0, 8);
  driver.enable(anew);
  const { state } = scene.served;
  driver.write(mmio.MMIO_QUEUE_SEL, 0);
  driver.write(mmio.MMIO_QUEUE_SIZE, 4);
  assert.equal(state.queue(0)?.size, 8);
  driver.write(mmio.MMIO_QUEUE_READY, 0);
  driver.enable(driver.layOut(0, 4));
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0, 'stopped, but not reset');
  await scene.finish();
});

test('F26 without the feature, before DRIVER_OK, and on a queue that is not there, the register does nothing', async () => {
  const { scene } = twoInFlight(VIRTIO_F_RING_RESET);
  const { driver } = scene;
  resetQueue(scene, 0);
  assert.equal(scene.mappedOfSuspect, 12);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 1);
  driver.negotiate();
  driver.enable(driver.layOut(0, 16));
  resetQueue(scene, 0);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 1);
  driver.driverOk();
  for (const index of [2, 63, 0xffff_ffff]) resetQueue(scene, index);
  assert.equal(scene.served.state.fault, undefined);
  await scene.finish();
});
