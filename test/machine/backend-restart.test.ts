// Backends that die in the middle of their work, and are started again or replaced: whoever asked for something gets
// its answer, once, from the new one; and nothing that was given to the old one is left for anybody.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { Machine } from '../../src/machine/machine.ts';
import { DiskWork, mappable, OPTIONS, serveDisk, workUnderWay } from '../support/disk-work.test.helper.ts';
import { BASE, DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const [BACKEND, GUEST, OTHER] = [1, 2, 3];

const working = (mode: ExposureMode, seed: number) =>
  workUnderWay(new Machine({ seed }), mode, { backend: BACKEND, guest: GUEST }, seed % 7);

for (const mode of EXPOSURE_MODES) {
  for (const successor of [BACKEND, OTHER]) {
    test(`B20 C5: ${mode}: a backend that dies at any step is replaced by domain ${successor}; each request is done, and answered once`, async () => {
      for (let seed = 0; seed < 14; seed++) {
        const { machine, bytes, guest, disk, work, place } = await working(mode, seed);
        machine.destroy(BACKEND);
        disk.suspend('its backend has died');
        assert.equal(disk.health, 'waiting');
        const next = machine.createBackend(successor);
        serveDisk(next, guest, bytes);
        guest.reattach(disk, { ...place, backend: next.ports.id });
        await work.finish(machine);
        assert.deepEqual([disk.health, disk.failure], ['working', undefined]);
        assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
        assert.equal(next.ports.grantMapper.live, 0);
      }
    });
  }

  test(`C5: ${mode}: an interrupt that comes when the backend has died is no fault of its device`, async () => {
    const { machine, bytes, guest, disk, work, place } = await working(mode, 4);
    machine.destroy(BACKEND);
    // Where no registers are all bits read as one: those of a changed configuration, and of a device in error, too.
    disk.interrupt();
    assert.deepEqual([disk.health, disk.resets], ['waiting', 0]);
    disk.suspend('its backend has died');
    const next = machine.createBackend(OTHER);
    serveDisk(next, guest, bytes);
    guest.reattach(disk, { ...place, backend: next.ports.id });
    await work.finish(machine);
    assert.deepEqual([disk.health, disk.resets], ['working', 0]);
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  });

  test(`G24: ${mode}: a domain that gets the id of a dead backend can map nothing of what that was granted`, async () => {
    const { machine, bytes, guest, disk, work, place } = await working(mode, 3);
    const { entries } = guest.dma.granting.table;
    machine.destroy(BACKEND);
    guest.suspend();
    const impostor = machine.createBackend(BACKEND);
    assert.deepEqual(mappable(impostor, GUEST, entries), []);
    machine.destroy(BACKEND);
    const next = machine.createBackend(OTHER);
    serveDisk(next, guest, bytes);
    guest.resume(guest.ports, () => ({ ...place, backend: next.ports.id }));
    const again = machine.createBackend(BACKEND);
    assert.deepEqual(
      mappable(again, GUEST, guest.dma.granting.table.entries),
      [],
      'nor of what the new one is',
    );
    await work.finish(machine);
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  });

  test(`B20: ${mode}: what is asked for while there is no backend waits for one, and a device that is removed meanwhile leaves nothing`, async () => {
    const { machine, guest, disk } = await working(mode, 2);
    machine.destroy(BACKEND);
    guest.revive('the backend has gone');
    assert.equal(disk.health, 'waiting');
    const buffer = await disk.buffer(512);
    const read = assert.rejects(disk.read(0, buffer, 512), { code: 'ENODEV' });
    for (let steps = 0; steps < 50; steps++) machine.step();
    assert.throws(() => guest.reattach(disk, { base: BASE, backend: 1 as never, device: 0 }), {
      name: 'DeviceRefused',
    });
    assert.equal(disk.health, 'waiting');
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    await read;
  });

  test(`L5 C5: ${mode}: a device that was taken away and given again, to another backend too, is as new`, async () => {
    const machine = new Machine({ seed: 5 });
    const guest = machine.createGuest(GUEST, { memory: 2 ** 21 });
    const { free } = guest.dma.granting.references;
    for (const id of [BACKEND, BACKEND, OTHER]) {
      const bytes = diskBytes(DISK_SIZE, id);
      const backend = machine.createBackend(id);
      const served = serveDisk(backend, guest, bytes);
      const disk = guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, mode, OPTIONS);
      const work = new DiskWork(bytes);
      await work.begin(disk);
      await work.finish(machine);
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      assert.equal(guest.dma.granting.references.free, free);
      backend.remove(served);
      machine.destroy(id);
    }
  });
}
