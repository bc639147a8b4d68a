// A driver whose available index lies, who notifies when it should not, or who never stops.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { MMIO_INTERRUPT_STATUS, MMIO_QUEUE_NOTIFY } from '../../src/abi/virtio-mmio.ts';
import { VIRTIO_F_EVENT_IDX } from '../../src/abi/virtio.ts';
import { BASE, NO_STATUS, readyToRead, Scene } from '../support/scene.test.helper.ts';

for (const ahead of [17, 18, 1000, 0x8000, 0xfffe]) {
  test(`F7 an available index ${ahead} ahead in a queue of 16 breaks the device`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    queue.available.index = ahead;
    scene.driver.notify(0);
    scene.driver.run();
    await scene.broken('§2.7.6.1');
    assert.equal(request.data.bytes[512], NO_STATUS, 'no entry was walked');
  });
}

for (const back of [1, 2, 16]) {
  test(`F8 an available index that moves back by ${back} breaks the device`, async () => {
    const scene = new Scene();
    const { queue } = readyToRead(scene);
    scene.driver.submit(queue, 0);
    assert.equal(queue.used.index, 1);
    queue.available.index = (1 - back) & 0xffff;
    scene.driver.notify(0);
    scene.driver.run();
    await scene.broken('§2.7.6.1');
  });
}

test('F7 a full queue, as far ahead as the index may be, is served once each', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  for (let i = 0; i < 5; i++) scene.driver.offer(queue, 0);
  scene.driver.notify(0);
  scene.driver.run();
  // One head five times: each entry is a request of its own, for the device completes them one by one.
  assert.equal(queue.used.index, 5);
  scene.driver.notify(0);
  scene.driver.run();
  assert.equal(queue.used.index, 5, 'nothing is served twice');
  await scene.finish();
});

test('F24 notifications before DRIVER_OK, after a reset, and for queues that are not there change nothing', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  const queue = driver.layOut(0, 16);
  driver.enable(queue);
  driver.offer(queue, 0);
  const ringBefore = queue.pages.bytes.slice();
  const quiet = () => {
    for (const index of [0, 1, 2, 31, 32, 63, 64, 65535, 0xffff_ffff]) driver.notify(index);
    driver.run();
    assert.equal(driver.interrupts, 0);
    assert.equal(driver.read(MMIO_INTERRUPT_STATUS), 0);
    assert.deepEqual(queue.pages.bytes, ringBefore, 'the ring is not touched');
  };
  quiet();
  driver.reset();
  quiet();
  driver.negotiate();
  driver.driverOk();
  // Queue 0 has not been enabled since the reset, queue 1 never, and there is no queue 2.
  quiet();
  await scene.worksAfterReset();
  for (const index of [1, 2, 63, 64, 0xffff_ffff]) driver.notify(index);
  driver.run();
  await scene.neighbourWorks();
  await scene.finish();
});

test('F24 a notification through a narrow write is lost, not misread', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  scene.driver.offer(queue, 0);
  scene.driver.guest.ports.mmio.write(BASE + MMIO_QUEUE_NOTIFY + 1, 1, 0);
  scene.driver.run();
  assert.equal(queue.used.index, 0);
  await scene.finish();
});

test('F25 a ring that is refilled for ever gets its turn and no more: the neighbour is served meanwhile', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  let refills = 0;
  const { grantMapper } = scene.backend.ports;
  const unmap = grantMapper.unmap.bind(grantMapper);
  let storm = true;
  grantMapper.unmap = (handle) => {
    // The hostile guest's other processor adds a request whenever the backend looks away.
    if (storm && ((queue.available.index - queue.used.index) & 0xffff) < 8) {
      scene.driver.offer(queue, 0);
      refills++;
    }
    return unmap(handle);
  };
  scene.driver.offer(queue, 0);
  scene.driver.notify(0);
  for (let turn = 0; turn < 20; turn++) {
    const before = queue.used.index;
    scene.backend.poll();
    assert.ok(((queue.used.index - before) & 0xffff) <= 128, 'the work of a turn is bounded');
  }
  assert.ok(refills > 500, `the storm goes on, ${refills} refills`);
  await scene.neighbourWorks();
  storm = false;
  scene.driver.run();
  assert.equal(queue.used.index, queue.available.index, 'what was offered is served in the end');
  await scene.finish();
});

test('F25 chains of large buffers get fewer to a turn: the neighbour does not wait for all of them', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  const pages = 60;
  const large = scene.driver.share(pages);
  const piece = { at: large, length: pages * 4096, writable: true };
  scene.driver.chain(queue, 0, new Array(16).fill(piece));
  for (let i = 0; i < 16; i++) scene.driver.offer(queue, 0);
  scene.driver.notify(0);
  const { grantMapper } = scene.backend.ports;
  const map = grantMapper.map.bind(grantMapper);
  let maps = 0;
  grantMapper.map = (owner, ref, readonly) => {
    maps++;
    return map(owner, ref, readonly);
  };
  let turns = 0;
  for (; queue.used.index < 16; turns++) {
    maps = 0;
    scene.backend.poll();
    // A turn for the doorbell, one for what it left over; each 64 pieces of 256 KiB, and the rest of a chain.
    assert.ok(maps <= 2 * (64 * 64 + 16 * pages), `${maps} pages are mapped in two turns`);
  }
  assert.ok(turns > 1);
  scene.driver.run();
  await scene.finish();
});

test('F25 a storm of notifications costs nothing but looks at an empty ring', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  for (let i = 0; i < 10_000; i++) scene.driver.notify(0);
  scene.driver.run();
  assert.equal(queue.used.index, 0);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});

test('F34 a driver that never looks at the used ring has at most its own queue in flight', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene, VIRTIO_F_EVENT_IDX);
  for (let round = 0; round < 100; round++) {
    for (let i = 0; i < 16; i++) scene.driver.offer(queue, 0);
    scene.driver.notify(0);
    scene.driver.run();
    assert.equal(scene.mappedOfSuspect, 3, 'only the rings are mapped between two requests');
  }
  assert.equal(queue.used.index, 1600);
  await scene.finish();
});
