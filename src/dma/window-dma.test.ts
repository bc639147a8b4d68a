// The window of a guest byte by byte: what a backend finds there, whatever it writes there, and what is left of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DirectTracer } from '../audit/event-tracer.ts';
import { Exposure } from '../audit/exposure.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { DmaAddress } from './dma.ts';
import { newWindow, WINDOW_BASE, type WindowUnderTest } from './window.test.helper.ts';

const OWN_PAGES = 64;
const WINDOW_PAGES = 24;
const SCRIBBLE = 0xba;

interface Live extends DmaAddress {
  readonly address: number;
  readonly size: number;
  readonly direction: number;
}

/** Where a buffer lies in the window. */
function placeOf({ window }: WindowUnderTest, { low, high }: DmaAddress): number {
  return high * 2 ** 32 + low - window.address;
}

/** A step: maps a buffer, or ends the mapping of one. */
const steps = fc.array(
  fc.record({
    map: fc.boolean(),
    at: fc.nat(OWN_PAGES * XEN_PAGE_SIZE - 5 * XEN_PAGE_SIZE),
    size: fc.oneof(fc.integer({ min: 1, max: 700 }), fc.integer({ min: 1, max: 5 * XEN_PAGE_SIZE })),
    direction: fc.constantFrom(DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE),
    pick: fc.nat(),
  }),
  { maxLength: 60 },
);

/** Fills the guest's own memory with bytes that are never 0. */
function plantSecrets({ memory }: WindowUnderTest): Uint8Array {
  const own = memory.bytes(WINDOW_BASE, OWN_PAGES * XEN_PAGE_SIZE);
  for (let i = 0; i < own.length; i++) own[i] = ((i * 31 + (i >> 8)) % 185) + 1;
  return own;
}

test('the window holds the bytes of live buffers that a device is to read, and zeroes', () => {
  fc.assert(
    fc.property(steps, (script) => {
      const bench = newWindow(OWN_PAGES, WINDOW_PAGES);
      const own = plantSecrets(bench);
      const live: Live[] = [];
      for (const step of script) {
        if (step.map) {
          const address = WINDOW_BASE + step.at;
          const mapped = { address, size: step.size, direction: step.direction, low: 0, high: 0 };
          if (bench.dma.map(address, step.size, step.direction, mapped)) live.push(mapped);
        } else if (live.length > 0) {
          const [{ low, high, size, direction }] = live.splice(step.pick % live.length, 1);
          // What was not written arrives as zeroes, so only readable buffers keep the secrets as they are.
          if (direction === DMA_TO_DEVICE) assert.ok(bench.dma.unmap(low, high, size, direction));
          else assert.ok(bench.dma.unmap(low, high, size, direction, 1 << 5));
        }
        const expected = new Uint8Array(bench.shared.length);
        for (const buffer of live) {
          const at = buffer.address - WINDOW_BASE;
          if (buffer.direction !== DMA_FROM_DEVICE)
            expected.set(own.subarray(at, at + buffer.size), placeOf(bench, buffer));
        }
        assert.ok(Buffer.from(bench.shared).equals(expected), 'the window');
        assert.equal(bench.dma.live, live.length);
      }
    }),
    { seed: 5, numRuns: 150 },
  );
});

test('G23: a backend that writes all over the window changes what it was asked to fill, and nothing else', () => {
  fc.assert(
    fc.property(steps, (script) => {
      const bench = newWindow(OWN_PAGES, WINDOW_PAGES);
      const own = plantSecrets(bench);
      const live: Live[] = [];
      const shadow = Uint8Array.from(own);
      for (const step of script) {
        const [address, out] = [WINDOW_BASE + step.at, { low: 0, high: 0 }];
        const { size, direction } = step;
        if (step.map && bench.dma.map(address, size, direction, out))
          live.push({ address, size, direction, ...out });
        bench.shared.fill(SCRIBBLE);
        if (step.map || live.length === 0) continue;
        const [ended] = live.splice(step.pick % live.length, 1);
        bench.dma.unmap(ended.low, ended.high, ended.size, ended.direction);
        const at = ended.address - WINDOW_BASE;
        if (ended.direction !== DMA_TO_DEVICE) shadow.fill(SCRIBBLE, at, at + ended.size);
        assert.ok(Buffer.from(own).equals(shadow), "the guest's own memory");
      }
    }),
    { seed: 6, numRuns: 150 },
  );
});

test('the kernel allocates nothing from the window, the device nothing from elsewhere', () => {
  const { memory, window, dma } = newWindow(4, 2);
  const all = [1, 2, 3, 4].map(() => memory.allocatePages(1));
  assert.ok(all.every((address) => address !== undefined && address < window.address));
  assert.equal(memory.allocatePages(1), undefined);
  const ring = dma.allocate(5000);
  assert.equal(ring?.address, window.address);
  assert.equal(dma.allocate(1), undefined);
  assert.equal(dma.map(WINDOW_BASE, 1, DMA_TO_DEVICE, { low: 0, high: 0 }), false);
  dma.free(ring);
  assert.ok(dma.map(WINDOW_BASE, 1, DMA_TO_DEVICE, { low: 0, high: 0 }));
});

test('the accounting: all of the window is exposed while it is open, none of it is foreign, nothing leaks', () => {
  const exposure = new Exposure();
  let now = 0;
  const { window, dma } = newWindow(4, 8, new DirectTracer([exposure], () => now));
  window.open();
  assert.equal(exposure.exposedBytes, 8 * XEN_PAGE_SIZE);
  const ring = dma.allocate(100)!;
  const out = { low: 0, high: 0 };
  dma.map(WINDOW_BASE, 600, DMA_TO_DEVICE, out);
  assert.equal(exposure.neededBytes, 700);
  now = 1e9;
  dma.unmap(out.low, out.high, 600, DMA_TO_DEVICE);
  now = 2e9;
  dma.free(ring);
  dma.close();
  window.close();
  const figures = exposure.total();
  assert.equal(exposure.exposedBytes, 0);
  assert.equal(figures.bytesExposed, 8 * XEN_PAGE_SIZE);
  assert.equal(figures.exposedByteSeconds, 2 * 8 * XEN_PAGE_SIZE);
  assert.equal(figures.neededByteSeconds, 600 + 200);
  assert.equal(figures.foreignReadableBytes, 0);
  assert.equal(figures.leakedGrants, 0);
  assert.equal(figures.contradictions, 0);
  // Both are the truth of a window: it can be written everywhere, and stays.
  assert.equal(figures.overPermission, 1);
  assert.equal(figures.staleLimitNanoseconds, Number.POSITIVE_INFINITY);
});
