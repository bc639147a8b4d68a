// Exposure mode copy: the backend tries every byte of every page, by mapping and by copying, and gets the bytes of
// live buffers, for what their directions allow, and none beside them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressOffset, grantAddressRef } from '../abi/grant-address.ts';
import { GNTST_OKAY } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { GrantCopies } from '../xen/grant-copier.ts';
import type { DmaAddress, DmaOperations } from './dma.ts';
import { EXPOSURE_MODES, grantDma, possibleMode } from './exposure-modes.ts';
import { checkNothingShared, newSharing, type Sharing, takePages, traceTo } from './sharing.test.helper.ts';

const DIRECTIONS = [DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE];

interface Bench extends Sharing {
  readonly dma: DmaOperations;
}

function bench(tracer = {}): Bench {
  const sharing = newSharing({ version: 2, ...tracer });
  return { ...sharing, dma: grantDma('copy', sharing.grants, 0) };
}

/** Tries to copy `length` bytes through a reference, either way. Returns whether it was allowed. */
function copies({ backend, guest }: Sharing, ref: number, offset: number, length: number, write: boolean) {
  const { grantCopier } = backend.domain.ports;
  const list = new GrantCopies();
  const place = grantCopier.takePages(1);
  list.add(ref, offset, length, place);
  const status = write ? grantCopier.copyOut(guest.id, list) : grantCopier.copyIn(guest.id, list);
  grantCopier.givePages(place, 1);
  return status === GNTST_OKAY;
}

function mapped({ dma }: Bench, address: number, size: number, direction: number): DmaAddress {
  const at = { low: 0, high: 0 };
  assert.ok(dma.map(address, size, direction, at));
  return at;
}

test('H15 XSA-403: every byte of the pages of a buffer is tried: its own are reached, and no other', () => {
  for (const direction of DIRECTIONS) {
    const each = bench();
    const address = takePages(each, 3) + 4000;
    const size = 4300;
    const { low, high } = mapped(each, address, size, direction);
    const first = grantAddressRef(low, high);
    assert.equal(grantAddressOffset(low), 4000);
    const parts = [
      [4000, 4096],
      [0, 4096],
      [0, 108],
    ];
    for (const [page, [start, end]] of parts.entries())
      for (let byte = 0; byte < XEN_PAGE_SIZE; byte++) {
        const isOwn = byte >= start && byte < end;
        assert.equal(copies(each, first + page, byte, 1, false), isOwn, `page ${page}, byte ${byte}`);
      }
    assert.equal(copies(each, first, 4000, 96, true), direction !== DMA_TO_DEVICE);
    assert.ok(!copies(each, first, 3999, 1, true) && !copies(each, first + 2, 108, 1, true));
    assert.ok(!copies(each, first + 3, 0, 1, false), 'there is no fourth page');
    assert.deepEqual(each.backend.reach(), [], 'H14: nothing can be mapped');
    assert.ok(each.dma.unmap(low, high, size, direction));
    assert.ok(!copies(each, first, 4000, 1, false));
    checkNothingShared(each);
  }
});

test('G14: the backend copies the caller’s own bytes, in place, and what it writes is there at once', () => {
  const each = bench();
  const address = takePages(each, 2) + 4090;
  each.u8.fill(0xc5, address - 90, address + 90);
  each.u8.set([1, 2, 3, 4, 5, 6, 7, 8], address);
  const { low, high } = mapped(each, address, 8, DMA_BIDIRECTIONAL);
  const { grantCopier } = each.backend.domain.ports;
  const place = grantCopier.takePages(1);
  const list = new GrantCopies();
  list.add(grantAddressRef(low, high), 4090, 6, place);
  list.add(grantAddressRef(low, high) + 1, 0, 2, place + 6);
  assert.equal(grantCopier.copyIn(each.guest.id, list), GNTST_OKAY);
  assert.deepEqual([...grantCopier.region.u8.subarray(place, place + 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  grantCopier.region.u8.fill(9, place, place + 8);
  assert.equal(grantCopier.copyOut(each.guest.id, list), GNTST_OKAY);
  const around = [...each.u8.subarray(address - 90, address + 90)];
  assert.deepEqual(
    around,
    around.map((_, i) => (i >= 90 && i < 98 ? 9 : 0xc5)),
  );
  each.dma.unmap(low, high, 8, DMA_BIDIRECTIONAL);
});

test('G17: two buffers of one page are two grants; one ends and the other goes on', () => {
  const each = bench();
  const page = takePages(each, 1);
  const one = mapped(each, page + 10, 10, DMA_TO_DEVICE);
  const other = mapped(each, page + 20, 10, DMA_FROM_DEVICE);
  const [first, second] = [one, other].map(({ low, high }) => grantAddressRef(low, high));
  assert.ok(!copies(each, first, 20, 1, false) && !copies(each, second, 19, 1, false));
  assert.ok(each.dma.unmap(one.low, one.high, 10, DMA_TO_DEVICE));
  assert.ok(!copies(each, first, 10, 1, false));
  assert.ok(copies(each, second, 20, 10, true));
  assert.ok(each.dma.unmap(other.low, other.high, 10, DMA_FROM_DEVICE));
  checkNothingShared(each);
});

test('the bytes that can be copied are those of live buffers at every step, whatever comes and goes', () => {
  const step = fc.record({
    offset: fc.nat(4 * XEN_PAGE_SIZE),
    size: fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 9000 })),
    direction: fc.constantFrom(...DIRECTIONS),
    end: fc.option(fc.nat(), { freq: 2 }),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 3, maxLength: 12 }), (steps) => {
      const each = bench();
      const base = takePages(each, 8);
      const live: { low: number; high: number; size: number; direction: number }[] = [];
      for (const { offset, size, direction, end } of steps) {
        live.push({ ...mapped(each, base + offset, size, direction), size, direction });
        if (end !== null) {
          const [ended] = live.splice(end % live.length, 1);
          assert.ok(each.dma.unmap(ended.low, ended.high, ended.size, ended.direction));
        }
        for (const buffer of live) checkEdges(each, buffer);
        assert.deepEqual(each.backend.reach(), []);
      }
      for (const { low, high, size, direction } of live)
        assert.ok(each.dma.unmap(low, high, size, direction));
      checkNothingShared(each);
    }),
    { seed: 15, numRuns: 40 },
  );
});

/** The first and the last bytes of a buffer are reached, and those beside them are not. */
function checkEdges(
  each: Bench,
  { low, high, size, direction }: { low: number; high: number; size: number; direction: number },
): void {
  const ref = grantAddressRef(low, high);
  const start = grantAddressOffset(low);
  const last = start + size - 1;
  const lastRef = ref + Math.floor(last / XEN_PAGE_SIZE);
  for (const write of [false, true]) {
    const allowed = !write || direction !== DMA_TO_DEVICE;
    assert.equal(copies(each, ref, start, 1, write), allowed);
    assert.equal(copies(each, lastRef, last % XEN_PAGE_SIZE, 1, write), allowed);
    if (start > 0) assert.ok(!copies(each, ref, start - 1, 1, write));
    const after = (last % XEN_PAGE_SIZE) + 1;
    if (after < XEN_PAGE_SIZE) assert.ok(!copies(each, lastRef, after, 1, write));
  }
}

test('the trace has a grant for each page, and right behind it the bytes that it is for', () => {
  const events: string[] = [];
  const tracer = traceTo((name, ...figures) => events.push(`${name} ${figures.join(' ')}`));
  const each = bench({ tracer });
  const frame = takePages(each, 2) / XEN_PAGE_SIZE;
  const { low, high } = mapped(each, frame * XEN_PAGE_SIZE + 4000, 200, DMA_TO_DEVICE);
  each.dma.unmap(low, high, 200, DMA_TO_DEVICE);
  assert.deepEqual(events, [
    `grant 2 1 8 ${frame} 1 true`,
    'narrow 2 8 4000 96',
    `grant 2 1 9 ${frame + 1} 1 true`,
    'narrow 2 9 0 104',
    'need 2 0 8 4000 200 1',
    'revoke 2 8 2',
    'needEnd 2 0 8 4000 200',
  ]);
});

test('coherent memory is whole pages, which can be mapped as in every mode', () => {
  const each = bench();
  const buffer = each.dma.allocate(5000)!;
  assert.equal(each.backend.reach().length, 2);
  assert.ok(each.dma.free(buffer));
  checkNothingShared(each);
});

test('G18: an unmap that repeats the map wrongly is our own bug', () => {
  const each = bench();
  const { low, high } = mapped(each, takePages(each, 1), 100, DMA_TO_DEVICE);
  assert.throws(() => each.dma.unmap(low, high, 101, DMA_TO_DEVICE), { name: 'AssertionError' });
  assert.throws(() => each.dma.unmap(low, high, 100, DMA_FROM_DEVICE), { name: 'AssertionError' });
  assert.ok(each.dma.unmap(low, high, 100, DMA_TO_DEVICE));
});

test('G8: without references nothing is granted, and it works again when there are some', () => {
  const each = bench();
  const address = takePages(each, 1);
  const live: DmaAddress[] = [];
  const at = { low: 0, high: 0 };
  while (each.dma.map(address + live.length, 1, DMA_TO_DEVICE, at)) live.push({ ...at });
  assert.equal(live.length, 256 - 8);
  for (const { low, high } of live) assert.ok(each.dma.unmap(low, high, 1, DMA_TO_DEVICE));
  checkNothingShared(each);
});

test('XSA-268: on a table of version 1 copy is bounce; every other mode is itself on either', () => {
  for (const version of [1, 2]) {
    const sharing = newSharing({ version });
    const { domain, grants, backend } = sharing;
    for (const mode of EXPOSURE_MODES) {
      const expected = mode === 'copy' && version === 1 ? 'bounce' : mode;
      assert.equal(possibleMode(mode, domain.table), expected);
    }
    const dma = grantDma('copy', grants, 0);
    const address = takePages(sharing, 2);
    const at = { low: 0, high: 0 };
    assert.ok(dma.map(address, 5000, DMA_TO_DEVICE, at));
    const frames = backend.reach().map(({ frame }) => frame);
    assert.equal(frames.length, version === 1 ? 2 : 0);
    assert.ok(!frames.includes(address / XEN_PAGE_SIZE), 'what can be mapped is the pool’s');
    assert.ok(dma.unmap(at.low, at.high, 5000, DMA_TO_DEVICE));
  }
});
