// Also the program of the threads that it starts: each records events into its ring as fast as it can.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import type { TraceEvent } from './events.ts';
import { TraceMerger } from './trace-merger.ts';
import { RingTracer, type TraceRing, traceRings } from './trace-ring.ts';

interface Job {
  readonly ring: TraceRing;
  readonly events: number;
}

/** Event `i` of a thread carries `i` in its numbers, and its thread as the domain. */
function record({ ring, events }: Job): void {
  const tracer = new RingTracer(ring, () => performance.now() * 1e6);
  for (let i = 0; i < events; i++) {
    if (i % 2 === 0) tracer.busy(ring.thread, i);
    else tracer.touch(ring.thread, 1, 2, 3, i, true);
  }
}

/** Starts a thread that records; resolves when it is done. */
function startRecording(job: Job): Promise<unknown> {
  return once(new Worker(new URL(import.meta.url), { workerData: job }), 'exit');
}

/** Keeps every event, as a copy. */
function collector() {
  const events: TraceEvent[] = [];
  return { events, consume: (event: TraceEvent) => void events.push({ ...event }) };
}

const numberIn = (event: TraceEvent) =>
  event.kind === 'busy' ? event.ref : event.kind === 'touch' && event.size;

if (isMainThread) {
  test('two threads with full rings: one order without holes, every event once', {
    timeout: 60_000,
  }, async () => {
    const each = 30_000;
    const rings = traceRings(2, 64);
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    let running = 2;
    const threads = rings.map((ring) => startRecording({ ring, events: each }).then(() => running--));
    let everWaited = false;
    while (running > 0) {
      everWaited ||= merger.waiting > 0;
      merger.drain(100);
      await nextTurn();
    }
    await Promise.all(threads);
    merger.drain();
    assert.equal(collected.events.length, 2 * each);
    assert.ok(collected.events.every((event, index) => event.sequence === index));
    for (const { thread } of rings) {
      const own = collected.events.filter((event) => event.thread === thread);
      assert.ok(own.every((event, index) => numberIn(event) === index));
      assert.ok(own.every((event, index) => index === 0 || event.time >= own[index - 1].time));
    }
    assert.ok(everWaited, 'the rings were never full');
    assert.equal(merger.waiting, 0);
    assert.equal(merger.undelivered, 0);
  });

  test('closing releases a thread that waits, and no event is unaccounted for', {
    timeout: 60_000,
  }, async () => {
    const events = 10_000;
    const rings = traceRings(2, 8);
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    const done = startRecording({ ring: rings[1], events });
    while (merger.waiting === 0) await nextTurn();
    assert.equal(merger.undelivered, 8);
    merger.close();
    await done;
    const delivered = collected.events.length;
    assert.deepEqual(collected.events.map(numberIn), [...Array(delivered).keys()]);
    assert.equal(merger.undelivered, events - delivered);
  });

  test('after the merger is closed a full ring gives events up at once', () => {
    const [ring] = traceRings(1, 4);
    const collected = collector();
    const merger = new TraceMerger([ring], [collected]);
    const tracer = new RingTracer(ring, () => 0);
    tracer.busy(0, 0);
    merger.close();
    assert.equal(merger.undelivered, 0);
    for (let i = 1; i < 10; i++) tracer.busy(0, i);
    assert.deepEqual(collected.events.map(numberIn), [0]);
    assert.equal(merger.undelivered, 9);
  });

  test('a merger that comes after the first event refuses to start', () => {
    const [ring] = traceRings(1, 4);
    new RingTracer(ring, () => 0).busy(0, 0);
    assert.throws(() => new TraceMerger([ring], []), /before the merger/);
  });

  test('drain delivers in order from whichever ring is next, up to its limit', () => {
    const rings = traceRings(3, 16);
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    const tracers = rings.map((ring) => new RingTracer(ring, () => 5));
    for (const turn of [2, 0, 0, 1, 2, 2, 0, 1]) tracers[turn].busy(turn, 0);
    assert.equal(merger.undelivered, 8);
    assert.equal(merger.drain(0), 0);
    assert.equal(merger.drain(5), 5);
    assert.equal(merger.drain(), 3);
    assert.equal(merger.drain(), 0);
    assert.deepEqual(
      collected.events.map((event) => event.thread),
      [2, 0, 0, 1, 2, 2, 0, 1],
    );
  });

  test('a ring works past its end many times, and numbers past 2^32', () => {
    const rings = traceRings(2, 4);
    new Uint32Array(rings[0].counter)[0] = 0xffff_fff0;
    for (const { memory } of rings) new Int32Array(memory).fill(0x7fff_fff8, 0, 1).fill(0x7fff_fff8, 16, 17);
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    const tracers = rings.map((ring) => new RingTracer(ring, () => 0));
    for (let i = 0; i < 100; i++) {
      tracers[i & 1].busy(i & 1, i);
      if (i % 3 === 0) merger.drain();
    }
    merger.drain();
    assert.deepEqual(collected.events.map(numberIn), [...Array(100).keys()]);
    assert.ok(
      collected.events.every(
        ({ sequence }, i) => i === 0 || sequence === collected.events[i - 1].sequence + 1,
      ),
    );
    assert.equal(merger.undelivered, 0);
  });

  test('a number that was taken but never written holds events back until the merger is closed', () => {
    const rings = traceRings(2, 16);
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    const [first, second] = rings.map((ring) => new RingTracer(ring, () => 0));
    first.busy(0, 0);
    // What a thread killed between the two steps of recording leaves behind.
    Atomics.add(new Int32Array(rings[0].counter), 0, 1);
    second.busy(1, 1);
    first.busy(0, 2);
    assert.equal(merger.drain(), 1);
    assert.equal(merger.drain(), 0);
    merger.close();
    assert.deepEqual(collected.events.map(numberIn), [0, 1, 2]);
    assert.deepEqual(
      collected.events.map(({ sequence }) => sequence),
      [0, 2, 3],
    );
    assert.equal(merger.undelivered, 1);
  });

  test('holes are passed at the wrap of the numbers too, and what comes too late is not delivered', () => {
    const rings = traceRings(2, 16);
    const counter = new Uint32Array(rings[0].counter);
    counter[0] = 0xffff_fffe;
    const collected = collector();
    const merger = new TraceMerger(rings, [collected]);
    const [first, second] = rings.map((ring) => new RingTracer(ring, () => 0));
    first.busy(0, 0);
    counter[0] += 2;
    second.busy(1, 1);
    merger.close();
    assert.deepEqual(collected.events.map(numberIn), [0, 1]);
    assert.equal(merger.undelivered, 2);
    // The first of the two missing numbers, written after all.
    counter[0] = 0xffff_ffff;
    first.busy(0, 2);
    counter[0] = 2;
    first.busy(0, 3);
    merger.close();
    assert.deepEqual(collected.events.map(numberIn), [0, 1, 3]);
    assert.equal(merger.undelivered, 2);
  });

  test('a thread that may not block gives events up after a while, and goes on when there is room', () => {
    const [ring] = traceRings(1, 4);
    const collected = collector();
    const merger = new TraceMerger([ring], [collected]);
    const tracer = new RingTracer(ring, () => 0, false);
    for (let i = 0; i < 7; i++) tracer.busy(0, i);
    assert.equal(merger.undelivered, 7);
    merger.drain();
    tracer.busy(0, 7);
    merger.drain();
    assert.deepEqual(collected.events.map(numberIn), [0, 1, 2, 3, 7]);
    assert.deepEqual(
      collected.events.map(({ sequence }) => sequence),
      [0, 1, 2, 3, 4],
      'what is given up takes no number',
    );
    assert.equal(merger.undelivered, 3);
  });

  test('the capacity of a ring is a power of two', () => {
    assert.throws(() => traceRings(1, 100), /power of two/);
    assert.throws(() => traceRings(1, 0), /power of two/);
  });
} else {
  record(workerData as Job);
  parentPort?.close();
}
