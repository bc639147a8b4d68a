// A disk through all layers is an array of sectors (29): random requests, several at a time, against a model,
// on memory and on an image file.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import type { GuestBuffer } from '../../src/drivers/disk.ts';
import { Machine } from '../../src/machine/machine.ts';
import { randomFrom } from '../../src/machine/random.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { RawFile } from '../../src/storage/raw-file.ts';
import { EXPOSURE_SCENES } from '../support/exposure.test.helper.ts';
import { DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const SECTORS = DISK_SIZE / 512;
const ROUNDS = 60;
/** Requests that are under way together, each on sectors of its own. */
const AT_ONCE = 6;
const LANE = Math.floor(SECTORS / AT_ONCE);

interface Made {
  readonly store: BlockStore;
  contents(): Uint8Array;
}

const stores: [string, (t: TestContext, bytes: Uint8Array<ArrayBuffer>) => Made][] = [
  ['memory', (_, bytes) => ({ store: new MemoryStore(bytes), contents: () => bytes })],
  [
    'an image file',
    (t, bytes) => {
      const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
      const path = join(folder, 'disk.img');
      writeFileSync(path, bytes);
      const store = new RawFile(path, false);
      t.after(() => {
        store.close();
        rmSync(folder, { recursive: true });
      });
      return { store, contents: () => new Uint8Array(readFileSync(path)) };
    },
  ],
];

/** One request on the sectors of a lane, and what it must do to the model. */
function request(
  disk: BlkDriver,
  buffer: GuestBuffer,
  model: Uint8Array,
  lane: number,
  below: (n: number) => number,
) {
  const first = lane * LANE + below(LANE);
  const count = 1 + below(Math.min(16, (lane + 1) * LANE - first));
  const offset = first * 512;
  const length = count * 512;
  const data = buffer.bytes.subarray(0, length);
  const salt = below(256);
  switch (below(5)) {
    case 0:
      data.fill(salt);
      return disk.write(offset, buffer, length).then(() => model.fill(salt, offset, offset + length));
    case 1:
      return disk.writeZeroes(offset, length, salt > 127).then(() => model.fill(0, offset, offset + length));
    case 2:
      return disk.flush();
    case 3:
      // What is discarded may be anything: it is written anew before it is looked at.
      return disk
        .discard(offset, length)
        .then(() => disk.writeZeroes(offset, length, true))
        .then(() => model.fill(0, offset, offset + length));
    default:
      data.fill(0xee);
      return disk.read(offset, buffer, length).then(() => {
        assert.deepEqual(data.slice(), model.slice(offset, offset + length));
      });
  }
}

for (const [what, make] of stores) {
  for (const { mode, architecture, access, base } of EXPOSURE_SCENES) {
    test(`a disk on ${what} is an array of sectors (29), ${mode}`, async (t) => {
      const seed = mode.length;
      const machine = new Machine({ seed, memory: 8 * MIB, heap: 3 * MIB, architecture });
      const limits = { maxGrantFrames: 4, maxMaptrackFrames: 2 };
      const backend = machine.createBackend(1, { memory: MIB, ...limits });
      const guest = machine.createGuest(2, { memory: 2 * MIB, ...limits });
      const { store, contents } = make(t, diskBytes(DISK_SIZE, 0x61));
      const model = diskBytes(DISK_SIZE, 0x61);
      const device = new BlkDevice(store, { queues: 2, queueSize: 8, id: 'model' });
      backend.serve(device, guest.ports.id, base, access);
      const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, mode, {
        queues: 2,
        queueSize: 8,
      });
      const random = randomFrom(seed);
      const below = (limit: number) => Math.floor(random() * limit);
      const buffers = await Promise.all(Array.from({ length: AT_ONCE }, () => disk.buffer(8192)));
      for (let round = 0; round < ROUNDS; round++) {
        const all = buffers.map((buffer, lane) => request(disk, buffer, model, lane, below));
        await machine.settle(Promise.all(all));
      }
      assert.deepEqual(contents(), model);
      for (const buffer of buffers) buffer.release();
      assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
      assert.equal(backend.ports.grantMapper.live, 0);
    });
  }
}
