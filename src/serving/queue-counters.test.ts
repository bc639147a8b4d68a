// What a queue does is counted once each, on the device's block and nowhere else; times by a clock that the test moves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../abi/virtio-blk.ts';
import { NO_TYPE } from '../virtqueue/queue-meter.ts';
import { newDeviceCounters, QUEUE_BLOCK, queueBlock, STATUSES } from './counter-blocks.ts';
import { BUCKETS, bucketOf } from './log-buckets.ts';
import { OPERATIONS, type Operation, operationsOf } from './operations.ts';
import { QueueCounters } from './queue-counters.ts';
import { type DeviceFigures, deviceFigures } from './serving-figures.ts';

/** Two workers' counters of a device, and a clock. */
class Bench {
  /** Milliseconds. */
  time = 1;
  readonly kind: string;
  readonly #counters = newDeviceCounters(2);

  constructor(kind = 'blk') {
    this.kind = kind;
  }

  queue(index = 0, worker = 0): QueueCounters {
    const block = queueBlock(this.#counters, worker);
    const now = (): number => this.time;
    return new QueueCounters({ block, kind: this.kind, index, size: 64, now, closed: () => undefined });
  }

  /** One request: so many bytes each way, so many microseconds. */
  request(
    queue: QueueCounters,
    { type = NO_TYPE, status = 0, read = 0, written = 0, microseconds = 1 } = {},
  ): void {
    queue.turn();
    queue.taken(3, read + written, 1);
    this.time += microseconds / 1000;
    queue.completed(3, type, status, read, written);
  }

  get figures(): DeviceFigures {
    const violations = new Map<string, number>();
    return deviceFigures({ name: 'd', kind: this.kind, counters: this.#counters, violations }, 2);
  }

  operation(name: Operation): DeviceFigures['operations'][number] {
    return this.figures.operations.find((operation) => operation.name === name)!;
  }
}

test('reads and writes are counted with their data, without header and status', () => {
  const bench = new Bench();
  const queue = bench.queue();
  bench.request(queue, { type: VIRTIO_BLK_T_IN, read: 16, written: 4097 });
  bench.request(queue, { type: VIRTIO_BLK_T_OUT, read: 16 + 512, written: 1 });
  const { requests, bytes } = bench.operation('read');
  assert.deepEqual([requests, bytes], [1, 4096]);
  assert.equal(bench.operation('write').bytes, 512);
  assert.equal(bench.figures.neededBytes, 16 + 4097 + 16 + 512 + 1);
});

test('a request that fails is counted by its status, and its data is not', () => {
  const bench = new Bench();
  const queue = bench.queue();
  for (const status of [1, 2, 7, 255])
    bench.request(queue, { type: VIRTIO_BLK_T_IN, status, read: 16, written: 600 });
  const { requests, bytes, errors } = bench.operation('read');
  assert.deepEqual([requests, bytes, errors], [4, 0, [1, 1, 2]]);
});

test('a type that the device does not know, or that was not looked at, is of another operation', () => {
  const bench = new Bench();
  const queue = bench.queue();
  for (const type of [NO_TYPE, 2, 14, 2 ** 32 - 1]) bench.request(queue, { type, status: 2 });
  assert.equal(bench.operation('other').requests, 4);
});

test('queues of a console and of a device without a table are counted by what they are', () => {
  const bench = new Bench('console');
  for (const index of [0, 1, 2, 3, 4, 5]) bench.request(bench.queue(index), { written: 10 });
  assert.deepEqual(
    bench.figures.operations.map(({ name, requests, bytes }) => [name, requests, bytes]),
    [
      ['receive', 2, 20],
      ['transmit', 2, 20],
      ['control', 2, 20],
    ],
  );
  assert.deepEqual(operationsOf('a device that is not there yet'), ['other']);
});

test('what two workers count of a device is summed up', () => {
  const bench = new Bench();
  bench.request(bench.queue(0, 0), { type: VIRTIO_BLK_T_DISCARD, read: 32, written: 1 });
  bench.request(bench.queue(1, 1), { type: VIRTIO_BLK_T_DISCARD, read: 32, written: 1 });
  bench.queue(1, 1).interrupted();
  assert.equal(bench.operation('discard').requests, 2);
  assert.equal(bench.figures.interrupts, 1);
});

test('the depth is that of the first chain of a turn, in the least power of two that holds it', () => {
  const bench = new Bench();
  const queue = bench.queue();
  for (const depth of [1, 2, 3, 4, 5, 32768]) {
    queue.turn();
    queue.taken(0, 0, depth);
    queue.taken(1, 0, 64);
  }
  const { buckets, sum } = bench.figures.depth;
  assert.deepEqual(buckets.slice(0, 5), [1, 1, 2, 1, 0]);
  assert.deepEqual([buckets[15], sum], [1, 15 + 32768]);
});

test('a refused chain is counted as such', () => {
  const bench = new Bench();
  const queue = bench.queue();
  queue.taken(0, 512, 1);
  assert.equal(bench.figures.refusedChains, 0);
  queue.refused();
  assert.equal(bench.figures.refusedChains, 1);
});

test('where requests are far apart each one is timed', () => {
  const bench = new Bench();
  const queue = bench.queue();
  const times = [3, 40, 500, 6000, 70];
  for (const microseconds of times) {
    bench.time += 100;
    bench.request(queue, { type: VIRTIO_BLK_T_IN, microseconds });
  }
  const { buckets, sum } = bench.operation('read').duration;
  assert.ok(Math.abs(sum - 6613e3) < 1);
  for (const microseconds of times) {
    // The clock's fractions may put it into the bucket before.
    const bucket = bucketOf(microseconds * 1000);
    assert.equal(buckets[bucket] + buckets[bucket - 1], 1);
  }
});

test('where they are close the clock is read seldom, and those that are timed stand for all', () => {
  const bench = new Bench();
  let looks = 0;
  const block = new Float64Array(queueBlock(newDeviceCounters(1), 0).length);
  const now = (): number => {
    looks++;
    return bench.time;
  };
  const closed = (): void => undefined;
  const queue = new QueueCounters({ block, kind: 'rng', index: 0, size: 64, now, closed });
  for (let i = 0; i < 20_000; i++) bench.request(queue, { written: 8, microseconds: 2 });
  assert.ok(looks < 2 * (20_000 / 32), `${looks} looks at the clock`);
  assert.ok(looks > 2 * (20_000 / 128), `${looks} looks at the clock`);
  const { at } = QUEUE_BLOCK;
  const operation = OPERATIONS.indexOf('entropy');
  const timed = block[at.durationCount + operation];
  assert.ok(timed > 20_000 - 128 && timed <= 20_000, `${timed} stand for 20000`);
  const times = at.durations + operation * BUCKETS;
  assert.equal(
    block.slice(times, times + BUCKETS).reduce((sum, count) => sum + count, 0),
    timed,
  );
});

test('for any requests, histogram and count agree, and neither is ahead of the requests', () => {
  const request = fc.record({
    type: fc.constantFrom(0, 1, 4, 8, 11, 13, 77),
    status: fc.constantFrom(0, 0, 0, 1, 2, 3),
    read: fc.nat(100),
    written: fc.nat(100),
    microseconds: fc.integer({ min: 1, max: 2000 }),
  });
  fc.assert(
    fc.property(fc.array(request, { maxLength: 300 }), (requests) => {
      const bench = new Bench();
      const queues = [bench.queue(0, 0), bench.queue(1, 0), bench.queue(2, 1)];
      for (const [i, each] of requests.entries()) bench.request(queues[i % 3], each);
      const { operations } = bench.figures;
      assert.equal(
        operations.reduce((sum, { requests: count }) => sum + count, 0),
        requests.length,
      );
      for (const { requests: count, errors, duration } of operations) {
        const timed = duration.buckets.reduce((sum, bucket) => sum + bucket, 0);
        assert.ok(timed <= count);
        assert.ok(errors.reduce((sum, error) => sum + error, 0) <= count);
        assert.ok(duration.buckets.every((bucket) => bucket >= 0));
      }
    }),
    { seed: 11, numRuns: 200 },
  );
});

test('every operation of every kind has a place among all', () => {
  for (const kind of ['blk', 'rng', 'console'])
    for (const name of operationsOf(kind)) assert.ok(OPERATIONS.includes(name));
  assert.equal(STATUSES.length, 3);
});
