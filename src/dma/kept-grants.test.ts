// Mode persistent: which grants outlive their buffers, how many, for how long, and what a backend can make of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { Retention } from './bounce-pages.ts';
import type { DmaAddress, DmaOperations } from './dma.ts';
import { grantDma } from './exposure-modes.ts';
import {
  checkNothingShared,
  grantedFrames,
  newSharing,
  type Sharing,
  takePages,
  traceTo,
} from './sharing.test.helper.ts';

/** A device in mode persistent, a buffer of 20 pages, and how many pages were granted so far. */
function scene(retention: Retention = { pages: 64, milliseconds: 100 }) {
  const counts = { granted: 0 };
  const tracer = traceTo((name, _domain, _peer, _ref, _frame, count) => {
    if (name === 'grant') counts.granted += Number(count);
  });
  const sharing = newSharing({ tracer });
  const dma = grantDma('persistent', sharing.grants, 0, { retention });
  return { sharing, dma, buffer: takePages(sharing, 20), counts };
}

function mapAt(dma: DmaOperations, address: number, size: number, direction: number): DmaAddress {
  const at = { low: 0, high: 0 };
  assert.ok(dma.map(address, size, direction, at));
  return at;
}

/** Maps and unmaps at once. Returns the reference. */
function pass(dma: DmaOperations, address: number, size: number, direction: number): number {
  const { low, high } = mapAt(dma, address, size, direction);
  assert.ok(dma.unmap(low, high, size, direction));
  return grantAddressRef(low, high);
}

/** The references that the backend can use. */
const reachable = ({ backend }: Sharing) => backend.reach().map(({ ref }) => ref);

const SIZES = [16, 500, 2000, XEN_PAGE_SIZE, 5 * XEN_PAGE_SIZE - 1];
const DIRECTIONS = [DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE];

test('a buffer like one before it costs no grant', () => {
  const { sharing, dma, buffer, counts } = scene();
  const round = () => DIRECTIONS.map((way) => SIZES.map((size) => pass(dma, buffer, size, way)));
  const first = round();
  const { granted } = counts;
  for (let again = 0; again < 5; again++) assert.deepEqual(round(), first);
  assert.equal(counts.granted, granted);
  dma.close();
  checkNothingShared(sharing);
});

for (const size of SIZES) {
  for (const direction of [DMA_TO_DEVICE, DMA_BIDIRECTIONAL]) {
    test(`G14 G22: ${size} bytes, direction ${direction}: a page that is still granted holds nothing of the guest’s`, () => {
      const { sharing, dma, buffer } = scene();
      sharing.u8.fill(0x5e, buffer, buffer + size);
      const kept = pass(dma, buffer, size, direction);
      const reached = sharing.backend.reach();
      assert.ok(reached.some(({ ref }) => ref === kept));
      for (const { bytes, writable } of reached) {
        assert.ok(bytes.every((byte) => byte === 0));
        assert.equal(writable, direction !== DMA_TO_DEVICE);
      }
    });
  }

  test(`G23 B3: ${size} bytes: a late write reaches neither the buffer that is over nor the next one there`, () => {
    const { sharing, dma, buffer } = scene();
    const { backend, u8 } = sharing;
    const at = mapAt(dma, buffer, size, DMA_FROM_DEVICE);
    backend.writeAt(at, new Uint8Array(size).fill(0x11));
    assert.ok(dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE));
    backend.writeAt(at, new Uint8Array(size).fill(0x22));
    assert.ok(u8.subarray(buffer, buffer + size).every((byte) => byte === 0x11));
    const next = buffer + 10 * XEN_PAGE_SIZE;
    u8.fill(0x99, next, next + size);
    assert.deepEqual(mapAt(dma, next, size, DMA_FROM_DEVICE), at);
    backend.writeAt(at, Uint8Array.of(0x33));
    assert.ok(dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE));
    assert.deepEqual([...u8.subarray(next, next + size)], [0x33, ...Array<number>(size - 1).fill(0)]);
  });
}

test('what a device wrote for one buffer is not in the next, of whatever length and direction', () => {
  const { sharing, dma, buffer } = scene();
  const { backend, u8 } = sharing;
  for (const size of SIZES) {
    for (const ref of new Set(reachable(sharing))) {
      const handle = backend.map(ref);
      if (handle < 0) continue;
      backend.write(handle, 0, new Uint8Array(XEN_PAGE_SIZE).fill(0xba));
      backend.unmap(handle);
    }
    for (const direction of DIRECTIONS) {
      u8.fill(0x44, buffer, buffer + size);
      const at = mapAt(dma, buffer, size, direction);
      const expected = direction === DMA_FROM_DEVICE ? 0 : 0x44;
      assert.ok(backend.readAt(at, size).every((byte) => byte === expected));
      assert.ok(dma.unmap(at.low, at.high, size, direction));
      const left = direction === DMA_TO_DEVICE ? 0x44 : expected;
      assert.ok(u8.subarray(buffer, buffer + size).every((byte) => byte === left));
    }
  }
});

test('G17: of two buffers in a page one ends: the other works on, and nothing of the first is left', () => {
  const { sharing, dma, buffer } = scene();
  sharing.u8.fill(0x5e, buffer, buffer + 200);
  const one = mapAt(dma, buffer, 100, DMA_TO_DEVICE);
  const two = mapAt(dma, buffer + 100, 100, DMA_TO_DEVICE);
  assert.equal(grantAddressRef(one.low, one.high), grantAddressRef(two.low, two.high));
  assert.ok(dma.unmap(one.low, one.high, 100, DMA_TO_DEVICE));
  assert.ok(sharing.backend.readAt(one, 100).every((byte) => byte === 0));
  assert.ok(sharing.backend.readAt(two, 100).every((byte) => byte === 0x5e));
});

test('at the limit the run that was used least recently is revoked', () => {
  const { dma, buffer, counts } = scene({ pages: 6, milliseconds: 100 });
  const [one, two, three] = [1, 2, 3].map((pages) => pages * XEN_PAGE_SIZE);
  const refs = [one, two, three].map((size) => pass(dma, buffer, size, DMA_FROM_DEVICE));
  // The first is used again, so the second is the oldest now.
  assert.equal(pass(dma, buffer, one, DMA_FROM_DEVICE), refs[0]);
  assert.equal(counts.granted, 6);
  pass(dma, buffer, one, DMA_TO_DEVICE);
  assert.equal(dma.live, 5);
  assert.deepEqual(
    [one, two, three].map((size, i) => {
      const before = counts.granted;
      pass(dma, buffer, size, DMA_FROM_DEVICE);
      return counts.granted === before ? refs[i] : 'granted anew';
    }),
    [refs[0], 'granted anew', 'granted anew'],
  );
});

test('where nothing is idle the limit holds nobody up: what is over it is revoked with its buffer', () => {
  const { sharing, dma, buffer } = scene({ pages: 2, milliseconds: 100 });
  const size = XEN_PAGE_SIZE;
  const mapped = [0, 1, 2, 3].map(() => mapAt(dma, buffer, size, DMA_TO_DEVICE));
  const live = mapped.map(({ low, high }) => {
    assert.ok(dma.unmap(low, high, size, DMA_TO_DEVICE));
    return dma.live;
  });
  assert.deepEqual(live, [3, 2, 2, 2]);
  pass(dma, buffer, 3 * size, DMA_TO_DEVICE);
  assert.deepEqual(grantedFrames(sharing), []);
});

test('tick: what two sweeps in a row find unused is revoked, what is used is not', () => {
  const { sharing, dma, buffer } = scene();
  const idle = pass(dma, buffer, XEN_PAGE_SIZE, DMA_TO_DEVICE);
  const used = pass(dma, buffer, 100, DMA_FROM_DEVICE);
  const due = dma.tick(1000);
  assert.ok(due > 1000 && due <= 1050);
  assert.deepEqual(reachable(sharing).sort(), [idle, used].sort());
  assert.equal(dma.tick(due - 1), due);
  assert.equal(pass(dma, buffer, 100, DMA_FROM_DEVICE), used);
  const next = dma.tick(due);
  assert.deepEqual(reachable(sharing), [used]);
  assert.equal(dma.tick(next), Number.POSITIVE_INFINITY);
  checkNothingShared(sharing);
});

test('G10: a kept page that the backend maps when its time is over is quarantined, and the pool takes another', () => {
  const { sharing, dma, buffer } = scene();
  const { backend } = sharing;
  const kept = pass(dma, buffer, XEN_PAGE_SIZE, DMA_FROM_DEVICE);
  const handle = backend.map(kept);
  dma.revokeIdle();
  assert.deepEqual([dma.live, dma.quarantined], [0, 1]);
  const next = mapAt(dma, buffer, XEN_PAGE_SIZE, DMA_FROM_DEVICE);
  backend.write(handle, 0, new Uint8Array(XEN_PAGE_SIZE).fill(0xba));
  assert.ok(backend.readAt(next, XEN_PAGE_SIZE).every((byte) => byte === 0));
  assert.ok(dma.unmap(next.low, next.high, XEN_PAGE_SIZE, DMA_FROM_DEVICE));
  backend.unmap(handle);
  assert.equal(dma.recover(), 1);
  dma.close();
  checkNothingShared(sharing);
});

test('G8: references of idle runs are no reason to refuse a buffer or a ring', () => {
  const { sharing, dma, buffer } = scene();
  const { references } = sharing.domain;
  for (let pages = 1; pages <= 8; pages++) pass(dma, buffer, pages * XEN_PAGE_SIZE, DMA_TO_DEVICE);
  const first = references.allocate(references.free);
  assert.ok(first >= 0);
  pass(dma, buffer, 20 * XEN_PAGE_SIZE, DMA_FROM_DEVICE);
  const ring = dma.allocate(20 * XEN_PAGE_SIZE);
  assert.ok(ring !== undefined && dma.free(ring));
});

/** Something that the driver does, `later` milliseconds after what it did before. */
const act = fc.record({
  what: fc.constantFrom('map', 'map', 'unmap', 'sync', 'reset'),
  later: fc.constantFrom(0, 0, 1, 7, 26, 60, 300),
  size: fc.constantFrom(1, 128, 600, 2048, 4096, 4097, 12_288),
  direction: fc.constantFrom(...DIRECTIONS),
  which: fc.nat(),
});

test('5 10 G22: within the budget and the declared time, whatever is done, if ticks come when they are due', () => {
  fc.assert(
    fc.property(
      fc.array(act, { maxLength: 60 }),
      fc.integer({ min: 1, max: 12 }),
      fc.nat(10),
      (acts, budget, late) => {
        let now = 0;
        const idleSince = new Map<number, number>();
        const needs = new Map<number, number>();
        let longest = 0;
        let declared = 0;
        const tracer = traceTo((name, ...figures) => {
          const [, second, third, offset, size] = figures.map(Number);
          if (name === 'staleLimit') declared = third / 1e6;
          if (name === 'need' || name === 'needEnd')
            for (let ref = third; ref <= third + ((offset + size - 1) >> 12); ref++) {
              const left = (needs.get(ref) ?? 0) + (name === 'need' ? 1 : -1);
              needs.set(ref, left);
              idleSince.set(ref, left === 0 ? now : Number.POSITIVE_INFINITY);
            }
          if (name === 'revoke')
            for (let ref = second; ref < second + third; ref++)
              longest = Math.max(longest, now - (idleSince.get(ref) ?? now));
        });
        const sharing = newSharing({ tracer });
        const dma = grantDma('persistent', sharing.grants, 0, {
          retention: { pages: budget, milliseconds: 100 },
        });
        const buffer = takePages(sharing, 4);
        const mapped: { at: DmaAddress; size: number; direction: number }[] = [];
        let due = 0;
        const passTime = (until: number) => {
          for (; due + late <= until; due = dma.tick(now)) now = Math.max(now, due + late);
          now = until;
          // Awake, as it is about to do something.
          due = dma.tick(now);
        };
        const unmap = ({ at, size, direction }: (typeof mapped)[number]) =>
          assert.ok(dma.unmap(at.low, at.high, size, direction));
        for (const { what, later, size, direction, which } of acts) {
          passTime(now + later);
          const chosen = mapped[which % mapped.length];
          if (what === 'map') mapped.push({ at: mapAt(dma, buffer, size, direction), size, direction });
          else if (what === 'reset') dma.revokeIdle();
          else if (chosen !== undefined && what === 'sync')
            dma.syncForDevice(chosen.at.low, chosen.at.high, chosen.size, chosen.direction);
          else if (chosen !== undefined) unmap(mapped.splice(which % mapped.length, 1)[0]);
          due = Math.min(due, dma.tick(now));
          const inUse = [...needs.values()].filter((count) => count > 0).length;
          assert.ok(dma.live <= Math.max(budget, inUse), `${dma.live} granted, ${inUse} in use`);
        }
        mapped.splice(0).forEach(unmap);
        due = dma.tick(now);
        passTime(now + 1000);
        checkNothingShared(sharing);
        assert.equal(declared, 100);
        assert.ok(longest <= declared, `${longest} ms`);
      },
    ),
    { seed: 22, numRuns: 300 },
  );
});
