// Domains that are paused, or end in the middle of their work: the others go on, nothing of the dead stays reachable,
// and an id is given again only when nobody holds anything of its last owner.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../../src/devices/blk.ts';
import { Machine } from '../../src/machine/machine.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { EXPOSURE_SCENES, exposureScene, type ExposureScene } from '../support/exposure.test.helper.ts';
import { DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const OPTIONS = { queues: 1, queueSize: 16 };
const [BACKEND, GUEST, NEIGHBOUR] = [1, 2, 3];
const MEMORY = { memory: 2 ** 21 };
const FULL = DISK_SIZE / 4096;

/** A backend with a disk for each of two guests. */
function scene({ mode, architecture, access }: ExposureScene, seed = 1) {
  const machine = new Machine({ seed, architecture });
  const bytes = diskBytes(DISK_SIZE, 0x31);
  const addGuest = (backend: ReturnType<Machine['createBackend']>, id: number, base: number) => {
    const guest = machine.createGuest(id, MEMORY);
    const store = new MemoryStore(bytes.slice());
    const device = new BlkDevice(store, { ...OPTIONS, id: 'disk' });
    const served = backend.serve(device, guest.ports.id, base, access);
    return {
      guest,
      served,
      disk: guest.attachBlk({ base, backend: backend.ports.id, device: id }, mode, OPTIONS),
    };
  };
  const before = machine.xen.free;
  const backend = machine.createBackend(BACKEND);
  return { machine, bytes, backend, addGuest, before };
}

for (const exposure of EXPOSURE_SCENES) {
  const { mode, base } = exposure;
  test(`a guest that dies in the middle of its requests takes nobody along, ${mode}`, async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { machine, bytes, backend, addGuest } = scene(exposure, seed);
      const neighbour = addGuest(backend, NEIGHBOUR, base + 0x1000);
      const held = backend.ports.grantMapper.live;
      const { served, disk } = addGuest(backend, GUEST, base);
      const { generation } = machine.xen.domain(GUEST);
      const buffers = await Promise.all(Array.from({ length: FULL }, () => disk.buffer(4096)));
      for (const [i, buffer] of buffers.entries())
        void disk.read(i * 4096, buffer, 4096).catch(() => undefined);
      for (let steps = seed % 4; steps > 0; steps--) machine.step();
      machine.destroy(GUEST);
      assert.throws(
        () => machine.createGuest(GUEST),
        /domain 2 exists already/,
        'its rings are still mapped',
      );
      const buffer = await neighbour.disk.buffer(4096);
      await machine.settle(neighbour.disk.read(4096, buffer, 4096));
      assert.deepEqual(buffer.bytes.slice(0, 4096), bytes.slice(4096, 8192));
      backend.remove(served);
      assert.equal(backend.ports.grantMapper.live, held, 'nothing of the dead is mapped');
      const again = addGuest(backend, GUEST, base);
      assert.ok(machine.xen.domain(GUEST).generation > generation);
      await machine.settle(again.disk.read(0, await again.disk.buffer(512), 512));
    }
  });

  test(`B20: a backend that dies in the middle of requests leaves nothing mapped, and another takes over, ${mode}`, async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { machine, bytes, backend, addGuest } = scene(exposure, seed);
      const { guest, disk } = addGuest(backend, GUEST, base);
      const buffers = await Promise.all(Array.from({ length: FULL }, () => disk.buffer(4096)));
      const reads = buffers.map((buffer, i) => disk.read(i * 4096, buffer, 4096));
      const results = Promise.allSettled(reads);
      for (let steps = seed % 4; steps > 0; steps--) machine.step();
      machine.destroy(BACKEND);
      guest.giveUp('the backend has gone');
      await machine.settle(results);
      for (const [i, result] of (await results).entries()) {
        if (result.status === 'rejected') continue;
        assert.deepEqual(buffers[i].bytes.slice(0, 4096), bytes.slice(i * 4096, (i + 1) * 4096));
      }
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      const successor = machine.createBackend(BACKEND);
      const store = new MemoryStore(bytes);
      const device = new BlkDevice(store, { ...OPTIONS, id: 'disk' });
      successor.serve(device, guest.ports.id, base, exposure.access);
      const place = { base, backend: successor.ports.id, device: 9 };
      const resumed = guest.attachBlk(place, mode, OPTIONS);
      const buffer = await resumed.buffer(4096);
      await machine.settle(resumed.read(8192, buffer, 4096));
      assert.deepEqual(buffer.bytes.slice(0, 4096), bytes.slice(8192, 12_288));
    }
  });
}

test('a paused domain does nothing, and goes on where it was', async () => {
  const exposure = exposureScene('bounce');
  const { machine, bytes, backend, addGuest } = scene(exposure);
  const { disk } = addGuest(backend, GUEST, exposure.base);
  const buffer = await disk.buffer(4096);
  machine.pause(BACKEND);
  machine.pause(BACKEND);
  let done = false;
  const read = disk.read(0, buffer, 4096).then(() => {
    done = true;
  });
  while (machine.step()) await Promise.resolve();
  machine.unpause(BACKEND);
  while (machine.step()) await Promise.resolve();
  assert.equal(done, false);
  machine.unpause(BACKEND);
  await machine.settle(read);
  assert.deepEqual(buffer.bytes.slice(0, 4096), bytes.slice(0, 4096));
});

test('12: when all domains have gone, in either order, the machine is as it was', () => {
  const exposure = exposureScene('direct');
  for (const order of [
    [BACKEND, GUEST],
    [GUEST, BACKEND],
  ]) {
    const { machine, backend, addGuest, before } = scene(exposure);
    addGuest(backend, GUEST, exposure.base);
    for (const id of order) machine.destroy(id);
    assert.deepEqual(machine.xen.free, before);
  }
});
