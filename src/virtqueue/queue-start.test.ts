// A queue that goes on where another device stopped, and a chain that waits until its buffers can be mapped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { regionOver } from '../abi/region.ts';
import { splitRingSizes, VIRTQ_DESC_F_NEXT } from '../abi/split-ring.ts';
import { ProtocolViolation } from '../errors.ts';
import { type ChainAccess, type DeviceMemory, MAPPING_PENDING } from '../memory/device-memory.ts';
import { PlainMemory } from '../memory/plain-memory.ts';
import { DeviceQueue } from './device-queue.ts';
import { FRESH_QUEUE, type QueueStart } from './queue-journal.ts';
import { AvailableRing, DescriptorTable, UsedRing } from './split-ring.ts';

const SIZE = 4;

function scene(start: Partial<QueueStart> = {}) {
  const region = regionOver(new ArrayBuffer(4096));
  const plain = new PlainMemory(region);
  let pending = false;
  const refused = { below: 0, count: 0 };
  const memory: DeviceMemory = {
    newChainAccess: () => {
      const access: ChainAccess = plain.newChainAccess();
      const map = access.map.bind(access);
      access.map = (low, high, length, writable) => {
        if (low < refused.below) {
          refused.count++;
          return -1;
        }
        return pending && low >= 2048 ? MAPPING_PENDING : map(low, high, length, writable);
      };
      return access;
    },
    mapRing: (low, high, length) => plain.mapRing(low, high, length),
  };
  const bytes = splitRingSizes(SIZE);
  const areas = {
    descriptor: plain.mapRing(0, 0, bytes.descriptor),
    driver: plain.mapRing(256, 0, bytes.driver),
    device: plain.mapRing(512, 0, bytes.device),
  };
  const table = new DescriptorTable(areas.descriptor);
  const available = new AvailableRing(areas.driver, SIZE);
  const used = new UsedRing(areas.device, SIZE);
  for (let i = 0; i < SIZE; i++) table.write(i, i % 2 === 0 ? 1024 : 2048, 0, 8, 2, 0);
  const features = { indirect: false, eventIndex: false };
  const queue = new DeviceQueue(SIZE, areas, memory, features, { ...FRESH_QUEUE, ...start });
  const offer = (head: number) => {
    available.setHead(available.index, head);
    available.index = (available.index + 1) & 0xffff;
  };
  const setPending = (value: boolean) => (pending = value);
  return { queue, table, available, used, offer, setPending, refused };
}

test('a queue goes on at the indices it is given, across the wrap', () => {
  const { queue, available, used, offer } = scene({ base: 0xffff, used: 0xffff });
  available.index = 0xffff;
  used.index = 0xffff;
  offer(2);
  offer(1);
  for (const head of [2, 1]) {
    const chain = queue.pop()!;
    assert.equal(chain.head, head);
    queue.complete(chain, 0, 0);
  }
  assert.equal(queue.pop(), undefined);
  assert.deepEqual([used.index, used.id(0xffff), used.id(0)], [1, 2, 1]);
  assert.equal(queue.base, 1);
  assert.ok(queue.takeInterrupt());
});

test('chains to be served again come first and once', () => {
  const { queue, available, offer } = scene({ base: 2, used: 0, again: [3, 0] });
  available.index = 2;
  offer(1);
  assert.deepEqual([queue.pop()!.head, queue.pop()!.head, queue.pop()!.head], [3, 0, 1]);
  assert.equal(queue.pop(), undefined);
});

test('a chain whose buffer is not known yet stays the next one, and nobody waits for it in a circle', () => {
  const { queue, offer, setPending } = scene();
  setPending(true);
  offer(0);
  offer(1);
  assert.equal(queue.pop()!.head, 0);
  assert.equal(queue.pop(), undefined);
  assert.equal(queue.enableNotifications(), false);
  assert.equal(queue.base, 0, 'the first is in flight');
  assert.equal(queue.inFlight, 1);
  setPending(false);
  const chain = queue.pop()!;
  assert.equal(chain.head, 1);
  assert.equal(chain.writable.byteLength, 8);
});

test('a chain that waits is not read again: what its driver changes meanwhile has no effect', () => {
  const { queue, table, offer, setPending } = scene();
  setPending(true);
  offer(1);
  assert.equal(queue.pop(), undefined);
  table.write(1, 1024, 0, 3, 2, 0);
  setPending(false);
  assert.equal(queue.pop()!.writable.byteLength, 8);
});

test('a chain with a buffer that is refused waits for that of its answer, and asks for nothing twice', () => {
  const { queue, table, offer, setPending, refused } = scene();
  table.write(0, 1024, 0, 8, VIRTQ_DESC_F_NEXT, 1);
  refused.below = 2048;
  setPending(true);
  offer(0);
  assert.equal(queue.pop(), undefined);
  assert.equal(queue.pop(), undefined);
  setPending(false);
  const chain = queue.pop()!;
  assert.deepEqual([chain.fault, chain.answers, chain.writable.byteLength], [-1, true, 8]);
  assert.equal(refused.count, 1);
  queue.complete(chain, 0, 0);
  // The next one has nothing of it.
  refused.below = 0;
  offer(3);
  const next = queue.pop()!;
  assert.deepEqual([next.fault, next.answers, next.writable.byteLength], [0, false, 8]);
  queue.complete(next, 0, 0);
  refused.below = 4096;
  offer(0);
  const silent = queue.pop()!;
  assert.deepEqual([silent.fault, silent.answers, silent.writable.byteLength], [-1, false, 0]);
});

test('a chain to be served again waits as well', () => {
  const { queue, available, setPending } = scene({ base: 2, used: 0, again: [1, 0] });
  available.index = 2;
  setPending(true);
  assert.equal(queue.pop(), undefined);
  setPending(false);
  assert.deepEqual([queue.pop()!.head, queue.pop()!.head], [1, 0]);
});

test('F1 a head to be served again that no descriptor has is refused', () => {
  const { queue } = scene({ again: [SIZE] });
  assert.throws(() => queue.pop(), ProtocolViolation);
});
