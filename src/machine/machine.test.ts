import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../devices/blk.ts';
import { RngDevice } from '../devices/rng.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import { EXPOSURE_SCENES } from '../../test/support/exposure.test.helper.ts';
import { Machine, type MachineOptions } from './machine.ts';

for (const { mode, architecture, access, base } of EXPOSURE_SCENES) {
  test(`a disk is read and written through grants, ${mode}`, async () => {
    const machine = new Machine({ seed: 1, architecture });
    const backend = machine.createBackend(1);
    const guest = machine.createGuest(2);
    const bytes = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 7) ^ (i >> 8));
    const original = bytes.slice();
    backend.serve(
      new BlkDevice(new MemoryStore(bytes), { queues: 2, queueSize: 64, id: 'test' }),
      guest.ports.id,
      base,
      access,
    );
    const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, {
      queues: 2,
      queueSize: 64,
    });
    assert.equal(guest.modeOf(disk), mode);
    assert.equal(disk.capacity, bytes.length);
    const buffer = await disk.buffer(65536);
    for (let offset = 0; offset < bytes.length; offset += 65536) {
      await machine.settle(disk.read(offset, buffer, 65536));
      assert.deepEqual(buffer.bytes.slice(0, 65536), original.slice(offset, offset + 65536));
    }
    buffer.bytes.fill(0x5a);
    await machine.settle(disk.write(4096, buffer, 8192));
    assert.ok(bytes.subarray(4096, 4096 + 8192).every((byte) => byte === 0x5a));
    assert.deepEqual(bytes.slice(12288), original.slice(12288));
    await machine.settle(disk.flush());
    await machine.settle(disk.writeZeroes(4096, 512, true));
    assert.ok(bytes.subarray(4096, 4608).every((byte) => byte === 0));
    buffer.release();
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
    assert.equal(backend.ports.grantMapper.live, 0);
  });
}

for (const mode of ['persistent', 'auto'] as const) {
  test(`G22: ${mode}: when nothing is left to do time goes on, and what is idle is revoked`, async () => {
    const machine = new Machine({ seed: 1 });
    const backend = machine.createBackend(1);
    const guest = machine.createGuest(2);
    const base = machine.xen.domain(2).map.virtioMmio;
    const options = { queues: 1, queueSize: 16 };
    const device = new BlkDevice(new MemoryStore(new Uint8Array(1 << 20)), { ...options, id: 'test' });
    backend.serve(device, guest.ports.id, base);
    const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, options);
    const { references } = guest.dma.granting;
    const rings = references.live;
    const buffer = await disk.buffer(4096);
    for (let round = 0; round < 2; round++) {
      await machine.settle(disk.read(0, buffer, 4096));
      assert.ok(references.live > rings, 'nothing was kept');
      while (machine.step());
      assert.equal(references.live, rings);
    }
    await machine.settle(disk.read(0, buffer, 4096));
    disk.fail('the test resets it');
    assert.equal(references.live, 0, 'a reset ends what is idle, and a device that is given up has no rings');
  });
}

for (const { mode, access, architecture } of [
  { mode: 'copy', access: 'copy', architecture: 'arm' },
  { mode: 'copy', access: 'map', architecture: 'arm' },
  { mode: 'direct', access: 'copy', architecture: 'x86' },
  { mode: 'bounce', access: 'copy', architecture: 'x86' },
] as const)
  test(`a disk in mode ${mode} on ${architecture} is served by a backend that would ${access}`, async () => {
    const machine = new Machine({ seed: 4, architecture });
    const backend = machine.createBackend(1);
    const guest = machine.createGuest(2);
    const base = machine.xen.domain(2).map.virtioMmio;
    const bytes = Uint8Array.from({ length: 65536 }, (_, i) => (i * 7) ^ (i >> 8));
    const options = { queues: 1, queueSize: 16 };
    const device = new BlkDevice(new MemoryStore(bytes), { ...options, id: 'test' });
    backend.serve(device, guest.ports.id, base, access);
    const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, options);
    assert.equal(guest.modeOf(disk), mode === 'copy' ? 'bounce' : mode);
    const buffer = await disk.buffer(8192);
    await machine.settle(disk.read(4096, buffer, 8192));
    assert.deepEqual(buffer.bytes.slice(0, 8192), bytes.slice(4096, 12288));
    buffer.bytes.fill(0x5a);
    await machine.settle(disk.write(512, buffer, 512));
    assert.ok(bytes.subarray(512, 1024).every((byte) => byte === 0x5a));
    buffer.release();
    assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  });

test('a guest whose first device is granted whole pages has bounce in place of copy for the next', () => {
  const machine = new Machine({ seed: 5, architecture: 'x86' });
  const backend = machine.createBackend(1);
  const guest = machine.createGuest(2);
  const modes = (['direct', 'copy'] as const).map((mode, device) => {
    const base = machine.xen.domain(2).map.virtioMmio + device * 0x200;
    backend.serve(new RngDevice((bytes) => bytes.fill(1)), guest.ports.id, base, 'copy');
    return guest.modeOf(guest.attachRng({ base, backend: backend.ports.id, device }, mode));
  });
  assert.deepEqual(modes, ['direct', 'bounce']);
});

test('a copying backend that serves a guest which dies meanwhile refuses its requests and goes on', async () => {
  const machine = new Machine({ seed: 6, architecture: 'x86' });
  const backend = machine.createBackend(1);
  const guest = machine.createGuest(2);
  const base = machine.xen.domain(2).map.virtioMmio;
  const options = { queues: 1, queueSize: 16 };
  const device = new BlkDevice(new MemoryStore(new Uint8Array(65536)), { ...options, id: 'test' });
  const served = backend.serve(device, guest.ports.id, base, 'copy');
  const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, 'copy', options);
  const { pagesFree } = backend.ports.memory;
  const buffer = await disk.buffer(4096);
  void disk.read(0, buffer, 4096).catch(() => undefined);
  machine.destroy(2);
  while (machine.step());
  backend.remove(served);
  assert.equal(backend.ports.memory.pagesFree, pagesFree);
  assert.equal(backend.ports.grantMapper.live, 0);
});

test('an entropy device delivers through the same layers', async () => {
  const machine = new Machine({ seed: 2 });
  const backend = machine.createBackend(1);
  const guest = machine.createGuest(2);
  const base = machine.xen.domain(2).map.virtioMmio;
  const device = new RngDevice((bytes) => bytes.fill(0xa5));
  backend.serve(device, guest.ports.id, base);
  const rng = guest.attachRng({ base, backend: backend.ports.id, device: 0 }, 'bounce');
  const bytes = await machine.settle(rng.read(10000));
  assert.equal(bytes.length, 10000);
  assert.ok(bytes.every((byte) => byte === 0xa5));
  assert.deepEqual(guest.detach(rng), { live: 0, quarantined: 0 });
});

test('a machine is of one architecture, Arm unless it says otherwise, and its guests of a kind that exists there', () => {
  const arm = new Machine({ seed: 3 });
  assert.equal(arm.createGuest(2).ports.memory.base, 0x4000_0000);
  assert.equal(arm.xen.domain(2).map.virtioMmio, 0x0200_0000);
  assert.throws(() => arm.createGuest(3, { kind: 'hvm' }), { message: /only pvh exists there/ });
  const x86 = new Machine({ seed: 3, architecture: 'x86' });
  for (const [id, kind] of [
    [2, 'pvh'],
    [3, 'hvm'],
    [4, 'pv'],
  ] as const) {
    assert.equal(x86.createGuest(id, { kind }).ports.memory.base, 0);
    assert.equal(x86.xen.domain(id).kind, kind);
  }
});

/** Reads a disk a while, and tells what happened: the schedule, and the order in which the store was asked. */
async function readAWhile(options: MachineOptions) {
  const machine = new Machine({ memory: 8 << 20, heap: 4 << 20, ...options });
  const limits = { memory: 1 << 20, maxGrantFrames: 4, maxMaptrackFrames: 2 };
  const backend = machine.createBackend(1, limits);
  const guests = [machine.createGuest(2, limits), machine.createGuest(3, limits)];
  const asked: string[] = [];
  const disks = guests.map((guest, index) => {
    const store = new MemoryStore(new Uint8Array(65536));
    store.read = (offset) => {
      asked.push(`${guest.ports.id}:${offset}`);
      return 'ok';
    };
    const base = machine.xen.domain(guest.ports.id).map.virtioMmio + index * 0x1000;
    backend.serve(new BlkDevice(store, { queues: 1, queueSize: 8, id: 'test' }), guest.ports.id, base);
    return guest.attachBlk({ base, backend: backend.ports.id, device: index }, 'direct', {
      queues: 1,
      queueSize: 8,
    });
  });
  const read = async (disk: (typeof disks)[number]) => {
    const buffer = await disk.buffer(512);
    for (let sector = 0; sector < 5; sector++) await disk.read(sector * 512, buffer, 512);
  };
  await machine.settle(Promise.all(disks.map(read)));
  return { schedule: machine.schedule, asked: asked.join(' ') };
}

test('a run is repeated by its seed, and by its schedule whatever the seed', async () => {
  const first = await readAWhile({ seed: 1 });
  const other = await readAWhile({ seed: 3 });
  assert.deepEqual(await readAWhile({ seed: 1 }), first);
  assert.notEqual(other.asked, first.asked);
  assert.deepEqual(await readAWhile({ seed: 3, schedule: first.schedule }), first);
  assert.deepEqual(await readAWhile({ seed: 1, schedule: other.schedule }), other);
});

test('the beginning of a schedule is followed, and then the seed decides', async () => {
  const { schedule } = await readAWhile({ seed: 1 });
  const words = schedule.split(' ');
  const begun = words.slice(0, words.length >> 1).join(' ');
  const first = await readAWhile({ seed: 5, schedule: begun });
  assert.ok(first.schedule.startsWith(begun));
  assert.deepEqual(await readAWhile({ seed: 5, schedule: begun }), first);
});

test('a schedule that is none, or one of another run, is refused', async () => {
  assert.throws(
    () => new Machine({ seed: 1, schedule: '1 two' }),
    /schedule: word 2 is "two"; expected a number/,
  );
  await assert.rejects(
    readAWhile({ seed: 1, schedule: '1*2 7' }),
    /schedule: choice \d is .*expected one of/,
  );
});
