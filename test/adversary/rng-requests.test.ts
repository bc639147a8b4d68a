// D8 Requests of an entropy device that ask for too much, or for nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RngDevice } from '../../src/devices/rng.ts';
import { Scene } from '../support/scene.test.helper.ts';

const MOST = 65536;

/** A source of 1, 2, 3, … that counts what was taken. */
function counting() {
  const source = { taken: 0 };
  const device = new RngDevice((bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = (source.taken++ % 255) + 1;
  });
  return { source, device };
}

test('D8 asked for 68 KiB, a request gets 64 KiB and no byte beyond', async () => {
  const { source, device } = counting();
  const scene = new Scene({ device });
  const queue = scene.driver.start(16);
  const pages = scene.driver.share(17);
  scene.driver.chain(queue, 0, [{ at: pages, length: 17 * 4096, writable: true }]);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.len(0), MOST);
  assert.equal(source.taken, MOST);
  assert.ok(pages.bytes.subarray(0, MOST).every((byte, i) => byte === (i % 255) + 1));
  assert.ok(pages.bytes.subarray(MOST).every((byte) => byte === 0));
  await scene.finish();
});

test('D8 asked for 1 GiB by naming one page again and again, a request is bounded all the same', async () => {
  const { source, device } = counting();
  const scene = new Scene({ device });
  const queue = scene.driver.start(16);
  const pages = scene.driver.share(17);
  scene.driver.chain(
    queue,
    0,
    Array.from({ length: 16 }, () => ({ at: pages, length: 17 * 4096, writable: true })),
  );
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.len(0), MOST);
  assert.equal(source.taken, MOST);
  await scene.finish();
});

test('D8 a request for nothing, or with nothing but readable buffers, gets nothing', async () => {
  const { source, device } = counting();
  const scene = new Scene({ device });
  const queue = scene.driver.start(16);
  const pages = scene.driver.share(1);
  scene.driver.chain(queue, 0, [{ at: pages, length: 100 }]);
  scene.driver.submit(queue, 0);
  scene.driver.chain(queue, 0, [{ at: pages, length: 0, writable: true }]);
  scene.driver.submit(queue, 0);
  assert.deepEqual([queue.used.index, queue.used.len(0), queue.used.len(1)], [2, 0, 0]);
  assert.equal(source.taken, 0);
  assert.ok(pages.bytes.every((byte) => byte === 0));
  await scene.finish();
});

test('D8 a buffer that was not granted gets nothing, and the next request is served', async () => {
  const { device } = counting();
  const scene = new Scene({ device });
  const queue = scene.driver.start(16);
  const pages = scene.driver.share(1);
  scene.driver.chain(queue, 0, [{ at: { low: 0x0010_0000, high: pages.high }, length: 16, writable: true }]);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.len(0), 0);
  scene.driver.chain(queue, 0, [{ at: pages, length: 16, writable: true }]);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.len(1), 16);
  await scene.finish();
});
