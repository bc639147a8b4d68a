// What several workers report of one guest's device: their requests are kept apart.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Exposure } from '../audit/exposure.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { traceRings } from '../audit/trace-ring.ts';
import { workerTracing } from './thread-tracing.ts';

test('requests of several workers have different numbers, whatever each has under way', () => {
  const rings = traceRings(3, 1024);
  const exposure = new Exposure(undefined, { side: 'backend' });
  const merger = new TraceMerger(rings, [exposure]);
  const workers = rings.slice(1).map((ring) => workerTracing(ring).requestsOf(0));
  const ids = workers.map((worker) => Array.from({ length: 100 }, () => worker.requestBegin(512)));
  merger.drain();
  assert.equal(exposure.total().requestsOpen, 200);
  for (const [index, worker] of workers.entries()) for (const id of ids[index]) worker.requestEnd(id, 0);
  merger.close();
  const { requests, requestsOpen, contradictions } = exposure.total();
  assert.deepEqual([requests, requestsOpen, contradictions, merger.lost], [200, 0, 0, 0]);
});
