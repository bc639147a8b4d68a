// What it costs a request of `grantio serve` to be counted, for the metrics: no request is served, only counted.

import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../src/abi/virtio-blk.ts';
import { newDeviceCounters, queueBlock } from '../src/serving/counter-blocks.ts';
import { QueueCounters } from '../src/serving/queue-counters.ts';
import { type Figure, measure } from './figures.ts';

const REQUESTS = 2_000_000;
const DEPTH = 32;
const ROUNDS = 9;

/** Nanoseconds for each of many requests, in turns of so many. */
function count(now: () => number): number {
  const block = queueBlock(newDeviceCounters(1), 0);
  const queue = new QueueCounters({
    block,
    kind: 'blk',
    index: 0,
    size: DEPTH,
    now,
    closed: () => undefined,
  });
  const begin = performance.now();
  for (let i = 0; i < REQUESTS; i++) {
    const head = i % DEPTH;
    if (head === 0) queue.turn();
    queue.taken(head, 4113, DEPTH);
    queue.completed(head, i % 3 === 0 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 0, 16, 4097);
  }
  return ((performance.now() - begin) * 1e6) / REQUESTS;
}

/** Counting with the clock that is used, and with one that costs nothing. */
export async function benchCounting(): Promise<Figure[]> {
  return await measure(
    'metrics',
    'ns',
    [
      { name: 'to count a request', aim: '< 50', round: () => count(() => performance.now()) },
      { name: 'the same without the clock', round: () => count(() => 1) },
    ],
    ROUNDS,
  );
}
