// Entropy device and driver against virtio 1.3 §5.4.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MMIO_DEVICE_ID, MMIO_QUEUE_SEL, MMIO_QUEUE_SIZE_MAX } from '../../src/abi/virtio-mmio.ts';
import { RngDevice } from '../../src/devices/rng.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';
import { BASE, Scene } from '../support/scene.test.helper.ts';

test('§5.4.1 §5.4.2 an entropy device has id 4 and one queue', async () => {
  const scene = new Scene({ device: new RngDevice((bytes) => bytes.fill(1)) });
  assert.equal(scene.driver.read(MMIO_DEVICE_ID), 4);
  const sizes = [0, 1].map((index) => {
    scene.driver.write(MMIO_QUEUE_SEL, index);
    return scene.driver.read(MMIO_QUEUE_SIZE_MAX);
  });
  assert.deepEqual(sizes, [64, 0]);
  await scene.finish();
});

test('§5.4.6 the buffer is filled with random bytes, whatever its pieces, and the length says how many', async () => {
  let next = 0;
  const scene = new Scene({
    device: new RngDevice((bytes) => {
      for (let i = 0; i < bytes.length; i++) bytes[i] = ++next & 0xff;
    }),
  });
  const queue = scene.driver.start(16);
  const pages = scene.driver.share(1);
  const piece = (from: number, length: number) => ({
    at: { low: pages.low + from, high: pages.high },
    length,
    writable: true,
  });
  scene.driver.chain(queue, 0, [piece(100, 10), piece(0, 5), piece(4000, 96)]);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.len(0), 111);
  const got = [...pages.bytes.slice(100, 110), ...pages.bytes.slice(0, 5), ...pages.bytes.slice(4000)];
  assert.deepEqual(
    got,
    Array.from({ length: 111 }, (_, i) => i + 1),
  );
  await scene.finish();
});

test('§5.4.6.1 the driver offers nothing but writable buffers', async () => {
  const scene = new HostileScene(new HostileDisk({ deviceId: 4, features: 0n, queueSizes: [8] }));
  const rng = scene.guest.attachRng({ base: BASE, backend: scene.backend.ports.id, device: 0 }, 'bounce');
  const read = rng.read(100);
  const failed = assert.rejects(read);
  await Promise.resolve();
  scene.run();
  const { readable, writable } = scene.device.held[0].chain;
  assert.deepEqual([readable.byteLength, writable.byteLength], [0, 100]);
  scene.guest.detach(rng);
  await failed;
  scene.nothingLeft();
});
