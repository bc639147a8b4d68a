// The explorer on the deterministic machine: a disk whose writes are answered before they can be read is caught by
// seeds, and the schedule of the run shrinks to the few turns that matter. docs/exploring.md walks through it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../../src/devices/blk.ts';
import { exploreRandom, replay } from '../../src/explore/explore.ts';
import { explain, type Scenario } from '../../src/explore/scenario.ts';
import { shrink } from '../../src/explore/shrink.ts';
import { Machine } from '../../src/machine/machine.ts';
import { parseSchedule } from '../../src/machine/schedule.ts';
import type { Segments } from '../../src/memory/segments.ts';
import type { BlockStore, StoreResult } from '../../src/storage/block-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { BASE } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const OLD = 0x11;
const NEW = 0x22;

/** The planted mistake: a write is answered at once, and its data arrive with the next write or flush. */
class LateStore extends MemoryStore {
  #late: (() => void) | undefined;

  override write(offset: number, from: Segments): StoreResult {
    this.#arrive();
    const bytes = new Uint8Array(from.byteLength);
    from.copyTo(bytes, 0, bytes.length);
    this.#late = () => this.bytes.set(bytes, offset);
    return 'ok';
  }

  override flush(): StoreResult {
    this.#arrive();
    return 'ok';
  }

  #arrive(): void {
    this.#late?.();
    this.#late = undefined;
  }
}

/** Two guests share a disk: 2 writes, reads and flushes, 3 reads. What was written before a read begins must be seen. */
function sharedDisk(makeStore: (bytes: Uint8Array) => BlockStore): Scenario {
  return async (choose) => {
    // The set-up is the same in every run: the search is about what comes after it.
    let settingUp = true;
    const machine = new Machine({
      seed: 0,
      choose: (ready) => (settingUp ? ready[0] : choose(ready)),
      memory: 2 * MIB,
      heap: 2 * MIB,
    });
    const limits = { maxGrantFrames: 1, maxMaptrackFrames: 1 };
    const backend = machine.createBackend(1, { memory: MIB / 4, ...limits });
    const bytes = new Uint8Array(4096).fill(OLD);
    const [writer, reader] = [2, 3].map((id) => {
      const guest = machine.createGuest(id, { memory: MIB / 2, ...limits });
      const store = id === 2 ? makeStore(bytes) : new MemoryStore(bytes);
      const base = BASE + id * 0x1000;
      backend.serve(new BlkDevice(store, { queues: 1, queueSize: 4, id: 'shared' }), guest.ports.id, base);
      return guest.attachBlk({ base, backend: backend.ports.id, device: id }, 'direct', {
        queues: 1,
        queueSize: 4,
      });
    });
    let written = false;
    const write = async () => {
      const buffer = await writer.buffer(512);
      buffer.bytes.fill(NEW);
      await writer.write(0, buffer, 512);
      written = true;
      await writer.read(512, buffer, 512);
      await writer.flush();
    };
    const read = async () => {
      const buffer = await reader.buffer(512);
      for (let turn = 0; turn < 2; turn++) {
        const expected = written ? NEW : undefined;
        await reader.read(0, buffer, 512);
        if (expected !== undefined)
          assert.equal(buffer.bytes[0], expected, 'a write that was answered is not read');
      }
    };
    settingUp = false;
    await machine.settle(Promise.all([write(), read()]));
  };
}

test('a write that arrives late is found by seeds, shrinks to a few turns, and is seen again', async (t) => {
  const scenario = sharedDisk((bytes) => new LateStore(bytes));
  const failure = await exploreRandom(scenario, 1, 200);
  assert.ok(failure);
  t.diagnostic(explain(failure));
  const shrunk = await shrink(scenario, failure.schedule, 500);
  t.diagnostic(`after ${shrunk.runs} runs: ${explain(shrunk.failure)}`);
  const [long, short] = [failure, shrunk.failure].map(({ schedule }) => parseSchedule(schedule).length);
  assert.ok(short <= long && short <= 15, shrunk.failure.schedule);
  const again = await replay(scenario, shrunk.failure.schedule);
  assert.match(String(again?.error), /a write that was answered is not read/);
  assert.equal(again?.schedule, shrunk.failure.schedule);
});

test('without the mistake the same seeds find nothing', async () => {
  assert.equal(
    await exploreRandom(
      sharedDisk((bytes) => new MemoryStore(bytes)),
      1,
      200,
    ),
    undefined,
  );
});
