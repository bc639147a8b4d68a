// A backend that is killed, and another process of the same domain that goes on where it ended: the guest is one that
// neither notices nor resets anything, as Linux is. What the two have in common is what was kept outside of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../../src/abi/region.ts';
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../src/abi/virtio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { VirtioDevice } from '../../src/virtio/device.ts';
import { BackendDomain, type ServedDevice } from '../../src/machine/backend-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import { KeptDevice, keptDeviceSize } from '../../src/serving/kept-device.ts';
import { DiskWork, OPTIONS } from '../support/disk-work.test.helper.ts';
import { LateStore } from '../support/late-store.test.helper.ts';
import { MortalHost } from '../support/mortal-host.test.helper.ts';
import { BASE, DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const [BACKEND, GUEST] = [1, 2];

/** A guest's disk, whose backend can be killed and followed by another. */
function stage(seed: number) {
  const machine = new Machine({ seed });
  const { ports } = machine.createBackend(BACKEND);
  const guest = machine.createGuest(GUEST, { memory: 2 ** 21 });
  const bytes = diskBytes(DISK_SIZE, 0x31);
  const record = regionOver(new ArrayBuffer(keptDeviceSize([16, 16])));
  let kept = true;
  const life = (device: VirtioDevice, store: LateStore) => {
    const host = new MortalHost(ports);
    const backend = new BackendDomain(host);
    const keeper = new KeptDevice(record, device, (forget) => {
      kept = !forget;
    });
    const served = backend.serve(device, guest.ports.id, BASE, 'map', { keeper });
    return { host, backend, served, store };
  };
  const start = () => {
    const store = new LateStore(bytes);
    return life(new BlkDevice(store, { ...OPTIONS, id: 'disk' }), store);
  };
  return { machine, ports, guest, bytes, record, start, isKept: () => kept };
}

const PLACE = { base: BASE, backend: BACKEND as never, device: 0 };

for (const mode of ['bounce', 'direct'] as const)
  test(`C1: ${mode}: a backend that is killed at any step is followed; each request is done, and answered once`, async () => {
    for (let seed = 0; seed < 12; seed++) {
      const { machine, ports, guest, bytes, start } = stage(seed);
      let current = start();
      const disk = guest.attachBlk(PLACE, mode, OPTIONS);
      const work = new DiskWork(bytes);
      await work.begin(disk);
      let killed = 0;
      for (let step = 0; step < 4000 && work.answered < 26; step++) {
        machine.step();
        current.backend.poll();
        // Out of order: what was taken first may be answered last.
        current.store.answer(step * 7 + seed);
        await Promise.resolve();
        if (step % 11 !== seed % 11 || killed === 5) continue;
        killed++;
        current.store.orphan();
        current.host.die();
        current = start();
        assert.equal(current.served.resumed, true);
      }
      assert.equal(killed, 5);
      for (
        let step = 0;
        step < 4000 && (machine.step() || current.backend.poll() || current.store.answer());
        step++
      )
        await Promise.resolve();
      await work.finish(machine);
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      current.backend.remove(current.served);
      assert.equal(ports.grantMapper.live, 0);
    }
  });

test('C1: a backend that is killed while the driver sets the device up is followed, register by register', async () => {
  for (let at = 0; at < 60; at++) {
    const { machine, guest, bytes, start } = stage(at);
    let current = start();
    let accesses = 0;
    const { mmio } = guest.ports;
    const write = mmio.write.bind(mmio);
    mmio.write = (address, size, value) => {
      write(address, size, value);
      if (accesses++ !== at) return;
      current.host.die();
      current = start();
    };
    const disk = guest.attachBlk(PLACE, 'bounce', OPTIONS);
    const work = new DiskWork(bytes);
    await work.begin(disk);
    for (
      let step = 0;
      step < 4000 && (machine.step() || current.backend.poll() || current.store.answer());
      step++
    )
      await Promise.resolve();
    await work.finish(machine);
  }
});

test('a backend that leaves in order is followed as one that was killed, and one that ends leaves nothing', async () => {
  const { machine, ports, guest, bytes, start, isKept } = stage(3);
  const first = start();
  const disk = guest.attachBlk(PLACE, 'bounce', OPTIONS);
  const work = new DiskWork(bytes);
  await work.begin(disk);
  for (let step = 0; step < 9; step++) machine.step();
  first.backend.leave(first.served);
  assert.equal(ports.grantMapper.live, 0);
  assert.equal(isKept(), true);
  first.host.die();
  const second = start();
  for (
    let step = 0;
    step < 4000 && (machine.step() || second.backend.poll() || second.store.answer());
    step++
  )
    await Promise.resolve();
  await work.finish(machine);
  guest.detach(disk);
  second.backend.remove(second.served);
  assert.equal(isKept(), false);
});

test('T9: whatever the record says, the device works or is broken, and nothing else', async () => {
  for (let seed = 0; seed < 200; seed++) {
    const { machine, guest, bytes, record, start } = stage(seed);
    const first = start();
    const disk = guest.attachBlk(PLACE, 'bounce', OPTIONS);
    const work = new DiskWork(bytes);
    await work.begin(disk);
    for (let step = 0; step < 5; step++) machine.step();
    first.host.die();
    // Behind the magic number, the layout, and the shape of the device.
    for (let i = 0; i < 4; i++)
      record.u8[12 + ((seed * 7919 + i * 104729) % (record.byteLength - 12))] ^= 1 << ((seed + i) % 8);
    const second = startOrRefuse(start);
    for (let step = 0; step < 200 && machine.step(); step++) second?.backend.poll();
    if (second !== undefined) second.backend.remove(second.served);
  }
});

test('a device that is not made as its predecessor’s was is refused in a sentence', () => {
  const { record, start } = stage(1);
  start();
  record.u32[2] = 4;
  record.u32[0] = 0x6f697267;
  record.u16[2] = 1;
  record.u16[3] = 2;
  assert.throws(() => start(), /a predecessor served the guest a device of type 4 with 2 queues there/);
});

test('a driver that uses what the device has no more finds it broken', () => {
  const { record, start } = stage(1);
  const first = start();
  first.host.die();
  const keeper = new KeptDevice(record, first.served.state.device, () => undefined);
  const [queue] = first.served.state.kept.queues;
  keeper.save({ status: 15, driverFeatures: 1n << 60n, queues: [queue, queue], selectors: [0, 0, 0] });
  const second: { served: ServedDevice } = start();
  assert.ok(second.served.state.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET);
});

/** A record of another device, by its own word, is refused. */
function startOrRefuse<T>(start: () => T): T | undefined {
  try {
    return start();
  } catch (error) {
    assert.ok(error instanceof Error && /predecessor/.test(error.message), `${error}`);
    return undefined;
  }
}
