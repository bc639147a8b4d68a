// Console device and driver against virtio 1.3 §5.3.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_CONSOLE_F_MULTIPORT } from '../../src/abi/virtio-console.ts';
import { ConsoleDevice } from '../../src/devices/console.ts';
import { ConsoleScene, someBytes, terminal, TestEndpoint } from '../support/console.test.helper.ts';

test('§5.3.2 a device of n ports has 2n + 2 queues; 31 are the most, and none is refused', () => {
  const ports = (count: number) => Array.from({ length: count }, () => terminal(new TestEndpoint()));
  assert.deepEqual(
    [1, 2, 31].map((count) => new ConsoleDevice(ports(count)).queueSizes.length),
    [4, 6, 64],
  );
  assert.throws(() => new ConsoleDevice(ports(0)), RangeError);
  assert.throws(() => new ConsoleDevice(ports(32)), RangeError);
});

test('§5.3.5 without MULTIPORT there is one port, open from the start, and its size is in the configuration', async () => {
  const endpoint = new TestEndpoint();
  const scene = new ConsoleScene([terminal(endpoint)], { hidden: VIRTIO_CONSOLE_F_MULTIPORT });
  assert.deepEqual(endpoint.openings, [true]);
  const port = await scene.open();
  assert.deepEqual(port.size, { columns: 80, rows: 24 });
  await scene.machine.settle(port.write(someBytes(5000)));
  assert.deepEqual(endpoint.bytes, [...someBytes(5000)]);
  const sizes: unknown[] = [];
  port.onResize = (size) => sizes.push(size);
  scene.device.resize(0, { columns: 132, rows: 50 });
  await scene.rest();
  assert.deepEqual(sizes, [{ columns: 132, rows: 50 }]);
  scene.finish();
});

test('§5.3.6.2 a new size is told by a control message; of a storm of sizes the last one counts', async () => {
  const scene = new ConsoleScene([terminal(new TestEndpoint())]);
  const port = await scene.open();
  const sizes: number[] = [];
  port.onResize = ({ columns }) => sizes.push(columns);
  for (let columns = 1; columns <= 1000; columns++) scene.device.resize(0, { columns, rows: 24 });
  await scene.rest();
  assert.equal(sizes.at(-1), 1000);
  assert.equal(scene.device.ignored + scene.console.ignored, 0);
  assert.throws(() => scene.device.resize(1, { columns: 1, rows: 1 }), RangeError);
  scene.finish();
});
