// Behind an IOMMU: what is mapped is reached with its right, what is not known is asked for once and waits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import { MAPPING_PENDING } from './device-memory.ts';
import { Iotlb } from './iotlb.ts';
import { IotlbMemory, NO_TRANSLATION } from './iotlb-memory.ts';
import { RegionTable } from './region-table.ts';

const PAGE = 4096;
const USER = 0x10_0000;
const READ = 1;
const WRITE = 2;

function scene() {
  const asked: string[] = [];
  const iotlb = new Iotlb((iova, right) => asked.push(`0x${iova.toString(16)} ${right}`));
  const memory = regionOver(new ArrayBuffer(16 * PAGE));
  const table = new RegionTable([{ guest: 0, user: USER, size: 16 * PAGE, memory }]);
  return { asked, iotlb, memory: new IotlbMemory(table, iotlb) };
}

test('a buffer over two translations is mapped in pieces, or not at all', () => {
  const { asked, iotlb, memory } = scene();
  iotlb.update({ iova: 8 * PAGE, user: USER + 3 * PAGE, size: PAGE, right: 3 });
  const access = memory.newChainAccess();
  assert.equal(access.map(9 * PAGE - 8, 0, 24, true), MAPPING_PENDING);
  assert.equal(access.writable.byteLength, 0, 'nothing of it is mapped');
  assert.deepEqual(asked, ['0x9000 2']);
  iotlb.update({ iova: 9 * PAGE, user: USER, size: PAGE, right: WRITE });
  assert.equal(access.map(9 * PAGE - 8, 0, 24, true), 0);
  assert.deepEqual(access.writable.offsets.slice(0, 2), [4 * PAGE - 8, 0]);
  assert.deepEqual(access.writable.lengths.slice(0, 2), [8, 16]);
});

test('a right that the IOMMU does not give is refused, and not asked for', () => {
  const { asked, iotlb, memory } = scene();
  iotlb.update({ iova: 0, user: USER, size: PAGE, right: READ });
  const access = memory.newChainAccess();
  assert.ok(access.map(0, 0, 8, true) < 0);
  assert.equal(access.map(0, 0, 8, false), 0);
  assert.deepEqual(asked, []);
});

test('a page is asked for once until the monitor answers', () => {
  const { asked, iotlb, memory } = scene();
  const access = memory.newChainAccess();
  for (const at of [0, 16, 4000]) access.map(at, 0, 8, false);
  iotlb.update({ iova: PAGE, user: USER, size: PAGE, right: 3 });
  access.map(0, 0, 8, false);
  assert.deepEqual(asked, ['0x0 1'], 'the answer was another page’s');
  access.map(0, 0, 8, true);
  assert.deepEqual(asked, ['0x0 1', '0x0 2'], 'another right');
  iotlb.update({ iova: 0, user: USER, size: PAGE, right: 3 });
  iotlb.invalidate(0, PAGE);
  access.map(0, 0, 8, true);
  assert.deepEqual(asked, ['0x0 1', '0x0 2', '0x0 2'], 'it was answered, and taken away');
});

test('a page that is asked for is not asked for again when pages beside it are taken away', () => {
  const { asked, iotlb, memory } = scene();
  const access = memory.newChainAccess();
  const map = () => access.map(PAGE, 0, 8, false);
  map();
  // Linux takes away a power of two of pages where it unmaps three.
  iotlb.invalidate(0, 4 * PAGE);
  assert.equal(map(), MAPPING_PENDING);
  assert.deepEqual(asked, ['0x1000 1'], 'the first question is still to be answered');
  iotlb.update({ iova: PAGE, user: USER, size: PAGE, right: READ });
  assert.equal(map(), 0);
  access.release(0, 0, 0);
  // The guest takes it away and uses the address for another page: with two answers to come, that of the first page,
  // which says that there is none any more, would be taken for that of the second.
  iotlb.invalidate(PAGE, PAGE);
  assert.equal(map(), MAPPING_PENDING);
  assert.deepEqual(asked, ['0x1000 1', '0x1000 1']);
});

test('what the monitor never answers is asked for anew when the ring that waited for it has stopped', () => {
  const { asked, iotlb, memory } = scene();
  const access = memory.newChainAccess();
  access.map(0, 0, 8, false);
  iotlb.forgetMisses();
  access.map(0, 0, 8, false);
  assert.deepEqual(asked, ['0x0 1', '0x0 1']);
});

test('an address that the monitor has no translation of is refused once, and asked for anew', () => {
  const { asked, iotlb, memory } = scene();
  const access = memory.newChainAccess();
  const map = () => access.map(16, 0, 8, false);
  iotlb.refuse(0);
  assert.equal(map(), MAPPING_PENDING, 'what was not asked for is not answered');
  iotlb.refuse(PAGE + 5);
  assert.equal(map(), MAPPING_PENDING);
  iotlb.refuse(5);
  assert.equal(map(), NO_TRANSLATION);
  assert.equal(map(), MAPPING_PENDING);
  iotlb.refuse(5);
  iotlb.update({ iova: 0, user: USER, size: PAGE, right: 3 });
  assert.equal(map(), 0, 'mapped meanwhile');
  assert.deepEqual(asked, ['0x0 1', '0x0 1']);
});

test('a translation to where there is no memory is the monitor’s fault', () => {
  const { iotlb, memory } = scene();
  iotlb.update({ iova: 0, user: USER + 15 * PAGE, size: 2 * PAGE, right: 3 });
  assert.throws(() => memory.newChainAccess().map(PAGE, 0, 8, false), ProtocolViolation);
  assert.throws(() => memory.mapRing(PAGE - 8, 0, 16), ProtocolViolation);
});

test('a flood of translations and misses takes bounded room', () => {
  const { asked, iotlb } = scene();
  for (let i = 0; i < 5000; i++) iotlb.update({ iova: i * PAGE, user: USER, size: PAGE, right: 3 });
  assert.equal(iotlb.count, 2048);
  assert.equal(iotlb.at(0), undefined, 'the oldest made room');
  for (let i = 0; i < 5000; i++) iotlb.miss(2 ** 40 + i * PAGE, READ);
  assert.equal(asked.length, 1024);
});

test('translations that make no sense are refused', () => {
  const { iotlb } = scene();
  for (const bad of [{ size: 0 }, { size: 2 ** 53 }, { user: 2 ** 64 }, { right: 0 }, { right: 4 }])
    assert.throws(
      () => iotlb.update({ iova: 0, user: USER, size: PAGE, right: 3, ...bad }),
      ProtocolViolation,
    );
});

test('any updates and invalidations leave what a map of single pages would hold', () => {
  const change = fc.record({
    page: fc.integer({ min: 0, max: 20 }),
    pages: fc.integer({ min: 1, max: 6 }),
    to: fc.integer({ min: 0, max: 9 }),
    kind: fc.constantFrom('update', 'invalidate'),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      const { iotlb } = scene();
      // An overlapped translation goes as a whole, so the map keeps which one each page is of.
      const model = new Map<number, { user: number; of: number }>();
      for (const [of, { page, pages, to, kind }] of changes.entries()) {
        const hit = new Set<number | undefined>();
        for (let i = 0; i < pages; i++) hit.add(model.get(page + i)?.of);
        for (const [at, entry] of model) if (hit.has(entry.of)) model.delete(at);
        if (kind === 'invalidate') iotlb.invalidate(page * PAGE, pages * PAGE);
        else {
          iotlb.update({ iova: page * PAGE, user: USER + to * PAGE, size: pages * PAGE, right: 3 });
          for (let i = 0; i < pages; i++) model.set(page + i, { user: USER + (to + i) * PAGE, of });
        }
      }
      for (let page = 0; page < 30; page++) {
        const found = iotlb.at(page * PAGE);
        const user = found && found.user + (page * PAGE - found.iova);
        assert.equal(user, model.get(page)?.user);
      }
    }),
    { seed: 56, numRuns: 500 },
  );
});
