import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../devices/blk.ts';
import { RngDevice } from '../devices/rng.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import { EXPOSURE_MODES } from './guest-domain.ts';
import { Machine } from './machine.ts';

const BASE = 0x0200_0000;

for (const mode of EXPOSURE_MODES) {
  test(`a disk is read and written through grants, ${mode}`, async () => {
    const machine = new Machine({ seed: 1 });
    const backend = machine.createBackend(1);
    const guest = machine.createGuest(2);
    const bytes = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 7) ^ (i >> 8));
    const original = bytes.slice();
    backend.serve(
      new BlkDevice(new MemoryStore(bytes), { queues: 2, queueSize: 64, id: 'test' }),
      guest.ports.id,
      BASE,
    );
    const disk = guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, mode, {
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
  const device = new RngDevice((bytes) => bytes.fill(0xa5));
  backend.serve(device, guest.ports.id, BASE);
  const rng = guest.attachRng({ base: BASE, backend: backend.ports.id, device: 0 }, 'bounce');
  const bytes = await machine.settle(rng.read(10000));
  assert.equal(bytes.length, 10000);
  assert.ok(bytes.every((byte) => byte === 0xa5));
  assert.deepEqual(guest.detach(rng), { live: 0, quarantined: 0 });
});
