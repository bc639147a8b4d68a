// The same script gives the same results (17), whatever was negotiated, however buffers are exposed, and wherever
// the guest's memory is: with and without indirect descriptors and event indices, in every exposure mode, mapped and
// copied, on Arm and x86, on any schedule.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from '../../src/abi/virtio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { DiskError } from '../../src/drivers/disk.ts';
import type { Architecture, DomainKind } from '../../src/hosts/model/address-map.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { Machine } from '../../src/machine/machine.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { hideFeatures } from '../support/hide-features.test.helper.ts';
import { DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const STEPS = 60;

interface Guest {
  readonly architecture: Architecture;
  readonly kind: DomainKind;
}

/** The kinds of guests whose registers a backend can serve. */
const GUESTS: readonly Guest[] = [
  { architecture: 'arm', kind: 'pvh' },
  { architecture: 'x86', kind: 'pvh' },
  { architecture: 'x86', kind: 'hvm' },
];

/** Runs the script of `script` and tells all that its caller can see. */
async function results(
  script: number,
  { architecture, kind }: Guest,
  mode: ExposureMode,
  without: bigint,
  schedule: number,
): Promise<unknown> {
  const machine = new Machine({ seed: schedule, architecture, memory: 8 * MIB, heap: 3 * MIB });
  const limits = { maxGrantFrames: 4, maxMaptrackFrames: 2 };
  const backend = machine.createBackend(1, { memory: MIB, ...limits });
  const guest = machine.createGuest(2, { memory: 2 * MIB, kind, ...limits });
  const base = machine.xen.domain(2).map.virtioMmio;
  const bytes = diskBytes(DISK_SIZE, script);
  const device = new BlkDevice(new MemoryStore(bytes), { queues: 2, queueSize: 16, id: 'same' });
  const access = mode === 'copy' ? 'copy' : 'map';
  const served = backend.serve(device, guest.ports.id, base, access);
  hideFeatures(guest, base, without);
  const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, {
    queues: 2,
    queueSize: 16,
  });
  assert.equal(served.state.driverFeatures & without, 0n, 'what is hidden is not negotiated');
  const random = randomFrom(script);
  const below = (limit: number) => Math.floor(random() * limit);
  const seen: unknown[] = [];
  const buffer = await disk.buffer(8192);
  for (let step = 0; step < STEPS; step++) {
    const offset = below(130) * 512;
    const length = (1 + below(16)) * 512;
    const action = below(5);
    buffer.bytes.fill(step);
    const ask = [
      () => disk.read(offset, buffer, length),
      () => disk.write(offset, buffer, length),
      () => disk.writeZeroes(offset, length, step % 2 === 0),
      () => disk.discard(offset, length),
      () => disk.flush(),
    ][action];
    const outcome = await machine.settle(
      ask().then(
        () => 'ok',
        (error) => (error instanceof DiskError ? error.code : assert.fail(String(error))),
      ),
    );
    seen.push([action, outcome, buffer.bytes.slice(0, 8192)]);
  }
  buffer.release();
  assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  assert.equal(backend.ports.grantMapper.live, 0);
  return { seen, bytes };
}

const hidden: [string, bigint][] = [
  ['nothing', 0n],
  ['indirect', VIRTIO_F_INDIRECT_DESC],
  ['event index', VIRTIO_F_EVENT_IDX],
  ['both', VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX],
];

for (const script of [1, 2]) {
  test(`script ${script} gives the same results on every guest, in every mode, with every choice of features (17)`, async () => {
    const expected = await results(script, GUESTS[0], 'direct', 0n, 1);
    for (const [index, guest] of GUESTS.entries())
      for (const mode of EXPOSURE_MODES)
        for (const [name, without] of hidden)
          for (const schedule of [2 * index, 2 * index + 1])
            assert.deepEqual(
              await results(script, guest, mode, without, schedule),
              expected,
              `${guest.kind} on ${guest.architecture}, ${mode}, without ${name}, schedule ${schedule}`,
            );
  });
}
