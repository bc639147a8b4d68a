// A thread that may not wait loses needs when nobody reads its ring, and never an end of one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DMA_TO_DEVICE } from '../trace.ts';
import { Exposure } from './exposure.ts';
import { NeedReporter } from './need-reporter.ts';
import { TraceMerger } from './trace-merger.ts';
import { RingTracer, traceRings } from './trace-ring.ts';

const GUEST = 3;

test('R9: whatever is lost, every need that is reported ends, and each event is counted once', () => {
  // A need, the end of the oldest, or a look of the reader's.
  const step = fc.constantFrom('need', 'need', 'end', 'read');
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const rings = traceRings(1, 16);
      const exposure = new Exposure(undefined, { side: 'backend' });
      const merger = new TraceMerger(rings, [exposure]);
      const reporter = new NeedReporter(new RingTracer(rings[0], () => 0, false));
      const needs = reporter.of(GUEST, 0);
      const live: [number, boolean][] = [];
      let reported = 0;
      const end = (): void => {
        const [page, wasReported] = live.shift() ?? [0, false];
        if (wasReported) needs.needEnd(page, 0, 16);
      };
      for (const [page, each] of steps.entries()) {
        if (each === 'read') merger.drain();
        else if (each === 'end') end();
        else {
          const isReported = needs.need(page, 0, 16, DMA_TO_DEVICE);
          live.push([page, isReported]);
          if (isReported) reported++;
        }
      }
      while (live.length > 0) end();
      merger.close();
      const needed = steps.filter((each) => each === 'need').length;
      assert.deepEqual([merger.lost, merger.undelivered], [2 * (needed - reported), 2 * (needed - reported)]);
      assert.equal(exposure.neededBytes, 0);
      assert.deepEqual([exposure.total().bytesNeeded, exposure.total().contradictions], [reported * 16, 0]);
    }),
    { seed: 99, numRuns: 300 },
  );
});

test('a ring that nobody reads takes what it has room for, with the ends', () => {
  const [ring] = traceRings(1, 16);
  const merger = new TraceMerger([ring], []);
  const needs = new NeedReporter(new RingTracer(ring, () => 0, false)).of(GUEST, 0);
  const reported = Array.from({ length: 20 }, (_, page) => needs.need(page, 0, 1, DMA_TO_DEVICE));
  assert.equal(reported.filter(Boolean).length, 8);
  assert.equal(merger.lost, 24);
});
