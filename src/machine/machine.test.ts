import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../devices/blk.ts';
import { RngDevice } from '../devices/rng.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import { EXPOSURE_MODES } from './guest-domain.ts';
import { Machine } from './machine.ts';

for (const mode of EXPOSURE_MODES) {
  test(`a disk is read and written through grants, ${mode}`, async () => {
    const machine = new Machine({ seed: 1 });
    const backend = machine.createBackend(1);
    const guest = machine.createGuest(2);
    const base = machine.xen.domain(2).map.virtioMmio;
    const bytes = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 7) ^ (i >> 8));
    const original = bytes.slice();
    backend.serve(
      new BlkDevice(new MemoryStore(bytes), { queues: 2, queueSize: 64, id: 'test' }),
      guest.ports.id,
      base,
    );
    const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, {
      queues: 2,
      queueSize: 64,
    });
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
