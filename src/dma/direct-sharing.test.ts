// Mode direct, against the defects of the first version of grants for virtio in Linux (R1-R10) and the cases
// of group G: which pages are granted, for what, and at which address.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressOffset, grantAddressRef, isGrantAddress } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { grantDma } from './exposure-modes.ts';
import { MAX_MAPPING_SIZE } from './dma.ts';
import {
  checkNothingShared,
  grantedFrames,
  newSharing,
  type Sharing,
  takePages,
} from './sharing.test.helper.ts';

function direct(options: Parameters<typeof newSharing>[0] = {}) {
  const sharing = newSharing(options);
  return { sharing, dma: grantDma('direct', sharing.grants, 0), at: { low: 1, high: 1 } };
}

/** Fills pages with a pattern that differs from byte to byte and page to page. */
function fill({ u8 }: Sharing, address: number, length: number): void {
  for (let i = 0; i < length; i++) u8[address + i] = (i * 7 + (i >> 8) + 1) & 0xff;
}

// Offset from a page's start, size, and the pages touched: from the table of page arithmetic of Linux.
for (const [offset, size, first, pages] of [
  [0xff0, 0x20, 0, 2],
  [0xfff, 1, 0, 1],
  [0xfff, 2, 0, 2],
  [1, 0x1000, 0, 2],
  [0, 0x1000, 0, 1],
  [0x3aa8, 0x3a0, 3, 1],
  [0x9123, 0x2000, 9, 3],
] as const) {
  test(`R1 R2 G1 G2: 0x${size.toString(16)} bytes at 0x${offset.toString(16)}: page ${first} on, ${pages} in all`, () => {
    const { sharing, dma, at } = direct();
    const buffer = takePages(sharing, 12);
    fill(sharing, buffer, 12 * XEN_PAGE_SIZE);
    assert.ok(dma.map(buffer + offset, size, DMA_TO_DEVICE, at));
    const frame = buffer / XEN_PAGE_SIZE + first;
    assert.deepEqual(
      grantedFrames(sharing),
      Array.from({ length: pages }, (_, page) => ({ frame: frame + page, readonly: true })),
    );
    assert.equal(grantAddressOffset(at.low), offset % XEN_PAGE_SIZE);
    assert.deepEqual(
      sharing.backend.readAt(at, size),
      sharing.u8.slice(buffer + offset, buffer + offset + size),
    );
    assert.ok(dma.unmap(at.low, at.high, size, DMA_TO_DEVICE));
    checkNothingShared(sharing);
  });
}

test('R3: a mapping that cannot be made is false and ~0, which is no address of a grant', () => {
  const { sharing, dma, at } = direct();
  assert.equal(sharing.domain.references.allocate(504), 8);
  assert.ok(!dma.map(0, 1, DMA_TO_DEVICE, at));
  assert.deepEqual(at, { low: 0xffff_ffff, high: 0xffff_ffff });
  assert.ok(!isGrantAddress(at.high));
});

test('R6 G3: of a 64 KiB page of the kernel only the 4 KiB that the buffer touches are granted', () => {
  const { sharing, dma, at } = direct();
  const kernelPage = takePages(sharing, 16);
  assert.ok(dma.map(kernelPage + 0x5ffc, 8, DMA_FROM_DEVICE, at));
  const frame = kernelPage / XEN_PAGE_SIZE;
  assert.deepEqual(
    grantedFrames(sharing),
    [5, 6].map((page) => ({ frame: frame + page, readonly: false })),
  );
});

for (const [direction, name, readonly] of [
  [DMA_TO_DEVICE, 'to-device', true],
  [DMA_FROM_DEVICE, 'from-device', false],
  [DMA_BIDIRECTIONAL, 'bidirectional', false],
] as const) {
  test(`9 G16: a ${name} buffer is granted ${readonly ? 'only for reading' : 'for writing'}`, () => {
    const { sharing, dma, at } = direct();
    assert.ok(dma.map(takePages(sharing, 2), 2 * XEN_PAGE_SIZE, direction, at));
    assert.deepEqual(new Set(grantedFrames(sharing).map((page) => page.readonly)), new Set([readonly]));
    assert.equal(sharing.backend.map(grantAddressRef(at.low, at.high)) < 0, readonly);
  });
}

test('G8: without a run in a row map is refused and leaves nothing, though single pages can still be had', () => {
  const { sharing, dma, at } = direct();
  const refs = Array.from({ length: 504 }, () => sharing.domain.references.allocate(1));
  for (const ref of refs) if (ref % 2 === 1) sharing.domain.references.release(ref, 1);
  const free = sharing.domain.references.free;
  assert.ok(!dma.map(0, XEN_PAGE_SIZE + 1, DMA_FROM_DEVICE, at));
  assert.deepEqual(at, { low: 0xffff_ffff, high: 0xffff_ffff });
  assert.deepEqual(grantedFrames(sharing), []);
  assert.deepEqual([sharing.domain.references.free, dma.live], [free, 0]);
  assert.ok(dma.map(0, XEN_PAGE_SIZE, DMA_FROM_DEVICE, at));
  assert.equal(dma.live, 1);
});

test('G17: of two buffers in one page each has its own grant, and one goes on when the other ends', () => {
  const { sharing, dma } = direct();
  const page = takePages(sharing, 1);
  fill(sharing, page, XEN_PAGE_SIZE);
  const [one, two] = [
    { low: 0, high: 0 },
    { low: 0, high: 0 },
  ];
  assert.ok(dma.map(page + 64, 64, DMA_TO_DEVICE, one));
  assert.ok(dma.map(page + 256, 64, DMA_FROM_DEVICE, two));
  assert.equal(grantedFrames(sharing).length, 2);
  assert.ok(dma.unmap(one.low, one.high, 64, DMA_TO_DEVICE));
  sharing.backend.writeAt(two, new Uint8Array(64).fill(0xdd));
  assert.equal(sharing.u8[page + 256], 0xdd);
  assert.ok(dma.unmap(two.low, two.high, 64, DMA_FROM_DEVICE));
  checkNothingShared(sharing);
});

test('a from-device buffer is the device’s own memory: what it writes is there at once', () => {
  const { sharing, dma, at } = direct();
  const page = takePages(sharing, 2);
  assert.ok(dma.map(page + 4000, 200, DMA_FROM_DEVICE, at));
  sharing.backend.writeAt(at, new Uint8Array(200).fill(0xc4));
  assert.ok(sharing.u8.subarray(page + 4000, page + 4200).every((byte) => byte === 0xc4));
  assert.deepEqual([sharing.u8[page + 3999], sharing.u8[page + 4200]], [0, 0]);
});

test('the longest mapping may begin in mid-page and then takes one page more; a longer one is an error of ours', () => {
  const { sharing, dma, at } = direct({ pages: 300 });
  assert.ok(dma.map(takePages(sharing, 257) + 1, MAX_MAPPING_SIZE, DMA_TO_DEVICE, at));
  assert.equal(dma.live, 257);
  assert.ok(dma.unmap(at.low, at.high, MAX_MAPPING_SIZE, DMA_TO_DEVICE));
  for (const size of [0, -1, MAX_MAPPING_SIZE + 1])
    assert.throws(() => dma.map(0, size, DMA_TO_DEVICE, at), { name: 'AssertionError' });
  checkNothingShared(sharing);
});

test('8: the pages granted are exactly those of the live buffers, at every step of any order', () => {
  const buffer = fc.record({
    offset: fc.integer({ min: 0, max: 32 * XEN_PAGE_SIZE }),
    size: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 20_000 })),
    direction: fc.constantFrom(DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE),
    end: fc.option(fc.nat(), { freq: 2 }),
  });
  fc.assert(
    fc.property(fc.array(buffer, { minLength: 5, maxLength: 40 }), (buffers) => {
      const { sharing, dma } = direct();
      const live: { low: number; high: number; address: number; size: number; direction: number }[] = [];
      for (const { offset, size, direction, end } of buffers) {
        const at = { low: 0, high: 0 };
        if (dma.map(offset, size, direction, at)) live.push({ ...at, address: offset, size, direction });
        if (end !== null && live.length > 0) {
          const [ended] = live.splice(end % live.length, 1);
          assert.ok(dma.unmap(ended.low, ended.high, ended.size, ended.direction));
        }
        const expected = live.flatMap((each) => pagesOf(each)).sort();
        const granted = grantedFrames(sharing).map(({ frame, readonly }) => `${frame} ${readonly}`);
        assert.deepEqual(granted.sort(), expected);
        assert.equal(dma.live, expected.length);
      }
      for (const each of live) assert.ok(dma.unmap(each.low, each.high, each.size, each.direction));
      checkNothingShared(sharing);
    }),
    { seed: 8, numRuns: 100 },
  );
});

function pagesOf({ address, size, direction }: { address: number; size: number; direction: number }) {
  const pages: string[] = [];
  for (let byte = address - (address % XEN_PAGE_SIZE); byte < address + size; byte += XEN_PAGE_SIZE)
    pages.push(`${byte / XEN_PAGE_SIZE} ${direction === DMA_TO_DEVICE}`);
  return pages;
}
