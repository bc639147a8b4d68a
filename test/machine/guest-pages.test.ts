// A whole machine whose guest has pages of 16 or 64 KiB, as Arm kernels may: the backend reaches what it reaches of
// a guest with pages of 4 KiB, and the disk is the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../../src/abi/virtio-blk.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { GUEST_PAGE_SIZES, type GuestPageSize } from '../../src/dma/guest-memory.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { Machine } from '../../src/machine/machine.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { noTrace, type Tracer } from '../../src/trace.ts';
import { BASE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const LENGTH = 3 * 65536;

/** Writes and reads data at every kind of offset into a page. Returns how many pages each grant was for. */
function grantsOf(mode: ExposureMode, pageSize: GuestPageSize): number[] {
  const grants: number[] = [];
  const tracer: Tracer = {
    ...noTrace,
    enabled: true,
    grant: (_domain, _peer, _ref, _frame, count) => grants.push(count),
  };
  const machine = new Machine({ seed: 1, memory: 32 * MIB, heap: 4 * MIB, tracer });
  const backend = machine.createBackend(1);
  const guest = machine.createGuest(2, { pageSize });
  const device = new BlkDevice(new MemoryStore(diskBytes(MIB, 0)), { queues: 1, queueSize: 16, id: 'pages' });
  backend.serve(device, guest.ports.id, BASE);
  const place = { base: BASE, backend: backend.ports.id, device: 0 };
  const disk = guest.attachBlk(place, mode, { queues: 1, queueSize: 16 });
  const { memory } = guest.ports;
  const pages = memory.allocatePages(LENGTH / 4096)!;
  for (const [offset, length] of [
    [0, 65536],
    [5, 512],
    [4096, 4096],
    [0x8ffc, 512],
    [0xf000, 8192],
    [0xfe01, 65536],
  ]) {
    const sent = diskBytes(length, offset);
    for (const type of [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN]) {
      if (type === VIRTIO_BLK_T_OUT) memory.bytes(pages + offset, length).set(sent);
      else memory.bytes(pages, LENGTH).fill(0);
      let status = -1;
      disk.submit(type, 0, pages + offset, length, (result) => {
        status = result;
      });
      while (machine.step());
      assert.equal(status, VIRTIO_BLK_S_OK);
    }
    assert.deepEqual(memory.bytes(pages + offset, length), sent);
    assert.ok(memory.bytes(pages, offset).every((byte) => byte === 0));
  }
  assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  assert.equal(backend.ports.grantMapper.live, 0);
  return grants;
}

for (const mode of EXPOSURE_MODES) {
  test(`R6 G2 G3: what is granted does not depend on the size of the guest's pages, ${mode}`, () => {
    const [small, ...large] = GUEST_PAGE_SIZES.map((pageSize) => grantsOf(mode, pageSize));
    assert.ok(small.length > 0);
    for (const grants of large) assert.deepEqual(grants, small);
  });
}
