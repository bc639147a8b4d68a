// A console's driver and device, each with a peer that breaks the rules.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  VIRTIO_CONSOLE_CONSOLE_PORT,
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
import { CONSOLE_BACKLOG } from '../../src/devices/console-port.ts';
import { rawTerminal, someBytes, terminalScene } from '../support/console.test.helper.ts';
import { HostileScene, HostileDisk } from '../support/hostile-disk.test.helper.ts';
import { BASE } from '../support/scene.test.helper.ts';

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

test('B16: a storm of sizes: each is taken, none is kept; of a port that is no console none is taken', () => {
  const { scene, console, say } = hostile();
  say(0, VIRTIO_CONSOLE_DEVICE_ADD, 1);
  say(0, VIRTIO_CONSOLE_RESIZE, 0, [1, 0, 1, 0]);
  assert.deepEqual([console.ports[0].size, console.ignored], [undefined, 1]);
  say(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
  const { pagesFree } = scene.guest.ports.memory;
  for (let columns = 0; columns < 200; columns++) say(0, VIRTIO_CONSOLE_RESIZE, 0, [columns, 1, 24, 0]);
  say(0, VIRTIO_CONSOLE_RESIZE, 0, [1, 0]);
  assert.deepEqual([console.ports[0].size, console.ignored], [{ columns: 256 + 199, rows: 24 }, 2]);
  assert.equal(scene.guest.ports.memory.pagesFree, pagesFree);
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
  const { scene } = terminalScene({ mode: 'copy', access: 'map' });
  await scene.rest();
  assert.match(scene.console.failure ?? '', /nothing in them/);
  scene.finish();
});

test('F33: a guest that posts no buffers: the host is told that nothing fits, and of room when there is some', async () => {
  const { endpoint, scene } = terminalScene();
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
  const { endpoint, raw } = rawTerminal();
  raw.tell(0, VIRTIO_CONSOLE_PORT_READY);
  raw.tell(7, VIRTIO_CONSOLE_PORT_OPEN);
  assert.equal(raw.device.ignored, 2, 'nothing was announced, and there is no port 7');
  for (let round = 0; round < 100; round++) {
    raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY);
    raw.tell(0, VIRTIO_CONSOLE_PORT_READY);
  }
  assert.equal(raw.hearAll().length, 5, 'one message of each kind, however often it was asked for');
  endpoint.allowance = 0;
  raw.write(1, { at: raw.scene.driver.share(1), length: 4096 });
  assert.equal(raw.queues[1].used.index, 0, 'what the host does not take stays in the buffers of the guest');
  raw.scene.driver.reset();
  endpoint.allow(Number.POSITIVE_INFINITY);
  assert.equal(endpoint.bytes.length, 0, 'a reset drops what was under way');
  await raw.scene.finish();
});

test('F25 D9: whatever a guest writes is data, in pieces of a page at most', async () => {
  const { endpoint, raw } = rawTerminal();
  const pages = raw.scene.driver.share(4);
  pages.bytes.set(someBytes(4 * 4096));
  raw.write(1, { at: pages, length: 4 * 4096 }, { at: pages, length: 100 });
  assert.deepEqual(endpoint.bytes, [...someBytes(4 * 4096), ...someBytes(100)]);
  assert.ok(endpoint.longest <= 4096);
  await raw.scene.finish();
});

test('F25 F5: buffers of the wrong direction, or of no length, come back and carry nothing', async () => {
  const { endpoint, raw } = rawTerminal();
  const page = raw.scene.driver.share(1);
  page.bytes.fill(0x5a);
  for (const event of [VIRTIO_CONSOLE_DEVICE_READY, VIRTIO_CONSOLE_PORT_READY, VIRTIO_CONSOLE_PORT_OPEN])
    raw.tell(0, event);
  raw.write(0, { at: page, length: 100 });
  endpoint.line.send(someBytes(10));
  assert.equal(raw.queues[0].used.index, 1, 'nothing fits where the device must not write');
  raw.write(1, { at: page, length: 100, writable: true });
  raw.write(1, { at: page, length: 0 });
  assert.equal(raw.queues[1].used.index, 2);
  assert.equal(endpoint.bytes.length, 0);
  raw.write(0, { at: page, length: 100, writable: true });
  assert.deepEqual([...page.bytes.slice(0, 11)], [...someBytes(10), 0x5a], 'the bytes went to the next one');
  await raw.scene.finish();
});

test('F33: control messages that are too short, or buffers too short for them, are counted', async () => {
  const { raw } = rawTerminal();
  const page = raw.scene.driver.share(1);
  raw.write(3, { at: page, length: 7 });
  assert.equal(raw.device.ignored, 1);
  raw.write(2, { at: page, length: 7, writable: true });
  raw.tell(0, VIRTIO_CONSOLE_DEVICE_READY);
  assert.deepEqual([raw.device.ignored, raw.queues[2].used.index, raw.queues[2].used.len(0)], [2, 1, 0]);
  await raw.scene.finish();
});
