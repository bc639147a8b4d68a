// Requests as a backend reports them: each that it takes begins, and ends once, when the driver gets it back or has closed
// its queue.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noTrace, type Tracer, UNKNOWN_TYPE } from '../trace.ts';
import type { QueueMeter } from './queue-meter.ts';
import { requestsOf, type RequestTracer, TracedQueue } from './traced-queue.ts';

/** A meter that notes what it is told. */
function noted(): { readonly meter: QueueMeter; readonly told: string[] } {
  const told: string[] = [];
  const note =
    (name: string) =>
    (...figures: readonly number[]): void =>
      void told.push([name, ...figures].join(' '));
  const meter = {
    ...{ turn: note('turn'), taken: note('taken'), refused: note('refused') },
    ...{ completed: note('completed'), interrupted: note('interrupted'), closed: note('closed') },
  };
  return { meter, told };
}

test('a request is reported from when it is taken until it is completed, and everything is counted as before', () => {
  const events: (readonly (string | number)[])[] = [];
  const tracer: Tracer = {
    ...noTrace,
    requestBegin: (...figures) => void events.push(['begin', ...figures]),
    requestEnd: (...figures) => void events.push(['end', ...figures]),
  };
  let next = 40;
  const { meter, told } = noted();
  const queue = new TracedQueue(
    meter,
    requestsOf(tracer, 3, 1, () => next++),
    8,
  );
  queue.turn();
  queue.taken(5, 4113, 2);
  queue.taken(2, 512, 3);
  queue.refused();
  queue.completed(2, -1, 1, 16, 1);
  queue.completed(5, 0, 0, 16, 4097);
  queue.interrupted();
  queue.closed();
  assert.deepEqual(events, [
    ['begin', 3, 1, 40, UNKNOWN_TYPE, 4113],
    ['begin', 3, 1, 41, UNKNOWN_TYPE, 512],
    ['end', 3, 1, 41, 1],
    ['end', 3, 1, 40, 0],
  ]);
  assert.deepEqual(told, [
    ...['turn', 'taken 5 4113 2', 'taken 2 512 3', 'refused', 'completed 2 -1 1 16 1'],
    ...['completed 5 0 0 16 4097', 'interrupted', 'closed'],
  ]);
});

test('what is under way when the queue is closed has failed; what was not reported does not end', () => {
  const ended: (readonly [id: number, status: number])[] = [];
  const requests: RequestTracer = {
    requestBegin: (bytes) => (bytes > 100 ? -1 : bytes),
    requestEnd: (id, status) => void ended.push([id, status]),
  };
  const queue = new TracedQueue(noted().meter, requests, 4);
  queue.taken(0, 0, 1);
  queue.taken(1, 500, 2);
  queue.taken(3, 30, 3);
  queue.completed(1, -1, 0, 0, 0);
  queue.closed();
  assert.deepEqual(ended, [
    [0, 255],
    [30, 255],
  ]);
});
