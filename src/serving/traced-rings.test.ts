// What an IOMMU's messages come to as events: at every moment the accounting has the pages that the translations map,
// each once, whatever order they come and go in.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { DirectTracer } from '../audit/event-tracer.ts';
import type { TraceEvent } from '../audit/events.ts';
import { Exposure } from '../audit/exposure.ts';
import { ProtocolViolation } from '../errors.ts';
import type { Translation } from '../memory/iotlb.ts';
import type { RingMemory, RingRunner, RingSetup } from '../transports/vhost-user/platform.ts';
import { DeviceReach, Handles } from './device-reach.ts';
import { RingNeeds } from './ring-needs.ts';
import { TracedRings } from './traced-rings.ts';

const PAGE = 4096;
const GUEST = 1;
const USER = 0x7f00_0000_0000;
const [LOW, HIGH] = [0, 0x1_0000_0000];
const READ = 1;
const READ_WRITE = 3;

/** Two regions of 64 pages, next to each other in the monitor and not in the guest. */
const memory = regionOver(new ArrayBuffer(64 * PAGE));
const MEMORY: RingMemory = {
  ...{ translated: true, log: undefined },
  regions: [
    { guest: LOW, user: USER, size: 64 * PAGE, memory },
    { guest: HIGH, user: USER + 64 * PAGE, size: 64 * PAGE, memory },
  ],
};

/** Rings that are traced, and everything that happens in order. */
function scene(ringMemory: RingMemory = MEMORY) {
  const happened: string[] = [];
  const events: TraceEvent[] = [];
  const exposure = new Exposure(undefined, { side: 'backend' });
  const note = {
    consume: (event: TraceEvent): void => {
      happened.push(event.kind);
      events.push({ ...event });
    },
  };
  const tell = (what: string) => (): undefined => {
    happened.push(`told ${what}`);
  };
  const rings = {
    ...{ setFeatures: tell('features'), setMemory: tell('memory'), translate: tell('translation') },
    refuse: tell('refusal'),
    ...{ invalidate: tell('invalidation'), setCall: tell('call'), kick: tell('kick'), reset: tell('reset') },
    start: () => true,
    stop: () => 7,
  } satisfies RingRunner;
  const tracer = new DirectTracer([exposure, note], () => 0);
  const reach = new DeviceReach(tracer, new Handles(), GUEST);
  const traced = new TracedRings(rings, reach, new RingNeeds(tracer, GUEST));
  traced.setMemory(ringMemory);
  happened.length = 0;
  return { traced, exposure, events, happened };
}

const page = (iova: number, user: number, right = READ_WRITE): Translation => ({
  ...{ iova: iova * PAGE, user: USER + user * PAGE, size: PAGE, right },
});

test('access is reported before the workers learn of it, and its end after they have', () => {
  const { traced, happened } = scene();
  traced.translate(page(5, 3));
  traced.invalidate(5 * PAGE, PAGE);
  assert.deepEqual(happened, [
    ...['grant', 'map', 'told translation'],
    ...['told invalidation', 'unmap', 'revoke'],
  ]);
});

test('a page is granted by its I/O address, with the guest’s frame behind it and the IOMMU’s right', () => {
  const { traced, events } = scene();
  traced.translate(page(0xffff_f000, 3, READ));
  traced.translate({ ...page(9, 63), size: 2 * PAGE });
  const grants = events.filter((event) => event.kind === 'grant');
  assert.deepEqual(
    grants.map(({ ref, frame, count, readonly }) => [ref, frame, count, readonly]),
    [
      [0xffff_f000, 3, 1, true],
      [9, 63, 1, false],
      [10, HIGH / PAGE, 1, false],
    ],
  );
});

test('the same translation twice is one access: frontends answer each worker', () => {
  const { traced, exposure, happened } = scene();
  traced.translate(page(5, 3));
  traced.translate(page(5, 3));
  assert.deepEqual(happened, ['grant', 'map', 'told translation', 'told translation']);
  traced.invalidate(0, 16 * PAGE);
  const { pagesGranted, contradictions } = exposure.total();
  assert.deepEqual([pagesGranted, contradictions, exposure.exposedBytes], [1, 0, 0]);
});

test('a translation that cannot be reaches nobody, and neither does one of no memory', () => {
  const { traced, exposure, happened } = scene();
  assert.throws(() => traced.translate({ ...page(5, 3), size: 0 }), ProtocolViolation);
  assert.deepEqual(happened, []);
  traced.translate(page(5, 5000));
  assert.deepEqual([happened, exposure.exposedBytes], [['told translation'], 0]);
});

test('what a worker forgets because it has too many is out of reach', () => {
  const { traced, exposure } = scene();
  for (let i = 0; i < 2050; i++) traced.translate(page(i * 2, i % 128));
  assert.equal(exposure.exposedBytes, 2048 * PAGE);
  assert.deepEqual(
    exposure.liveGrants().map(({ ref }) => ref),
    Array.from({ length: 2048 }, (_, i) => (i + 2) * 2),
  );
});

test('F10: a huge translation is a range, clipped to the memory that there is', () => {
  const { traced, exposure, events } = scene();
  traced.translate({ iova: 0, user: USER - 2 ** 40, size: 2 ** 45, right: READ_WRITE });
  assert.equal(exposure.exposedBytes, 128 * PAGE, 'few pages are pages');
  traced.invalidate(0, Number.POSITIVE_INFINITY);
  const big = 2 ** 33;
  traced.setMemory({ ...MEMORY, regions: [{ guest: 0, user: USER, size: big, memory }] });
  traced.translate({ iova: 0, user: USER, size: 2 ** 40, right: READ });
  assert.equal(exposure.exposedBytes, big);
  const counts = events.flatMap((event) => (event.kind === 'reach' ? [event.count] : []));
  assert.deepEqual(counts, [2 ** 20, 2 ** 20], 'no event is longer than a trace file may have it');
  traced.close();
  assert.deepEqual([exposure.exposedBytes, exposure.total().contradictions], [0, 0]);
});

test('without an IOMMU all of the memory is reached, from when it comes until it goes', () => {
  const { traced, exposure, happened } = scene({ ...MEMORY, translated: false });
  assert.equal(exposure.exposedBytes, 128 * PAGE);
  traced.translate(page(5, 3));
  assert.deepEqual(happened, ['told translation']);
  traced.setMemory(MEMORY);
  assert.deepEqual(happened.slice(1), ['grant', 'map', 'told memory', 'reachEnd', 'reachEnd']);
  traced.close();
  assert.deepEqual([exposure.exposedBytes, exposure.total().foreignReadableBytes], [0, 128 * PAGE]);
});

test('a ring needs its memory while it pauses, and until that is taken away or it lies elsewhere', () => {
  const { traced, exposure, happened } = scene();
  for (const at of [5, 6, 9]) traced.translate(page(at, at));
  const ring = (low: number): RingSetup => ({
    ...{ index: 0, size: 8, base: 0, logAddress: undefined, inflight: undefined, kick: -1 },
    places: {
      ...{ descriptorLow: low, descriptorHigh: 0, driverLow: low + 1024, driverHigh: 0 },
      ...{ deviceLow: low + 2048, deviceHigh: 0 },
    },
  });
  const bytes = 8 * 16 + (6 + 2 * 8) + (6 + 8 * 8);
  traced.start(ring(5 * PAGE));
  happened.length = 0;
  traced.stop(0);
  traced.invalidate(9 * PAGE, PAGE);
  traced.start(ring(5 * PAGE));
  assert.deepEqual(happened, ['told invalidation', 'unmap', 'revoke']);
  assert.equal(exposure.neededBytes, bytes);
  traced.start(ring(6 * PAGE));
  assert.equal(exposure.neededBytes, bytes);
  traced.invalidate(5 * PAGE, PAGE);
  assert.equal(exposure.neededBytes, bytes, 'it lies elsewhere');
  traced.invalidate(6 * PAGE + 2048, 1);
  assert.equal(exposure.neededBytes, 0);
  const { contradictions, maxStaleNanoseconds, pagesWithoutNeed } = exposure.total();
  assert.deepEqual([contradictions, maxStaleNanoseconds, pagesWithoutNeed], [0, 0, 1]);
});

/** A message about translations, or about memory. */
type Message =
  | { readonly kind: 'update'; readonly entry: Translation }
  | { readonly kind: 'invalidate'; readonly iova: number; readonly size: number }
  | { readonly kind: 'memory'; readonly regions: number; readonly translated: boolean };

// Few addresses, and sizes that are no pages, so that they meet.
const address = fc.oneof(
  fc.nat(12).map((n) => n * PAGE),
  fc.nat(12 * PAGE),
);
const size = fc.constantFrom(PAGE, PAGE, 2 * PAGE, 1, 3000, 5000);
const message: fc.Arbitrary<Message> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('update' as const),
      entry: fc.record({
        ...{ iova: address, size, right: fc.constantFrom(1, 2, 3) },
        user: fc.nat(140).map((n) => USER + n * PAGE),
      }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('invalidate' as const), iova: address, size }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('memory' as const),
      regions: fc.nat(2),
      translated: fc.boolean(),
    }),
  },
);

/** Pages of I/O addresses within reach, from the translations that are left: the newest first, none that it overlaps. */
function recount(messages: readonly Message[]): { readonly pages: Set<number>; readonly ranges: number } {
  let regions = MEMORY.regions;
  let translated = true;
  let entries: Translation[] = [];
  const forget = (iova: number, length: number): void => {
    entries = entries.filter((entry) => entry.iova >= iova + length || entry.iova + entry.size <= iova);
  };
  for (const each of messages) {
    if (each.kind === 'memory') {
      regions = MEMORY.regions.slice(0, each.regions);
      translated = each.translated;
    } else if (each.kind === 'invalidate') forget(each.iova, each.size);
    else {
      forget(each.entry.iova, each.entry.size);
      entries.push(each.entry);
    }
  }
  if (!translated) return { pages: new Set(), ranges: regions.length * 64 * PAGE };
  const isMemory = (user: number): boolean =>
    regions.some((region) => user >= region.user && user < region.user + region.size);
  const pages = new Set<number>();
  for (const { iova, user, size: length } of entries)
    for (let byte = 0; byte < length; byte++)
      if (isMemory(user + byte)) pages.add(Math.floor((iova + byte) / PAGE));
  return { pages, ranges: 0 };
}

test('what is within reach is what a recount of the messages finds, after each of them', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 25 }), (messages) => {
      const { traced, exposure } = scene();
      for (const [index, each] of messages.entries()) {
        if (each.kind === 'update') traced.translate(each.entry);
        else if (each.kind === 'invalidate') traced.invalidate(each.iova, each.size);
        else {
          const regions = MEMORY.regions.slice(0, each.regions);
          traced.setMemory({ ...MEMORY, regions, translated: each.translated });
        }
        const { pages, ranges } = recount(messages.slice(0, index + 1));
        const live = exposure.liveGrants().map(({ ref }) => ref);
        assert.deepEqual(
          live.sort((a, b) => a - b),
          [...pages].sort((a, b) => a - b),
        );
        assert.equal(exposure.exposedBytes, pages.size * PAGE + ranges);
      }
      traced.close();
      assert.deepEqual([exposure.exposedBytes, exposure.total().contradictions], [0, 0]);
    }),
    { seed: 5_005, numRuns: 300 },
  );
});
