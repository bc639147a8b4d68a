// The registers of a virtio-mmio device against virtio 1.3 §4.2.2.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { virtioBlkConfig } from '../../src/abi/virtio-blk.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from '../../src/abi/virtio.ts';
import { BASE, DISK_SIZE, readyToRead, Scene } from '../support/scene.test.helper.ts';

const { MMIO_INTERRUPT_CONFIG, MMIO_INTERRUPT_VRING } = mmio;

test('§4.2.2.1 MagicValue, Version and DeviceID are what they must be', async () => {
  const scene = new Scene();
  assert.equal(scene.driver.read(mmio.MMIO_MAGIC_VALUE), 0x74726976);
  assert.equal(scene.driver.read(mmio.MMIO_VERSION), 2);
  assert.equal(scene.driver.read(mmio.MMIO_DEVICE_ID), VIRTIO_ID_BLOCK);
  await scene.finish();
});

test('§4.2.2 DeviceFeatures shows the 32 bits that DeviceFeaturesSel selects', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.write(mmio.MMIO_DEVICE_FEATURES_SEL, 1);
  assert.equal(BigInt(driver.read(mmio.MMIO_DEVICE_FEATURES)), scene.served.state.offered >> 32n);
  driver.write(mmio.MMIO_DEVICE_FEATURES_SEL, 0);
  assert.equal(BigInt(driver.read(mmio.MMIO_DEVICE_FEATURES)), scene.served.state.offered & 0xffff_ffffn);
  assert.ok(driver.readFeatures() & VIRTIO_F_VERSION_1);
  await scene.finish();
});

for (const word of [2, 3, 32, 0x8000_0000, 0xffff_ffff]) {
  test(`§4.2.2 word ${word} of the features has none: it reads 0 and writing it changes nothing`, async () => {
    const scene = new Scene();
    const { driver } = scene;
    driver.negotiate();
    driver.reset();
    driver.write(mmio.MMIO_STATUS, 3);
    driver.writeFeatures(driver.readFeatures());
    driver.write(mmio.MMIO_DEVICE_FEATURES_SEL, word);
    assert.equal(driver.read(mmio.MMIO_DEVICE_FEATURES), 0);
    driver.write(mmio.MMIO_DRIVER_FEATURES_SEL, word);
    driver.write(mmio.MMIO_DRIVER_FEATURES, 0);
    assert.equal(scene.served.state.driverFeatures, scene.served.state.offered);
    await scene.finish();
  });
}

test('§4.2.2 QueueNumMax is the size of each queue there is, and 0 for the others', async () => {
  const scene = new Scene({ queues: 2, queueSize: 32 });
  const sizes = [0, 1, 2, 3, 64, 0xffff_ffff].map((index) => {
    scene.driver.write(mmio.MMIO_QUEUE_SEL, index);
    return scene.driver.read(mmio.MMIO_QUEUE_SIZE_MAX);
  });
  assert.deepEqual(sizes, [32, 32, 0, 0, 0, 0]);
  await scene.finish();
});

test('§4.2.2 QueueReady reads as what was written last, queue by queue', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  driver.enable(driver.layOut(1, 16));
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 1);
  driver.write(mmio.MMIO_QUEUE_SEL, 0);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0);
  driver.write(mmio.MMIO_QUEUE_SEL, 7);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0);
  await scene.finish();
});

test('§4.2.2 a driver that writes 0 to QueueReady has stopped the queue: its memory is not touched', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  const { driver } = scene;
  driver.submit(queue, 0);
  driver.write(mmio.MMIO_QUEUE_SEL, 0);
  driver.write(mmio.MMIO_QUEUE_READY, 0);
  assert.equal(driver.read(mmio.MMIO_QUEUE_READY), 0, 'read back, as §4.2.2.2 has it');
  assert.equal(scene.mappedOfSuspect, 0, 'the rings are unmapped');
  driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(driver.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
  driver.write(mmio.MMIO_QUEUE_SEL, 9);
  driver.write(mmio.MMIO_QUEUE_READY, 0);
  await scene.worksAfterReset();
  await scene.finish();
});

test('§4.2.2.1 a used buffer sets bit 0 of InterruptStatus until it is acknowledged', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  const { driver } = scene;
  assert.equal(driver.read(mmio.MMIO_INTERRUPT_STATUS), 0);
  driver.submit(queue, 0);
  assert.equal(driver.interrupts, 1);
  assert.equal(driver.read(mmio.MMIO_INTERRUPT_STATUS), MMIO_INTERRUPT_VRING);
  driver.write(mmio.MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_CONFIG);
  assert.equal(driver.read(mmio.MMIO_INTERRUPT_STATUS), MMIO_INTERRUPT_VRING, 'only what is acknowledged');
  driver.write(mmio.MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_VRING);
  assert.equal(driver.read(mmio.MMIO_INTERRUPT_STATUS), 0);
  await scene.finish();
});

test('§2.1.2 a device that needs a reset sends a configuration change notification: bit 1', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 99);
  assert.ok(scene.driver.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
  assert.equal(scene.driver.read(mmio.MMIO_INTERRUPT_STATUS), MMIO_INTERRUPT_CONFIG);
  await scene.finish();
});

test('§4.2.2.1 a reset clears all ready bits and InterruptStatus', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  scene.driver.submit(queue, 99);
  assert.equal(scene.driver.read(mmio.MMIO_INTERRUPT_STATUS), MMIO_INTERRUPT_VRING | MMIO_INTERRUPT_CONFIG);
  scene.driver.reset();
  assert.equal(scene.driver.read(mmio.MMIO_INTERRUPT_STATUS), 0);
  assert.equal(scene.driver.read(mmio.MMIO_QUEUE_READY), 0);
  assert.equal(scene.driver.status, 0);
  await scene.finish();
});

test('§4.2.2.2 control registers answer aligned 32-bit accesses only; others read 0 and change nothing', async () => {
  const scene = new Scene();
  const bus = scene.driver.guest.ports.mmio;
  for (const [offset, size] of [
    [0, 1],
    [0, 2],
    [2, 2],
    [mmio.MMIO_VERSION, 1],
  ])
    assert.equal(bus.read(BASE + offset, size), 0);
  bus.write(BASE + mmio.MMIO_STATUS, 1, 1);
  assert.equal(scene.driver.status, 0);
  await scene.finish();
});

test('§4.2.2 write-only and undefined registers read 0, and writes to read-only ones are lost', async () => {
  const scene = new Scene();
  const { driver } = scene;
  for (const register of [
    mmio.MMIO_DRIVER_FEATURES,
    mmio.MMIO_QUEUE_SEL,
    mmio.MMIO_QUEUE_NOTIFY,
    0x018,
    0x0fc,
  ])
    assert.equal(driver.read(register), 0);
  const { MMIO_MAGIC_VALUE, MMIO_QUEUE_SIZE_MAX, MMIO_CONFIG, MMIO_DEVICE_FEATURES } = mmio;
  for (const register of [MMIO_MAGIC_VALUE, MMIO_QUEUE_SIZE_MAX, MMIO_CONFIG, MMIO_DEVICE_FEATURES]) {
    const before = driver.read(register);
    driver.write(register, 0x1234_5678);
    assert.equal(driver.read(register), before);
  }
  await scene.finish();
});

test('§4.2.2 there is no shared memory: every region has length and base -1', async () => {
  const scene = new Scene();
  const { driver } = scene;
  for (const id of [0, 1, 255]) {
    driver.write(0x0ac, id);
    for (const register of [0x0b0, 0x0b4, 0x0b8, 0x0bc]) assert.equal(driver.read(register), 0xffff_ffff);
  }
  await scene.finish();
});

test('§2.5.2 configuration space is readable before FEATURES_OK, byte by byte and word by word', async () => {
  const scene = new Scene();
  const bus = scene.driver.guest.ports.mmio;
  const sectors = DISK_SIZE / 512;
  assert.equal(bus.read(BASE + mmio.MMIO_CONFIG, 4), sectors);
  assert.equal(bus.read(BASE + mmio.MMIO_CONFIG, 2), sectors);
  assert.equal(bus.read(BASE + mmio.MMIO_CONFIG, 1), sectors & 0xff);
  const queues = mmio.MMIO_CONFIG + virtioBlkConfig.offsetOf('num_queues');
  assert.equal(bus.read(BASE + queues, 2), 2);
  assert.equal(bus.read(BASE + mmio.MMIO_CONFIG + virtioBlkConfig.size, 4), 0, 'behind its end it reads 0');
  assert.equal(bus.read(BASE + mmio.MMIO_WINDOW_SIZE - 4, 4), 0);
  await scene.finish();
});

test('§2.5.3 a configuration that does not change has one generation', async () => {
  const scene = new Scene();
  const before = scene.driver.read(mmio.MMIO_CONFIG_GENERATION);
  readyToRead(scene);
  assert.equal(scene.driver.read(mmio.MMIO_CONFIG_GENERATION), before);
  await scene.finish();
});
