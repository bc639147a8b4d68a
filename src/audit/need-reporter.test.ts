// A thread that may not wait loses needs and requests when nobody reads its ring, and never an end of one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DMA_TO_DEVICE } from '../trace.ts';
import { Exposure } from './exposure.ts';
import { NeedReporter } from './need-reporter.ts';
import { TraceMerger } from './trace-merger.ts';
import { RingTracer, traceRings } from './trace-ring.ts';

const GUEST = 3;

/** Numbers from 0 on. */
function counting(): () => number {
  let next = 0;
  return () => next++;
}

test('R9: whatever is lost, all that is reported ends, and each event is counted once', () => {
  // A need, a request, the end of the oldest of both, or a look of the reader's.
  const step = fc.constantFrom('need', 'need', 'request', 'end', 'read');
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const rings = traceRings(1, 16);
      const exposure = new Exposure(undefined, { side: 'backend' });
      const merger = new TraceMerger(rings, [exposure]);
      const reporter = new NeedReporter(new RingTracer(rings[0], () => 0, false), counting());
      const needs = reporter.needsOf(GUEST, 0);
      const requests = reporter.requestsOf(GUEST, 0);
      const live: (() => void)[] = [];
      const reported = { needs: 0, requests: 0 };
      for (const [page, each] of steps.entries()) {
        if (each === 'read') merger.drain();
        else if (each === 'end') live.shift()?.();
        else if (each === 'need') {
          if (!needs.need(page, 0, 16, DMA_TO_DEVICE)) continue;
          live.push(() => needs.needEnd(page, 0, 16));
          reported.needs++;
        } else {
          const id = requests.requestBegin(16);
          if (id < 0) continue;
          live.push(() => requests.requestEnd(id, 0));
          reported.requests++;
        }
      }
      for (const end of live) end();
      merger.close();
      const asked = steps.filter((each) => each === 'need' || each === 'request').length;
      const lost = 2 * (asked - reported.needs - reported.requests);
      assert.deepEqual([merger.lost, merger.undelivered], [lost, lost]);
      assert.equal(exposure.neededBytes, 0);
      const { bytesNeeded, requests: done, requestsOpen, contradictions } = exposure.total();
      assert.deepEqual(
        [bytesNeeded, done, requestsOpen, contradictions],
        [reported.needs * 16, reported.requests, 0, 0],
      );
    }),
    { seed: 99, numRuns: 300 },
  );
});

test('a ring that nobody reads takes what it has room for, with the ends', () => {
  const [ring] = traceRings(1, 16);
  const merger = new TraceMerger([ring], []);
  const tracer = new RingTracer(ring, () => 0, false);
  const needs = new NeedReporter(tracer, counting()).needsOf(GUEST, 0);
  const reported = Array.from({ length: 20 }, (_, page) => needs.need(page, 0, 1, DMA_TO_DEVICE));
  assert.equal(reported.filter(Boolean).length, 8);
  assert.equal(merger.lost, 24);
});
