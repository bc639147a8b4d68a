// A backend that is killed between any two stores: its successor does each request at least once, in the order in
// which they were taken, and each is reported exactly once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Region, regionOver } from '../../abi/region.ts';
import { splitRingSizes } from '../../abi/split-ring.ts';
import { inflightDescriptor, inflightQueueHeader, inflightQueueSize } from '../../abi/vhost-user-inflight.ts';
import { ProtocolViolation } from '../../errors.ts';
import { PlainMemory } from '../../memory/plain-memory.ts';
import { type Chain, DeviceQueue } from '../../virtqueue/device-queue.ts';
import type { QueueJournal, QueueStart } from '../../virtqueue/queue-journal.ts';
import { AVAILABLE, BUFFERS, DESCRIPTORS, TestGuest, USED } from './guest.test.helper.ts';
import { InflightJournal, recoverInflight } from './inflight-journal.ts';

const SIZE = 8;

class Killed extends Error {}

/** A journal that ends the process before or after one of its steps. */
class MortalJournal implements QueueJournal {
  readonly keepsInFlight = true;
  readonly #inner: QueueJournal;
  #left: number;

  constructor(inner: QueueJournal, stepsToLive: number) {
    this.#inner = inner;
    this.#left = stepsToLive;
  }

  taken(head: number): void {
    this.#step(() => this.#inner.taken(head));
  }

  completing(head: number): void {
    this.#step(() => this.#inner.completing(head));
  }

  completed(head: number, used: number): void {
    this.#step(() => this.#inner.completed(head, used));
  }

  #step(step: () => void): void {
    if (this.#left-- === 0) throw new Killed();
    step();
    if (this.#left-- === 0) throw new Killed();
  }
}

function queueOf(guest: TestGuest, start: QueueStart): DeviceQueue {
  const memory = new PlainMemory(guest.region);
  const bytes = splitRingSizes(SIZE);
  const areas = {
    descriptor: memory.mapRing(DESCRIPTORS, 0, bytes.descriptor),
    driver: memory.mapRing(AVAILABLE, 0, bytes.driver),
    device: memory.mapRing(USED, 0, bytes.device),
  };
  return new DeviceQueue(SIZE, areas, memory, { indirect: false, eventIndex: false }, start);
}

function freshArea(): { region: Region; offset: number } {
  return { region: regionOver(new ArrayBuffer(inflightQueueSize(SIZE) + 64)), offset: 64 };
}

/** Takes and completes as `order` says until it is killed: what it takes is done. Returns the heads done. */
function live(queue: DeviceQueue, order: readonly number[]): number[] {
  const done: number[] = [];
  const held: Chain[] = [];
  try {
    for (const choice of order) {
      const chain = held.length === 0 || choice % 2 === 0 ? queue.pop() : undefined;
      if (chain !== undefined) {
        held.push(chain);
        done.push(chain.head);
      } else if (held.length > 0) queue.complete(held.splice(choice % held.length, 1)[0], 0, 0);
    }
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
  }
  return done;
}

test('C1: killed at any step, several times over, each request is done and is reported exactly once', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff }),
      fc.array(
        fc.tuple(fc.integer({ min: 0, max: 40 }), fc.array(fc.nat(50), { minLength: 1, maxLength: 30 })),
        { minLength: 1, maxLength: 5 },
      ),
      (origin, lives) => {
        const guest = new TestGuest(SIZE);
        guest.available.index = origin;
        guest.used.index = origin;
        const area = freshArea();
        const sent = [5, 2, 7, 0, 1];
        for (const head of sent) guest.offer(head, BUFFERS + head * 8, 8);
        const done: number[] = [];
        for (const [steps, order] of lives) {
          const start = recoverInflight(area, SIZE, guest.used.index, origin);
          assert.deepEqual(
            start.again,
            sent.filter((head) => start.again.includes(head)),
            'again in the order in which they were taken',
          );
          assert.equal(start.base, (start.used + start.again.length) & 0xffff);
          done.push(
            ...live(queueOf(guest, { ...start, journal: new MortalJournal(start.journal!, steps) }), order),
          );
        }
        const last = queueOf(guest, recoverInflight(area, SIZE, guest.used.index, origin));
        for (let chain = last.pop(); chain !== undefined; chain = last.pop()) {
          done.push(chain.head);
          last.complete(chain, 0, 0);
        }
        assert.deepEqual(guest.reported(origin).toSorted(), sent.toSorted(), 'reported exactly once');
        assert.deepEqual([...new Set(done)].toSorted(), sent.toSorted(), 'done at least once');
      },
    ),
    { seed: 54, numRuns: 2000 },
  );
});

test('T9: any contents give heads of this queue, once each, or are refused', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: inflightQueueSize(SIZE), maxLength: inflightQueueSize(SIZE) }),
      fc.integer({ min: 0, max: 0xffff }),
      fc.boolean(),
      (contents, used, plausible) => {
        const area = freshArea();
        area.region.u8.set(contents, area.offset);
        const header = inflightQueueHeader.over(area.region.u8).at(area.offset);
        if (plausible) {
          header.version = 1;
          header.desc_num = SIZE;
          const descriptor = inflightDescriptor.over(area.region.u8);
          for (let i = 0; i < SIZE; i++) descriptor.at(area.offset + 16 + i * 16).inflight &= 1;
        }
        const before = area.region.u8.slice(0, area.offset);
        try {
          const { again, base } = recoverInflight(area, SIZE, used, 0);
          assert.equal(new Set(again).size, again.length);
          assert.ok(again.every((head) => head < SIZE));
          assert.ok(base <= 0xffff);
        } catch (error) {
          assert.ok(error instanceof ProtocolViolation);
        }
        assert.deepEqual(area.region.u8.slice(0, area.offset), before, 'its neighbour is untouched');
      },
    ),
    { seed: 55, numRuns: 1000 },
  );
});

test('T9: a list of completions that loops is walked once', () => {
  const area = freshArea();
  recoverInflight(area, SIZE, 0, 0);
  const header = inflightQueueHeader.over(area.region.u8).at(area.offset);
  header.last_batch_head = 3;
  const descriptor = inflightDescriptor.over(area.region.u8);
  for (const head of [3, 4])
    Object.assign(descriptor.at(area.offset + 16 + head * 16), { inflight: 1, next: 3 });
  const { again } = recoverInflight(area, SIZE, 0xffff, 0);
  assert.deepEqual(again, [4]);
});

test('a buffer that was made for a queue of another size is refused', () => {
  const area = freshArea();
  recoverInflight(area, SIZE, 0, 0);
  assert.throws(() => recoverInflight(area, 4, 0, 0), ProtocolViolation);
});

test('the journal writes what vhost-user.rst lays out', () => {
  const area = freshArea();
  recoverInflight(area, SIZE, 9, 9);
  const journal = new InflightJournal(area, 2 ** 32 + 5);
  journal.taken(2);
  const at = area.offset + 16 + 2 * 16;
  const { u8 } = area.region;
  assert.deepEqual([...u8.subarray(at, at + 16)], [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0]);
  journal.taken(3);
  journal.completing(3);
  journal.completing(2);
  journal.completed(2, 10);
  assert.deepEqual([...u8.subarray(at, at + 8)], [0, 0, 0, 0, 0, 0, 3, 0], 'next is the head before it');
  const header = [...u8.subarray(area.offset, area.offset + 16)];
  assert.deepEqual(header, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, SIZE, 0, 2, 0, 10, 0]);
});
