// A guest that is suspended, saved, and goes on in another host, where its table of grants is empty and somebody else
// serves its devices: what it had asked for is done there, once, and what was before is over for both sides.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Exposure } from '../../src/audit/exposure.ts';
import { DirectTracer } from '../../src/audit/event-tracer.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { SHUTDOWN_SUSPEND } from '../../src/hosts/model/domains.ts';
import { Machine } from '../../src/machine/machine.ts';
import { mappable, serveDisk, workUnderWay } from '../support/disk-work.test.helper.ts';

const [BACKEND, GUEST] = [1, 2];

function newHost(seed: number) {
  const exposure = new Exposure();
  let now = 0;
  const tracer = new DirectTracer([exposure], () => now++);
  return { exposure, machine: new Machine({ seed, tracer }) };
}

/** Suspends the guest, and returns its image. */
function suspended(machine: Machine, guest: ReturnType<Machine['createGuest']>): Uint8Array[] {
  guest.suspend();
  machine.xen.domains.shutDown(machine.xen.domain(GUEST), SHUTDOWN_SUSPEND);
  return [...machine.xen.saveDomain(GUEST)];
}

async function working(mode: ExposureMode, seed: number) {
  const { machine, exposure } = newHost(seed);
  const scene = await workUnderWay(machine, mode, { backend: BACKEND, guest: GUEST }, seed % 7);
  return { ...scene, exposure };
}

for (const mode of EXPOSURE_MODES) {
  test(`L10: ${mode}: a guest that moves in the middle of its work finishes it in the new host, each request once`, async () => {
    for (let seed = 0; seed < 14; seed++) {
      const { machine, exposure, bytes, backend, guest, disk, work, place } = await working(mode, seed);
      const image = suspended(machine, guest);
      assert.deepEqual(mappable(backend, GUEST, guest.dma.granting.table.entries), [], 'nothing is granted');
      assert.equal(backend.ports.grantMapper.live, 0);
      assert.deepEqual(exposure.liveGrants(), []);
      assert.equal(exposure.total().contradictions, 0);

      const target = newHost(seed);
      const next = target.machine.createBackend(BACKEND + 8);
      // What the old host does from now on is nothing to the guest.
      const answered = work.answered;
      const ports = target.machine.restoreGuest(GUEST + 8, image, guest);
      serveDisk(next, { ports } as never, bytes);
      while (machine.step());
      machine.destroy(GUEST);
      assert.equal(work.answered, answered);
      assert.equal(ports.grantTable.isFree(8 as never), true, 'the new table is empty');
      guest.resume(ports, () => ({ ...place, backend: next.ports.id }));
      await work.finish(target.machine);
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      assert.deepEqual(target.exposure.liveGrants(), []);
      assert.equal(target.exposure.total().contradictions, 0);
      assert.equal(next.ports.grantMapper.live, 0);
    }
  });

  test(`L10 G13: ${mode}: pages that the old backend does not let go of come free in the new host, where it cannot reach them`, async () => {
    const { machine, exposure, bytes, backend, guest, disk, work, place } = await working(mode, 1);
    const { grantMapper } = backend.ports;
    const { entries } = guest.dma.granting.table;
    const kept: number[] = [];
    for (let ref = 8; ref < entries; ref++) {
      const handle = grantMapper.map(guest.ports.id, ref, false);
      if (handle >= 0) kept.push(handle);
    }
    assert.ok(kept.length > 0);
    const image = suspended(machine, guest);
    const held = guest.quarantined;
    assert.ok(held > 0, 'something is in quarantine');
    const target = newHost(1);
    const next = target.machine.createBackend(BACKEND);
    const ports = target.machine.restoreGuest(GUEST, image, guest);
    serveDisk(next, { ports } as never, bytes);
    guest.resume(ports, () => place);
    assert.deepEqual([guest.quarantined, disk.health], [0, 'working']);
    // The old backend rewrites all that it still maps.
    const before = guest.ports.memory.region.u8.slice();
    for (const handle of kept) {
      const { addressSpace } = backend.ports;
      addressSpace.write(grantMapper.address(handle), new Uint8Array(4096).fill(0xba));
      grantMapper.unmap(handle);
    }
    assert.deepEqual(guest.ports.memory.region.u8.slice(), before);
    assert.deepEqual(exposure.liveGrants(), [], 'the trace tells that what was granted is over');
    if (mode === 'bounce') await work.finish(target.machine);
    else guest.giveUp('their pages were not let go of: some requests have failed');
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  });

  test(`C7: ${mode}: a device is removed while the guest is suspended, or right after it was resumed: nothing is half built`, async () => {
    for (const resumes of [false, true]) {
      const { machine, backend, guest, disk, place } = await working(mode, 4);
      const { free } = guest.dma.granting.references;
      guest.suspend();
      if (resumes) guest.resume(guest.ports, () => place);
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      assert.ok(guest.dma.granting.references.free >= free);
      assert.equal(guest.dma.granting.references.live, 0);
      assert.equal(backend.ports.grantMapper.live, 0);
      while (machine.step());
    }
  });

  test(`a suspension that is called off goes on in the same host, ${mode}`, async () => {
    for (let seed = 0; seed < 7; seed++) {
      const { machine, guest, disk, work, place } = await working(mode, seed);
      guest.suspend();
      const record = machine.xen.domain(GUEST);
      machine.xen.domains.shutDown(record, SHUTDOWN_SUSPEND);
      for (let steps = 0; steps < 10; steps++) machine.step();
      machine.xen.domains.resume(record);
      guest.resume(guest.ports, () => place);
      await work.finish(machine);
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    }
  });
}

test('a guest is not resumed before it was suspended, nor in memory of another size', async () => {
  const { machine, guest, place } = await working('bounce', 1);
  assert.throws(() => guest.resume(guest.ports, () => place), /suspended before it is resumed/);
  const other = machine.createGuest(GUEST + 1, { memory: 2 ** 20 });
  guest.suspend();
  assert.throws(() => guest.resume(other.ports, () => place), /as much memory/);
});
