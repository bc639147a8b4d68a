// A console's driver and device, each with a peer that breaks the rules.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
  virtioConsoleConfig,
  virtioConsoleControl,
} from '../../src/abi/virtio-console.ts';
import { VIRTIO_ID_CONSOLE } from '../../src/abi/virtio.ts';
import { ConsoleDevice } from '../../src/devices/console.ts';
import { CONSOLE_BACKLOG } from '../../src/devices/console-port.ts';
import { ConsoleScene, someBytes, terminal, TestEndpoint } from '../support/console.test.helper.ts';
import { HostileScene, HostileDisk } from '../support/hostile-disk.test.helper.ts';
import { BASE, Scene } from '../support/scene.test.helper.ts';

/** A device that says what the test wants on its control queue. */
class HostileConsole extends HostileDisk {
  override readonly config = virtioConsoleConfig.make({ max_nr_ports: 0xffff_ffff }).bytes;

  constructor() {
    const queueSizes = Array.from({ length: 34 }, () => 16);
    super({ deviceId: VIRTIO_ID_CONSOLE, features: VIRTIO_CONSOLE_F_MULTIPORT, queueSizes });
  }
}

function hostile() {
  const device = new HostileConsole();
  const scene = new HostileScene(device);
  const place = { base: BASE, backend: scene.backend.ports.id, device: 0 };
  const console = scene.guest.attachConsole(place, 'bounce');
  /** Sends a control message in the oldest buffer that holds one, and returns what the driver has said. */
  const say = (id: number, event: number, value: number, more: readonly number[] = []) => {
    scene.run();
    const at = device.held.findIndex(({ chain }) => chain.writable.byteLength > 0);
    const [{ queue, chain }] = device.held.splice(at, 1);
    const bytes = [...virtioConsoleControl.make({ id, event, value }).bytes, ...more];
    chain.writable.copyFrom(Uint8Array.from(bytes), 0);
    queue.complete(chain, 0, bytes.length);
    console.poll();
  };
  return { scene, device, console, say };
}

test('B16: ports that are none, messages about ports that nobody announced: counted, and nothing changes', () => {
  const { scene, console, say } = hostile();
  for (const id of [16, 17, 0x7fff_ffff, 0xffff_ffff]) say(id, VIRTIO_CONSOLE_DEVICE_ADD, 1);
  for (const event of [VIRTIO_CONSOLE_DEVICE_REMOVE, VIRTIO_CONSOLE_PORT_OPEN, VIRTIO_CONSOLE_RESIZE, 99])
    say(0, event, 1);
  assert.deepEqual([console.ports.length, console.ignored, console.failure], [0, 8, undefined]);
  scene.guest.detach(console);
  scene.nothingLeft();
});

test('B16: a port that comes and goes without end takes no more memory than one that stays', () => {
  const { scene, console, say } = hostile();
  say(0, VIRTIO_CONSOLE_DEVICE_ADD, 1);
  say(0, VIRTIO_CONSOLE_DEVICE_REMOVE, 1);
  const { pagesFree } = scene.guest.ports.memory;
  for (let round = 0; round < 50; round++) {
    say(0, VIRTIO_CONSOLE_DEVICE_ADD, 1);
    say(0, VIRTIO_CONSOLE_DEVICE_REMOVE, 1);
  }
  assert.equal(scene.guest.ports.memory.pagesFree, pagesFree);
  assert.deepEqual([console.ports.length, console.ignored], [0, 0]);
  scene.guest.detach(console);
  scene.nothingLeft();
});

test('D9: a name full of escape sequences is one that no terminal obeys, and it has an end', () => {
  const { scene, console, say } = hostile();
  say(0, VIRTIO_CONSOLE_DEVICE_ADD, 1);
  say(0, VIRTIO_CONSOLE_PORT_NAME, 1, [0x1b, 0x5b, 0x32, 0x4a, 0x07, ...new Uint8Array(3000).fill(0x61)]);
  assert.equal(console.ports[0].name, `\ufffd[2J\ufffd${'a'.repeat(59)}`);
  scene.guest.detach(console);
  scene.nothingLeft();
});

test('B17: a device that returns every buffer with nothing in it is not asked for ever', async () => {
  const scene = new ConsoleScene([terminal(new TestEndpoint())], { mode: 'copy', access: 'map' });
  await scene.rest();
  assert.match(scene.console.failure ?? '', /nothing in them/);
  scene.finish();
});

test('F33: a guest that posts no buffers: the host is told that nothing fits, and of room when there is some', async () => {
  const endpoint = new TestEndpoint();
  const scene = new ConsoleScene([terminal(endpoint)]);
  const accepted = endpoint.line.send(new Uint8Array(10 * CONSOLE_BACKLOG));
  assert.equal(accepted, CONSOLE_BACKLOG);
  assert.equal(endpoint.line.send(new Uint8Array(1)), 0);
  assert.equal(endpoint.rooms, 0);
  const port = await scene.open();
  assert.equal(endpoint.rooms, 1);
  assert.equal((await scene.read(port, accepted)).length, accepted);
  scene.finish();
});

test('F33 F26: a driver that asks for everything again and again, and is reset with buffers posted', async () => {
  const endpoint = new TestEndpoint();
  const device = new ConsoleDevice([terminal(endpoint)]);
  const scene = new Scene({ device });
  scene.driver.negotiate();
  const queues = [0, 1, 2, 3].map((index) => scene.driver.layOut(index, 16));
  for (const queue of queues) scene.driver.enable(queue);
  scene.driver.driverOk();
  const page = scene.driver.share(1);
  const tell = (id: number, event: number) => {
    page.bytes.set(virtioConsoleControl.make({ id, event, value: 1 }).bytes);
    scene.driver.chain(queues[3], 0, [{ at: page, length: 8 }]);
    scene.driver.submit(queues[3], 0);
  };
  tell(0, VIRTIO_CONSOLE_PORT_READY);
  tell(7, VIRTIO_CONSOLE_PORT_OPEN);
  assert.equal(device.ignored, 2, 'nothing was announced, and there is no port 7');
  for (let round = 0; round < 100; round++) {
    tell(0, VIRTIO_CONSOLE_DEVICE_READY);
    tell(0, VIRTIO_CONSOLE_PORT_READY);
  }
  // One message of each kind, however often it was asked for.
  const answers = scene.driver.share(1);
  for (let head = 0; head < 8; head++) {
    scene.driver.chain(queues[2], head, [{ at: answers, length: 128, writable: true }]);
    scene.driver.submit(queues[2], head);
  }
  assert.equal(queues[2].used.index, 5);
  endpoint.allowance = 0;
  scene.driver.chain(queues[1], 0, [{ at: page, length: 4096 }]);
  scene.driver.submit(queues[1], 0);
  assert.equal(queues[1].used.index, 0, 'what the host does not take stays in the buffers of the guest');
  scene.driver.reset();
  endpoint.allow(Number.POSITIVE_INFINITY);
  assert.equal(endpoint.bytes.length, 0, 'a reset drops what was under way');
  await scene.finish();
});

test('F25 D9: whatever a guest writes is data, in pieces of a page at most', async () => {
  const endpoint = new TestEndpoint();
  const device = new ConsoleDevice([terminal(endpoint)]);
  const scene = new Scene({ device });
  scene.driver.negotiate();
  const queues = [0, 1, 2, 3].map((index) => scene.driver.layOut(index, 16));
  for (const queue of queues) scene.driver.enable(queue);
  scene.driver.driverOk();
  const pages = scene.driver.share(4);
  pages.bytes.set(someBytes(4 * 4096));
  scene.driver.chain(queues[1], 0, [
    { at: pages, length: 4 * 4096 },
    { at: pages, length: 100 },
  ]);
  scene.driver.submit(queues[1], 0);
  assert.deepEqual(endpoint.bytes, [...someBytes(4 * 4096), ...someBytes(100)]);
  assert.ok(endpoint.longest <= 4096);
  await scene.finish();
});
