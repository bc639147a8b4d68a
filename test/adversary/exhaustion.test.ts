// Guests that run out of grant references or memory, and backends that run out of mappings: requests wait or
// fail, nothing is lost, and all of it comes back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../../src/devices/blk.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { Machine } from '../../src/machine/machine.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { BASE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const TRANSFER = 512 * 1024;

interface Limits {
  readonly guestFrames?: number;
  readonly guestMemory?: number;
  readonly backendFrames?: number;
}

function build(limits: Limits) {
  const { guestFrames = 4, guestMemory = 8 * MIB, backendFrames = 16 } = limits;
  const machine = new Machine({ seed: 1, memory: 16 * MIB, heap: 4 * MIB });
  const backend = machine.createBackend(1, {
    memory: MIB,
    maxGrantFrames: 1,
    maxMaptrackFrames: backendFrames,
  });
  const guest = machine.createGuest(2, {
    memory: guestMemory,
    maxGrantFrames: guestFrames,
    maxMaptrackFrames: 1,
  });
  const bytes = diskBytes(MIB, 0x29);
  const served = backend.serve(
    new BlkDevice(new MemoryStore(bytes), { queues: 1, queueSize: 64, id: 'exhaust' }),
    guest.ports.id,
    BASE,
  );
  const attach = (mode: ExposureMode) =>
    guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, mode, { queues: 1, queueSize: 64 });
  return { machine, backend, guest, served, bytes, attach };
}

for (const mode of EXPOSURE_MODES) {
  test(`H20 G8 with references for a few requests, the others wait and are served later, ${mode}`, async () => {
    const { machine, backend, guest, bytes, attach } = build({ guestFrames: 1 });
    const disk = attach(mode);
    const buffers = await Promise.all(Array.from({ length: 8 }, () => disk.buffer(TRANSFER)));
    const reads = buffers.map((buffer, i) => disk.read((i % 2) * TRANSFER, buffer, TRANSFER));
    assert.ok(disk.inFlight < 8, 'not all of them find references');
    await machine.settle(Promise.all(reads));
    for (const [i, buffer] of buffers.entries()) {
      const from = (i % 2) * TRANSFER;
      assert.deepEqual(buffer.bytes.slice(0, TRANSFER), bytes.slice(from, from + TRANSFER));
      buffer.release();
    }
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    assert.equal(backend.ports.grantMapper.live, 0);
    assert.equal(guest.dma.granting.references.live, 0);
  });

  test(`H20 a request that will never find enough references is an error, not a wait for ever, ${mode}`, async () => {
    const { machine, guest, attach } = build({ guestFrames: 1 });
    const disk = attach(mode);
    const { references } = guest.dma.granting;
    const taken: number[] = [];
    for (let ref = references.allocate(1); ref >= 0; ref = references.allocate(1)) taken.push(ref);
    const buffer = await disk.buffer(512);
    await assert.rejects(machine.settle(disk.read(0, buffer, 512)), {
      code: 'ENOMEM',
      message: /512 bytes.*max_grant_frames/,
    });
    for (const ref of taken) references.release(ref, 1);
    await machine.settle(disk.read(0, buffer, 512));
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  });

  test(`H21 a backend without mappings left fails that request, and the next one works, ${mode}`, async () => {
    const { machine, backend, guest, attach } = build({ backendFrames: 1 });
    const disk = attach(mode);
    const large = await disk.buffer(TRANSFER);
    await machine.settle(disk.read(0, large, TRANSFER));
    const huge = await disk.buffer(MIB);
    await assert.rejects(machine.settle(disk.read(0, huge, MIB)), { code: 'EIO' });
    assert.equal(disk.failure, undefined);
    await machine.settle(disk.read(TRANSFER, large, TRANSFER));
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    assert.equal(backend.ports.grantMapper.live, 0);
  });

  test(`a guest without memory or references for the rings refuses the device and keeps nothing, ${mode}`, () => {
    const { backend, guest, served, attach } = build({ guestFrames: 1, guestMemory: MIB });
    const { memory } = guest.ports;
    const pages: number[] = [];
    for (let page = memory.allocatePages(1); page !== undefined; page = memory.allocatePages(1))
      pages.push(page);
    assert.throws(() => attach(mode), { name: 'DeviceRefused', message: /no memory or grant references/ });
    assert.equal(guest.dma.granting.references.live, 0);
    assert.equal(backend.ports.grantMapper.live, 0);
    assert.equal(served.state.status, 0, 'the device is reset');
    for (const page of pages) memory.freePages(page, 1);
    const disk = attach(mode);
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    assert.equal(memory.pagesFree, pages.length);
  });
}
