// Console device and driver against virtio 1.3 §5.3.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
  virtioConsoleConfig,
} from '../../src/abi/virtio-console.ts';
import { ConsoleDevice } from '../../src/devices/console.ts';
import {
  ConsoleScene,
  RawConsole,
  rawTerminal,
  someBytes,
  terminal,
  terminalScene,
  TestEndpoint,
} from '../support/console.test.helper.ts';

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
  const { endpoint, scene } = terminalScene({ hidden: VIRTIO_CONSOLE_F_MULTIPORT });
  assert.deepEqual(endpoint.openings, [true]);
  const port = await scene.open();
  assert.deepEqual(port.size, { columns: 80, rows: 24 });
  await scene.machine.settle(port.write(someBytes(5000)));
  assert.deepEqual(endpoint.bytes, [...someBytes(5000)]);
  const sizes: unknown[] = [];
  port.onResize = (size) => sizes.push(size);
  endpoint.line.resize({ columns: 132, rows: 50 });
  await scene.rest();
  assert.deepEqual(sizes, [{ columns: 132, rows: 50 }]);
  scene.finish();
});

test('§5.3.6.2 a new size is told by a control message; of a storm of sizes the last one counts', async () => {
  const { endpoint, scene } = terminalScene();
  const port = await scene.open();
  const sizes: number[] = [];
  port.onResize = ({ columns }) => sizes.push(columns);
  for (let columns = 1; columns <= 1000; columns++) endpoint.line.resize({ columns, rows: 24 });
  await scene.rest();
  assert.equal(sizes.at(-1), 1000);
  assert.equal(scene.device.ignored + scene.console.ignored, 0);
  scene.finish();
});

test('§5.3.6.2 what a device says, in which order, and that it says nothing before it is asked', async () => {
  const port = { name: 'agent', isConsole: false, endpoint: new TestEndpoint() };
  const raw = new RawConsole([terminal(new TestEndpoint()), port]);
  assert.deepEqual(raw.hearAll(), []);
  raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY);
  const added = { event: VIRTIO_CONSOLE_DEVICE_ADD, value: 1, more: [] };
  assert.deepEqual(raw.hearAll(), [
    { id: 0, ...added },
    { id: 1, ...added },
  ]);
  raw.tell(1, VIRTIO_CONSOLE_PORT_READY);
  assert.deepEqual(raw.hearAll(), [
    { id: 1, event: VIRTIO_CONSOLE_PORT_NAME, value: 1, more: [...Buffer.from('agent')] },
    { id: 1, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1, more: [] },
  ]);
  raw.tell(0, VIRTIO_CONSOLE_PORT_READY);
  assert.deepEqual(raw.hearAll(), [
    { id: 0, event: VIRTIO_CONSOLE_CONSOLE_PORT, value: 1, more: [] },
    { id: 0, event: VIRTIO_CONSOLE_PORT_NAME, value: 1, more: [...Buffer.from('tty')] },
    { id: 0, event: VIRTIO_CONSOLE_RESIZE, value: 0, more: [80, 0, 24, 0] },
    { id: 0, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1, more: [] },
  ]);
  await raw.scene.finish();
});

test('§5.3.6.2.1 a port that exists is not announced again', async () => {
  const { raw } = rawTerminal();
  for (const value of [0, 1, 1]) raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY, value);
  assert.equal(raw.hearAll().length, 1);
  raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY);
  assert.deepEqual([raw.hearAll().length, raw.device.ignored], [0, 3]);
  await raw.scene.finish();
});

test('§5.3.6.2 a port that the driver cannot use (PORT_READY 0) is told nothing, and is closed', async () => {
  const { endpoint, raw } = rawTerminal();
  raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY);
  raw.tell(0, VIRTIO_CONSOLE_PORT_READY);
  raw.tell(0, VIRTIO_CONSOLE_PORT_OPEN);
  assert.equal(raw.hearAll().length, 5);
  raw.tell(0, VIRTIO_CONSOLE_PORT_READY, 0);
  endpoint.line.resize({ columns: 1, rows: 1 });
  endpoint.line.setOpen(false);
  assert.deepEqual([raw.hearAll(), endpoint.openings], [[], [true, false]]);
  await raw.scene.finish();
});

test('C1: a device that takes the place of one that was killed takes its ports for open', () => {
  const endpoints = [new TestEndpoint(), new TestEndpoint()];
  const device = new ConsoleDevice(endpoints.map((endpoint) => terminal(endpoint)));
  const host = { completed: () => undefined, failed: () => undefined, configChanged: () => undefined };
  device.resume(VIRTIO_CONSOLE_F_MULTIPORT, host);
  assert.deepEqual(
    endpoints.map(({ openings }) => openings),
    [[true], [true]],
  );
  device.stop();
  device.resume(0n, host);
  assert.deepEqual(endpoints[1].openings, [true, false], 'without MULTIPORT there is one port');
});

test('§5.3.6.2.2 the driver opens a port that it is told is a console, without being asked', async () => {
  const endpoints = [new TestEndpoint(), new TestEndpoint()];
  const scene = new ConsoleScene([
    terminal(endpoints[0]),
    { name: 'agent', isConsole: false, endpoint: endpoints[1] },
  ]);
  await scene.rest();
  assert.deepEqual(
    endpoints.map(({ openings }) => openings),
    [[true], []],
  );
  scene.finish();
});

test('§5.3.4 §2.5.3 the configuration has the size of port 0, and its generation changes with it', () => {
  const endpoints = [new TestEndpoint(), new TestEndpoint()];
  const device = new ConsoleDevice(endpoints.map((endpoint) => terminal(endpoint)));
  const before = device.configGeneration;
  endpoints[1].line.resize({ columns: 1, rows: 2 });
  assert.equal(device.configGeneration, before);
  endpoints[0].line.resize({ columns: 300, rows: 100 });
  assert.notEqual(device.configGeneration, before);
  const { cols, rows, max_nr_ports: ports } = virtioConsoleConfig.over(device.config);
  assert.deepEqual([cols, rows, ports], [300, 100, 2]);
});
