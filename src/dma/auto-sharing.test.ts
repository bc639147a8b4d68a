// Mode auto: which buffers are granted themselves, and that this shows nothing that the pool would not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { DIRECT_FROM } from './auto-sharing.ts';
import { measureDirectFrom } from './calibrate.ts';
import { grantDma } from './exposure-modes.ts';
import { checkNothingShared, newSharing, takePages } from './sharing.test.helper.ts';

const PAGES = 8;

/** A device in mode auto, and a buffer of 8 pages full of 0x5e. */
function scene(directFrom: number) {
  const sharing = newSharing();
  const buffer = takePages(sharing, PAGES);
  sharing.u8.fill(0x5e, buffer, buffer + PAGES * XEN_PAGE_SIZE);
  return { sharing, buffer, dma: grantDma('auto', sharing.grants, 0, { directFrom }) };
}

/** Maps a buffer. Returns whether its own pages were granted. */
function isDirect(
  { sharing, buffer, dma }: ReturnType<typeof scene>,
  offset: number,
  size: number,
  direction = DMA_TO_DEVICE,
): boolean {
  const { low, high } = mapped({ buffer, dma }, offset, size, direction);
  const { frame } = sharing.backend.reach().find(({ ref }) => ref === grantAddressRef(low, high))!;
  assert.ok(dma.unmap(low, high, size, direction));
  return frame >= buffer / XEN_PAGE_SIZE && frame < buffer / XEN_PAGE_SIZE + PAGES;
}

function mapped(
  { buffer, dma }: Pick<ReturnType<typeof scene>, 'buffer' | 'dma'>,
  offset: number,
  size: number,
  direction: number,
) {
  const at = { low: 0, high: 0 };
  assert.ok(dma.map(buffer + offset, size, direction, at));
  return at;
}

test('whole pages from the threshold on are granted themselves, everything else is copied', () => {
  const here = scene(2 * XEN_PAGE_SIZE);
  for (const direction of [DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE]) {
    for (const [offset, size, expected] of [
      [0, XEN_PAGE_SIZE, false],
      [0, 2 * XEN_PAGE_SIZE, true],
      [XEN_PAGE_SIZE, 3 * XEN_PAGE_SIZE, true],
      [0, 2 * XEN_PAGE_SIZE + 1, false],
      [0, 3 * XEN_PAGE_SIZE - 1, false],
      [1, 2 * XEN_PAGE_SIZE, false],
      [2048, 3 * XEN_PAGE_SIZE, false],
      [0, 100, false],
    ] as const)
      assert.equal(isDirect(here, offset, size, direction), expected, `${size} bytes at ${offset}`);
  }
  here.dma.close();
  checkNothingShared(here.sharing);
});

test('without a length from which on that pays, everything is copied', () => {
  const here = scene(Number.POSITIVE_INFINITY);
  assert.ok(!isDirect(here, 0, PAGES * XEN_PAGE_SIZE));
});

for (const directFrom of [XEN_PAGE_SIZE, Number.POSITIVE_INFINITY]) {
  test(`G14 B3: direct from ${directFrom} bytes: what a from-device buffer held before is neither shown nor a result`, () => {
    const here = scene(directFrom);
    const { sharing, buffer, dma } = here;
    const size = 2 * XEN_PAGE_SIZE;
    const at = mapped(here, 0, size, DMA_FROM_DEVICE);
    assert.ok(sharing.backend.readAt(at, size).every((byte) => byte === 0));
    sharing.backend.writeAt(at, Uint8Array.of(7));
    assert.ok(dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE));
    assert.deepEqual(
      [...sharing.u8.subarray(buffer, buffer + size)],
      [7, ...Array<number>(size - 1).fill(0)],
    );
    assert.ok(sharing.u8.subarray(buffer + size, buffer + 2 * size).every((byte) => byte === 0x5e));
  });

  test(`direct from ${directFrom} bytes: a sync brings each side what the other has written`, () => {
    const here = scene(directFrom);
    const { sharing, buffer, dma } = here;
    const size = 2 * XEN_PAGE_SIZE;
    const at = mapped(here, 0, size, DMA_BIDIRECTIONAL);
    sharing.u8[buffer + 5] = 1;
    dma.syncForDevice(at.low, at.high, size, DMA_BIDIRECTIONAL);
    assert.equal(sharing.backend.readAt(at, 6)[5], 1);
    sharing.backend.writeAt(at, Uint8Array.of(2));
    dma.syncForCpu(at.low, at.high, size, DMA_BIDIRECTIONAL);
    assert.deepEqual([sharing.u8[buffer], sharing.u8[buffer + 5]], [2, 1]);
    assert.ok(dma.unmap(at.low, at.high, size, DMA_BIDIRECTIONAL));
  });
}

test('G10: own pages that the backend still maps are no one’s to use again, those of the pool are not the caller’s', () => {
  const here = scene(XEN_PAGE_SIZE);
  const { sharing, dma } = here;
  for (const [size, released] of [
    [XEN_PAGE_SIZE, false],
    [XEN_PAGE_SIZE - 1, true],
  ] as const) {
    const at = mapped(here, 0, size, DMA_TO_DEVICE);
    const handle = sharing.backend.map(grantAddressRef(at.low, at.high), true);
    assert.equal(dma.unmap(at.low, at.high, size, DMA_TO_DEVICE), released);
    sharing.backend.unmap(handle);
    dma.recover();
  }
  dma.close();
  checkNothingShared(sharing);
});

/** The threshold on a machine where granting a buffer takes `granting` and copying it `copying`, whatever its clock counts. */
function measured(granting: number, copying: (pages: number) => number): number {
  const { domain } = newSharing();
  let now = 0;
  const { table, memory } = domain;
  const priced = {
    ...domain,
    table: new Proxy(table, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        if (name === 'grant') now += granting;
        return (...words: unknown[]) => Reflect.apply(value, target, words);
      },
    }),
    memory: Object.assign(Object.create(memory), {
      allocatePages: (count: number) => memory.allocatePages(count),
      freePages: (address: number, count: number) => memory.freePages(address, count),
      wipe: () => undefined,
      copy: (_target: number, _source: number, length: number) => {
        now += copying(length / XEN_PAGE_SIZE);
      },
    }),
  };
  const threshold = measureDirectFrom(priced, () => now);
  assert.deepEqual([domain.references.live, memory.pagesFree], [0, 256]);
  return threshold;
}

test('the threshold is where granting begins to cost less than copying', () => {
  assert.equal(
    measured(1000, (pages) => pages * 1),
    Number.POSITIVE_INFINITY,
  );
  assert.equal(
    measured(100, (pages) => pages * 1000),
    XEN_PAGE_SIZE,
  );
  assert.equal(
    measured(100, (pages) => pages * 15),
    8 * XEN_PAGE_SIZE,
  );
});

test('a guest that has no memory to measure with goes by the fixed threshold, and loses nothing', () => {
  for (const pages of [40, 100]) {
    const { domain } = newSharing({ pages });
    assert.equal(
      measureDirectFrom(domain, () => 0),
      DIRECT_FROM,
    );
    assert.deepEqual([domain.references.live, domain.memory.pagesFree], [0, pages]);
  }
});
