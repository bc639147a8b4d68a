// A driver whose descriptor chains break the rules of virtio 1.3 §2.7.5.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTQ_DESC_F_NEXT } from '../../src/abi/split-ring.ts';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { NO_STATUS, readyToRead, Scene } from '../support/scene.test.helper.ts';

for (const head of [16, 17, 0x7fff, 0xffff]) {
  test(`F1 a head of ${head} in a queue of 16 breaks the device`, async () => {
    const scene = new Scene();
    const { queue } = readyToRead(scene);
    scene.driver.submit(queue, head);
    await scene.broken('§2.7.6');
  });
}

for (const next of [16, 0xffff]) {
  test(`F2 a next of ${next} in a table of 16 breaks the device`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    queue.table.write(0, request.head.low, request.head.high, 16, VIRTQ_DESC_F_NEXT, next);
    scene.driver.submit(queue, 0);
    await scene.broken('§2.7.5');
    assert.equal(request.data.bytes[512], NO_STATUS, 'nothing was written');
  });
}

for (const period of [1, 2, 16]) {
  test(`F3 a chain that loops after ${period} descriptors breaks the device`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    const { low, high } = request.head;
    for (let i = 0; i < period; i++) queue.table.write(i, low, high, 16, VIRTQ_DESC_F_NEXT, (i + 1) % period);
    scene.driver.submit(queue, 0);
    await scene.broken('§2.7.5.2');
  });
}

test('F3 F5 a loop of empty descriptors breaks the device', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  for (let i = 0; i < 2; i++) queue.table.write(i, 0, 0, 0, VIRTQ_DESC_F_NEXT, 1 - i);
  scene.driver.submit(queue, 0);
  await scene.broken('§2.7.5.2');
});

test('F5 empty descriptors anywhere in a chain are skipped', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const [header, data, status] = request.read(512);
  const nothing = { at: { low: 0, high: 0 }, length: 0 };
  const nowhere = { at: { low: 0xffff_ffff, high: 0xffff_ffff }, length: 0, writable: true };
  scene.driver.chain(queue, 0, [nothing, header, nothing, nowhere, data, nowhere, status, nowhere]);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  assert.deepEqual(request.data.bytes.slice(0, 512), scene.bytes.slice(0, 512));
  await scene.finish();
});

test('F5 a chain of nothing but empty descriptors has no room for a status: the device breaks', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  scene.driver.chain(
    queue,
    0,
    Array.from({ length: 16 }, (_, i) => ({ at: { low: 0, high: 0 }, length: 0, writable: i > 3 })),
  );
  scene.driver.submit(queue, 0);
  await scene.broken('§5.2.6');
});

test('F6 a buffer that runs past the last grant reference, the end of 2^64, breaks the device', async () => {
  const scene = new Scene();
  const { queue } = readyToRead(scene);
  const last = { low: 0xffff_f000, high: 0x8000_0fff };
  scene.driver.chain(queue, 0, [
    { at: last, length: 16 },
    { at: last, length: 4097, writable: true },
  ]);
  scene.driver.submit(queue, 0);
  await scene.broken('VIRTIO_F_ACCESS_PLATFORM §6.1');
});

test('F6 a chain of more than 2^32 bytes breaks the device', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  scene.driver.chain(queue, 0, [
    { at: request.head, length: 0xffff_ffff },
    { at: request.data, length: 2, writable: true },
  ]);
  scene.driver.submit(queue, 0);
  await scene.broken('§2.7.5.2');
});

test('F6 a buffer of 4 GiB behind one granted page fails that request alone', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const [header, , status] = request.read(512);
  scene.driver.chain(queue, 0, [header, { at: request.data, length: 0xffff_0000, writable: true }, status]);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_IOERR);
  assert.equal(queue.used.index, 1);
  await scene.worksAfterReset();
  await scene.finish();
});

test('F16 a readable descriptor behind a writable one breaks the device, and nothing is written', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const [header, data, status] = request.read(512);
  scene.driver.chain(queue, 0, [header, data, { ...header, length: 4 }, status]);
  scene.driver.submit(queue, 0);
  await scene.broken('§2.7.4.2');
  assert.ok(request.data.bytes.every((byte) => byte === NO_STATUS));
});

test('F17 a read request whose data buffer is readable writes nothing there', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const [header, data, status] = request.read(512);
  scene.driver.chain(queue, 0, [header, { ...data, writable: false }, status]);
  const before = request.data.bytes.slice(0, 512);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_IOERR, 'there is no room for data: an error');
  assert.deepEqual(request.data.bytes.slice(0, 512), before);
  await scene.worksAfterReset();
  await scene.finish();
});

test('F17 a buffer that the device only reads is mapped read-only', async () => {
  const asked: boolean[] = [];
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const { grantMapper } = scene.backend.ports;
  const map = grantMapper.map.bind(grantMapper);
  grantMapper.map = (owner, ref, readonly) => {
    if (ref === request.head.ref || ref === request.data.ref) asked.push(readonly);
    return map(owner, ref, readonly);
  };
  scene.driver.submit(queue, 0);
  assert.deepEqual(asked, [true, false, false], 'header, data, status');
  await scene.finish();
});

test('F3 a chain of exactly the queue size is served', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const [header, , status] = request.read(512);
  const pieces = Array.from({ length: 14 }, (_, i) => ({
    at: { low: request.data.low + i * 36, high: request.data.high },
    length: i < 13 ? 36 : 512 - 13 * 36,
    writable: true,
  }));
  scene.driver.chain(queue, 0, [header, ...pieces, status]);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  assert.deepEqual(request.data.bytes.slice(0, 512), scene.bytes.slice(0, 512));
  await scene.finish();
});
