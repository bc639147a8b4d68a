// Devices that do not answer, do not reset, interrupt for nothing, or say of themselves that they are broken.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MMIO_CONFIG_GENERATION, MMIO_INTERRUPT_STATUS, MMIO_STATUS } from '../../src/abi/virtio-mmio.ts';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';

const OK = 0;
const ENODEV = { name: 'DiskError', code: 'ENODEV' };

for (const mode of EXPOSURE_MODES) {
  test(`B9 a device that never answers is given up: callers get an error, and everything back, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    const buffer = await disk.buffer(512);
    // More than the queue holds: some wait in the driver.
    const reads = Array.from({ length: 40 }, () => disk.read(0, buffer, 512));
    const outcomes = Promise.allSettled(reads);
    scene.run();
    assert.ok(scene.guest.busy);
    scene.guest.giveUp('the device did not answer in time');
    for (const outcome of await outcomes)
      assert.equal(outcome.status === 'rejected' && outcome.reason.code, ENODEV.code);
    assert.equal(scene.guest.busy, false);
    assert.match(disk.failure ?? '', /in time/);
    scene.detach(disk);
  });

  test(`B13 a device whose reset does nothing keeps what it maps in quarantine, not in use, ${mode}`, async () => {
    const scene = new HostileScene();
    const disk = scene.attach(mode);
    const buffer = await disk.buffer(512);
    const read = disk.read(0, buffer, 512);
    scene.run();
    const { mmio } = scene.guest.ports;
    const write = mmio.write.bind(mmio);
    mmio.write = (address, size, value) => {
      if ((address & 0xfff) !== MMIO_STATUS || value !== 0) write(address, size, value);
    };
    disk.fail('the test is impatient');
    await assert.rejects(read, ENODEV);
    const { memory } = scene.guest.ports;
    const left = scene.guest.detach(disk);
    assert.equal(left.live, 0);
    assert.ok(left.quarantined >= 3, 'rings, header and data at least');
    // Nothing that the backend can reach is handed out again.
    const reachable = new Set(reachablePages(scene));
    for (let page = memory.allocatePages(1); page !== undefined; page = memory.allocatePages(1))
      assert.ok(!reachable.has(page), `page ${page} is still mapped by the backend`);
    scene.served.state.reset();
    assert.equal(scene.backend.ports.grantMapper.live, 0);
  });
}

/** Guest-physical addresses of the guest's pages that the backend maps. */
function reachablePages(scene: HostileScene): number[] {
  const { grantMapper } = scene.backend.ports;
  const { base, region } = scene.guest.ports.memory;
  const pages: number[] = [];
  for (let handle = 0; handle < 64; handle++) {
    const offset = grantMapper.offset(handle);
    if (offset !== undefined) pages.push(base + offset - region.byteOffset);
  }
  return pages;
}

test('B13 a device that does not finish its reset is refused from the start', () => {
  const scene = new HostileScene();
  scene.lie((register, truth) => (register === MMIO_STATUS ? truth | 64 : truth));
  assert.throws(() => scene.attach('bounce'), {
    name: 'DeviceRefused',
    message: /does not finish its reset/,
  });
  scene.nothingLeft();
});

test('B13 a device that takes neither features nor DRIVER_OK is refused', () => {
  for (const [bit, message] of [
    [8, /does not accept the features/],
    [4, /did not start/],
  ] as const) {
    const scene = new HostileScene();
    scene.lie((register, truth) => (register === MMIO_STATUS ? truth & ~bit : truth));
    assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message });
    scene.nothingLeft();
  }
});

test('B10 a configuration that never stops changing is refused', () => {
  const scene = new HostileScene();
  let generation = 0;
  scene.lie((register, truth) => (register === MMIO_CONFIG_GENERATION ? generation++ : truth));
  assert.throws(() => scene.attach('bounce'), { name: 'DeviceRefused', message: /does not stop changing/ });
  assert.ok(generation < 100, 'it is tried a few times only');
});

test('B8 events for nothing, in any number and at any time, change nothing', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(512);
  const guest = scene.machine.xen.domain(scene.guest.ports.id);
  const flood = () => {
    for (let i = 0; i < 1000; i++)
      for (let port = 1; port < 64; port++) scene.machine.xen.events.raise(guest, port);
    scene.run();
  };
  flood();
  for (let round = 0; round < 5; round++) {
    const read = disk.read(0, buffer, 512);
    flood();
    assert.equal(scene.device.held.length, 1, 'the request is still with the device');
    scene.device.serve(OK);
    flood();
    await scene.machine.settle(read);
    assert.equal(disk.failure, undefined);
  }
  scene.detach(disk);
  flood();
});

test('B8 an interrupt status with all bits set, of a device that is well, changes nothing', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(512);
  scene.lie((register, truth) => (register === MMIO_INTERRUPT_STATUS ? 0xffff_ffff : truth));
  for (let i = 0; i < 100; i++) disk.interrupt();
  const read = disk.read(0, buffer, 512);
  scene.run();
  scene.device.serve(OK);
  disk.interrupt();
  await read;
  assert.ok(buffer.bytes.subarray(0, 512).every((byte) => byte === HostileDisk.CONTENT));
  scene.detach(disk);
});

test('B20 a device that says it needs a reset is given up at once', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(512);
  const read = disk.read(0, buffer, 512);
  const rejected = assert.rejects(read, ENODEV);
  scene.lie((register, truth) => {
    if (register === MMIO_STATUS && truth !== 0) return truth | 64;
    return register === MMIO_INTERRUPT_STATUS ? 2 : truth;
  });
  disk.interrupt();
  await rejected;
  assert.match(disk.failure ?? '', /needs a reset/);
  scene.detach(disk);
});

test('B20 a device whose registers read as all ones, for nobody serves it any more, is given up', async () => {
  const scene = new HostileScene();
  const disk = scene.attach('bounce');
  const buffer = await disk.buffer(512);
  const read = disk.read(0, buffer, 512);
  const rejected = assert.rejects(read, ENODEV);
  scene.run();
  scene.backend.remove(scene.served);
  disk.interrupt();
  await rejected;
  scene.detach(disk);
});
