// A grant table whose free references lie apart, as after long use: a request that needs more of them in a row
// than there are waits while something of its device is in flight, then goes in pieces, and fails only when
// nothing that is under way can help it. Whatever happens, nothing is lost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from '../../src/abi/virtio-blk.ts';
import { VIRTIO_F_INDIRECT_DESC } from '../../src/abi/virtio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { RngDevice } from '../../src/devices/rng.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { Machine } from '../../src/machine/machine.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { noTrace, type Tracer } from '../../src/trace.ts';
import { hideFeatures } from '../support/hide-features.test.helper.ts';
import { BASE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const PAGE = 4096;
const OTHER_BASE = BASE + 0x1_0000;
/** References for the header and the status of a request. */
const FRAMING = 2;

/** A guest with two disks at one backend; the first is the one that is looked at. */
function build(options: { queueSize?: number; hidden?: bigint } = {}) {
  const { queueSize = 64, hidden = 0n } = options;
  /** What the first disk has shared now, by address: bytes. */
  const shared = new Map<number, number>();
  const tracer: Tracer = {
    ...noTrace,
    enabled: true,
    need: (_domain, device, ref, offset, size) => {
      if (device === 0) shared.set(ref * PAGE + offset, size);
    },
    needEnd: (_domain, device, ref, offset) => {
      if (device === 0) shared.delete(ref * PAGE + offset);
    },
  };
  const machine = new Machine({ seed: 1, memory: 16 * MIB, heap: 4 * MIB, tracer });
  const backend = machine.createBackend(1, { memory: 4 * MIB });
  const guest = machine.createGuest(2, { memory: 8 * MIB, maxGrantFrames: 2 });
  const bytes = diskBytes(MIB, 0x29);
  for (const [index, base] of [BASE, OTHER_BASE].entries()) {
    const device = new BlkDevice(new MemoryStore(bytes), { queues: 1, queueSize, id: `disk ${index}` });
    backend.serve(device, guest.ports.id, base);
  }
  if (hidden !== 0n) hideFeatures(guest, BASE, hidden);
  const attach = (mode: ExposureMode, base = BASE) =>
    guest.attachBlk({ base, backend: backend.ports.id, device: base === BASE ? 0 : 1 }, mode, {
      queues: 1,
      queueSize,
    });
  return { machine, backend, guest, bytes, attach, shared };
}

type Scene = ReturnType<typeof build>;

/** Takes all references but runs of these lengths, no two of which touch. Returns what gives them back. */
function leaveRuns({ guest }: Scene, lengths: readonly number[]): () => void {
  const { references } = guest.dma.granting;
  const taken: number[] = [];
  for (let ref = references.allocate(1); ref >= 0; ref = references.allocate(1)) taken.push(ref);
  taken.sort((a, b) => a - b);
  // What is taken may have gaps where devices have their rings, which do not hurt: a gap ends a run as well.
  let at = 0;
  for (const length of lengths) {
    while (at + length <= taken.length && taken[at + length - 1] - taken[at] !== length - 1) at++;
    assert.ok(at + length <= taken.length, 'the table is long enough for the test');
    references.release(taken[at], length);
    taken.splice(at, length);
    // One stays taken.
    at++;
  }
  return () => {
    for (const ref of taken) references.release(ref, 1);
  };
}

/** Reads or writes `length` bytes at `address` from the disk's beginning. Returns how it ended, when it has. */
function begin(disk: BlkDriver, address: number, length: number, type = VIRTIO_BLK_T_IN) {
  const outcome: { status: number | undefined } = { status: undefined };
  disk.submit(type, 0, address, length, (status) => {
    outcome.status = status;
  });
  return outcome;
}

/** Lets everything run until nothing is left to do. */
function run({ machine }: Scene): void {
  while (machine.step());
}

/** Detaches the disks and sees that every reference is free again. */
function checkNothingLost({ guest, backend }: Scene, ...disks: BlkDriver[]): void {
  for (const disk of disks) assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  assert.equal(guest.dma.granting.references.live, 0);
  assert.equal(backend.ports.grantMapper.live, 0);
}

for (const mode of EXPOSURE_MODES) {
  for (const [pages, runs] of [
    [2, [1, 1]],
    [8, [4, 4]],
    [14, new Array(14).fill(1)],
    [100, [7, 25, 13, 50, 6, 5, 25]],
    [256, [128, 32, 64, 64]],
  ] as const) {
    test(`G8 L9: a request of ${pages} pages goes in pieces through runs of ${runs}, ${mode}`, () => {
      const scene = build();
      const disk = scene.attach(mode);
      const address = scene.guest.ports.memory.allocatePages(pages)!;
      const giveBack = leaveRuns(scene, [...runs, ...new Array(FRAMING).fill(1)]);
      const { bytes } = scene;
      const memory = scene.guest.ports.memory.bytes(address, pages * PAGE);
      for (const type of [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT]) {
        if (type === VIRTIO_BLK_T_OUT) memory.set(diskBytes(pages * PAGE, 0x44));
        const { live } = scene.guest.dma.granting.references;
        const outcome = begin(disk, address, pages * PAGE, type);
        assert.equal(disk.inFlight, 1, 'it does not wait');
        run(scene);
        assert.equal(outcome.status, VIRTIO_BLK_S_OK);
        assert.equal(scene.guest.dma.granting.references.live, live);
        assert.deepEqual(memory, bytes.subarray(0, pages * PAGE));
      }
      giveBack();
      checkNothingLost(scene, disk);
    });
  }

  test(`G8: what finds no room even in pieces fails with a reason, and leaves nothing behind, ${mode}`, async () => {
    const scene = build();
    const disk = scene.attach(mode);
    // An indirect table has room for 14 pieces; the runs are for one more.
    const giveBack = leaveRuns(scene, new Array(15 + FRAMING).fill(1));
    const buffer = await disk.buffer(15 * PAGE);
    const usage = scene.guest.referenceUsage();
    await assert.rejects(scene.machine.settle(disk.read(0, buffer, 15 * PAGE)), {
      name: 'DiskError',
      code: 'ENOMEM',
      message: /61440 bytes.*not even in pieces.*max_grant_frames/,
    });
    // What a pool keeps granted for a while is there for whoever needs it.
    while (scene.guest.dma.granting.pools.reclaimReferences());
    assert.deepEqual(scene.guest.referenceUsage(), usage);
    assert.equal(disk.failure, undefined);
    await scene.machine.settle(disk.read(0, buffer, 14 * PAGE));
    giveBack();
    checkNothingLost(scene, disk);
  });

  test(`G8: while something of its own is in flight a request waits for it, whole, ${mode}`, () => {
    const scene = build();
    const disk = scene.attach(mode);
    const address = scene.guest.ports.memory.allocatePages(8)!;
    const giveBack = leaveRuns(scene, [8, ...new Array(8 + 2 * FRAMING).fill(1)]);
    const first = begin(disk, address, 8 * PAGE);
    const second = begin(disk, address, 8 * PAGE);
    assert.deepEqual([disk.inFlight, disk.busy], [1, true]);
    let whole = 0;
    while (scene.machine.step())
      if (second.status === undefined && first.status !== undefined)
        whole = Math.max(whole, ...scene.shared.values());
    assert.deepEqual([first.status, second.status], [VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK]);
    assert.equal(whole, 8 * PAGE);
    giveBack();
    checkNothingLost(scene, disk);
  });

  test(`G8: with nothing of its own in flight a request waits for what another device gives back, ${mode}`, () => {
    const scene = build();
    const disk = scene.attach(mode);
    const other = scene.attach(mode, OTHER_BASE);
    const address = scene.guest.ports.memory.allocatePages(32)!;
    const giveBack = leaveRuns(scene, [24, ...new Array(2 * FRAMING).fill(1)]);
    const held = begin(other, address, 24 * PAGE);
    const waiting = begin(disk, address, 24 * PAGE);
    assert.deepEqual([other.inFlight, disk.inFlight, disk.busy], [1, 0, true]);
    assert.equal(waiting.status, undefined);
    run(scene);
    assert.deepEqual([held.status, waiting.status], [VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK]);
    giveBack();
    checkNothingLost(scene, disk, other);
  });

  test(`G8 B9: who waits for a device that is given up goes on with what that gives back, ${mode}`, () => {
    const scene = build();
    const disk = scene.attach(mode);
    const other = scene.attach(mode, OTHER_BASE);
    const address = scene.guest.ports.memory.allocatePages(64)!;
    const giveBack = leaveRuns(scene, [24, ...new Array(2 * FRAMING).fill(1)]);
    const held = begin(other, address, 24 * PAGE);
    const waiting = begin(disk, address, 24 * PAGE);
    // Needs more than there will ever be.
    const hopeless = begin(disk, address, 64 * PAGE);
    scene.guest.giveUp('it does not answer');
    assert.deepEqual([held.status, waiting.status], [1, undefined]);
    assert.deepEqual([typeof other.failure, disk.failure], ['string', undefined]);
    run(scene);
    assert.deepEqual([waiting.status, hopeless.status], [VIRTIO_BLK_S_OK, -1]);
    giveBack();
    checkNothingLost(scene, disk, other);
  });

  test(`G8: the entropy driver waits for a reference as well, and fails when none will come, ${mode}`, async () => {
    const scene = build();
    const { guest, backend } = scene;
    const base = BASE + 0x2_0000;
    backend.serve(new RngDevice((bytes) => bytes.fill(7)), guest.ports.id, base);
    const rng = guest.attachRng({ base, backend: backend.ports.id, device: 2 }, mode);
    const disk = scene.attach(mode);
    const address = guest.ports.memory.allocatePages(24)!;
    const giveBack = leaveRuns(scene, [24, ...new Array(FRAMING).fill(1)]);
    const held = begin(disk, address, 24 * PAGE);
    const random = rng.read(4096);
    await Promise.resolve();
    assert.deepEqual([rng.busy, rng.inFlight, held.status], [true, 0, undefined]);
    assert.deepEqual(await scene.machine.settle(random), new Uint8Array(4096).fill(7));
    assert.equal(held.status, VIRTIO_BLK_S_OK);
    const none = leaveRuns(scene, []);
    await assert.rejects(scene.machine.settle(rng.read(1)), { name: 'DeviceFailed' });
    none();
    await scene.machine.settle(rng.read(1));
    giveBack();
    assert.deepEqual(guest.detach(rng), { live: 0, quarantined: 0 });
    checkNothingLost(scene, disk);
  });

  for (const [what, options, most] of [
    ['as many as the queue has descriptors', { queueSize: 8, hidden: VIRTIO_F_INDIRECT_DESC }, 6],
    ['as many as seg_max allows', { queueSize: 8 }, 6],
    ['one, when the disk has no seg_max', { hidden: VIRTIO_BLK_F_SEG_MAX }, 1],
  ] as const) {
    test(`§5.2.4 a request has no more pieces than it may: ${what}, ${mode}`, () => {
      const scene = build(options);
      const disk = scene.attach(mode);
      const address = scene.guest.ports.memory.allocatePages(16)!;
      const giveBack = leaveRuns(scene, new Array(16 + FRAMING).fill(1));
      for (let pages = 1; pages <= 16; pages++) {
        const outcome = begin(disk, address, pages * PAGE);
        run(scene);
        assert.equal(outcome.status, pages <= most ? VIRTIO_BLK_S_OK : -1, `${pages} pages`);
      }
      assert.equal(disk.failure, undefined);
      giveBack();
      checkNothingLost(scene, disk);
    });
  }

  test(`8 G8 L9: whatever the table looks like, a request is served right or refused, and nothing is lost, ${mode}`, () => {
    const request = fc.record({
      runs: fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 16 }),
      offset: fc.nat(PAGE - 1),
      sectors: fc.integer({ min: 1, max: 64 * 8 }),
    });
    const scene = build();
    const disk = scene.attach(mode);
    const { memory } = scene.guest.ports;
    const pages = memory.allocatePages(66)!;
    const served = { yes: 0, no: 0 };
    fc.assert(
      fc.property(request, ({ runs, offset, sectors }) => {
        const length = sectors * 512;
        memory.bytes(pages, 66 * PAGE).fill(0xee);
        const giveBack = leaveRuns(scene, [...runs, ...new Array(FRAMING).fill(1)]);
        const { live } = scene.guest.referenceUsage();
        const outcome = begin(disk, pages + offset, length);
        run(scene);
        const left = scene.guest.referenceUsage().live;
        giveBack();
        assert.equal(left, live);
        const ok = outcome.status === VIRTIO_BLK_S_OK;
        if (!ok) assert.equal(outcome.status, -1);
        if (runs.some((run) => run * PAGE >= length + offset)) assert.ok(ok, 'one run is long enough');
        served[ok ? 'yes' : 'no']++;
        const expected = new Uint8Array(66 * PAGE).fill(0xee);
        // What a read that failed leaves in its buffer is not defined: `bounce` copies its zeroes out.
        if (!ok) memory.bytes(pages + offset, length).fill(0xee);
        else expected.set(scene.bytes.subarray(0, length), offset);
        assert.deepEqual(memory.bytes(pages, 66 * PAGE), expected);
      }),
      { seed: 8, numRuns: 150 },
    );
    assert.ok(served.yes > 20 && served.no > 20, `both were tried: ${served.yes} and ${served.no}`);
    checkNothingLost(scene, disk);
  });
}
