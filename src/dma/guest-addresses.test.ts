// Guests whose memory begins elsewhere than at 0: where an address is no offset in the memory, no positive
// 32-bit integer, or no 32-bit integer at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressOffset, grantAddressRef } from '../abi/grant-address.ts';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE, noTrace } from '../trace.ts';
import { domainId, type FrameNumber, type GrantRef } from '../xen/ids.ts';
import { grantDma } from './exposure-modes.ts';
import { Grants } from './grants.ts';
import { GuestHeap } from './guest-heap.ts';
import { GuestMemory } from './guest-memory.ts';
import { PlainDma } from './plain-dma.ts';
import { IdlePools } from './idle-pools.ts';
import { References } from './references.ts';
import { BareTable } from './references.test.helper.ts';

const PAGES = 32;
const BYTES = PAGES * XEN_PAGE_SIZE;
/** x86; Arm; across 2 GiB; above it; across 4 GiB; Arm's second bank. */
const BASES = [
  0,
  0x4000_0000,
  0x8000_0000 - BYTES / 2,
  0xc000_0000,
  0x1_0000_0000 - BYTES / 2,
  0x2_0000_0000,
] as const;

/** Remembers which frame each reference stands for. */
class RecordingTable extends BareTable {
  readonly frames = new Map<number, number>();

  override grant(first = 0 as GrantRef, count = 0, _peer?: number, frame = 0 as FrameNumber): void {
    for (let page = 0; page < count; page++) this.frames.set(first + page, frame + page);
  }
}

function guestAt(base: number) {
  // The region is a part of the machine's memory, as it is under Xen.
  const region = regionOver(new ArrayBuffer(BYTES + 2 * XEN_PAGE_SIZE), XEN_PAGE_SIZE, BYTES);
  const memory = new GuestMemory(region, base);
  const table = new RecordingTable(1);
  const references = new References(table);
  const pools = new IdlePools();
  const domain = { id: domainId(2), memory, table, references, pools, tracer: noTrace };
  const grants = new Grants(domain, domainId(1));
  /** What a backend finds `offset` bytes into the frame behind a reference. */
  const granted = (low: number, high: number, size: number) => {
    const frame = table.frames.get(grantAddressRef(low, high));
    assert.ok(frame !== undefined, 'the reference is granted');
    const at = frame * XEN_PAGE_SIZE + grantAddressOffset(low) - base;
    assert.ok(at >= 0 && at + size <= BYTES, 'what is granted is memory of the guest');
    return region.u8.subarray(at, at + size);
  };
  return { memory, table, grants, granted, u8: region.u8 };
}

for (const base of BASES) {
  const where = `memory from 0x${base.toString(16)}`;

  test(`${where}: all pages are allocated, zeroed and given back, at their addresses`, () => {
    const { memory, u8 } = guestAt(base);
    u8.fill(9);
    const addresses = Array.from({ length: PAGES }, () => memory.allocatePages(1)!);
    const expected = Array.from({ length: PAGES }, (_, page) => base + page * XEN_PAGE_SIZE);
    assert.deepEqual(addresses, expected);
    assert.equal(memory.allocatePages(1), undefined);
    assert.ok(u8.every((byte) => byte === 0));
    for (const address of addresses) memory.freePages(address, 1);
    assert.equal(memory.pagesFree, PAGES);
    assert.equal(memory.allocatePages(PAGES), base);
  });

  test(`${where}: bytes, copy and wipe mean the bytes at an address, and none outside`, () => {
    const { memory, u8 } = guestAt(base);
    const [near, far] = [base + 5, base + BYTES - 105];
    memory.bytes(near, 100).fill(7);
    memory.copy(far, near, 100);
    memory.wipe(near + 10, 80);
    assert.equal(memory.addressOf(memory.bytes(far, 100)), far);
    const sevens = [...u8.keys()].filter((at) => u8[at] === 7);
    const expected = Array.from({ length: 100 }, (_, i) => i);
    assert.deepEqual(sevens, [
      ...expected.filter((i) => i < 10 || i >= 90).map((i) => 5 + i),
      ...expected.map((i) => BYTES - 105 + i),
    ]);
    for (const [address, length] of [
      [base - 1, 1],
      [base + BYTES, 1],
      [base + BYTES - 1, 2],
    ]) {
      assert.throws(() => memory.bytes(address, length), { name: 'AssertionError' });
      assert.throws(() => memory.offset(address, length), { name: 'AssertionError' });
    }
  });

  test(`${where}: direct grants the frames of the buffer's own addresses`, () => {
    const { memory, table, grants, granted } = guestAt(base);
    const dma = grantDma('direct', grants, 0);
    const address = memory.allocatePages(PAGES - 1)!;
    const at = { low: 0, high: 0 };
    for (let page = 0; page < PAGES - 2; page++) {
      const buffer = address + page * XEN_PAGE_SIZE + 5;
      assert.ok(dma.map(buffer, XEN_PAGE_SIZE, DMA_TO_DEVICE, at));
      const ref = grantAddressRef(at.low, at.high);
      const frame = base / XEN_PAGE_SIZE + page;
      assert.deepEqual([table.frames.get(ref), table.frames.get(ref + 1)], [frame, frame + 1]);
      assert.equal(grantAddressOffset(at.low), 5);
      memory.bytes(buffer, 8).fill(page + 1);
      assert.ok(granted(at.low, at.high, 8).every((byte) => byte === page + 1));
      assert.ok(dma.unmap(at.low, at.high, XEN_PAGE_SIZE, DMA_TO_DEVICE));
    }
  });

  test(`${where}: coherent memory is granted where its address says, and wiped when it is freed`, () => {
    const { memory, grants, granted, u8 } = guestAt(base);
    const dma = grantDma('direct', grants, 0);
    memory.allocatePages(PAGES - 3);
    const ring = dma.allocate(3 * XEN_PAGE_SIZE)!;
    assert.equal(ring.address, base + BYTES - 3 * XEN_PAGE_SIZE);
    memory.bytes(ring.address, ring.size).fill(0x5e);
    assert.ok(granted(ring.low, ring.high, ring.size).every((byte) => byte === 0x5e));
    assert.ok(dma.free(ring));
    assert.ok(u8.every((byte) => byte === 0));
    assert.equal(memory.pagesFree, 3);
  });

  for (const size of [100, 5000]) {
    test(`${where}: bounce copies ${size} bytes into and out of the pages that are granted`, () => {
      const { memory, grants, granted } = guestAt(base);
      const dma = grantDma('bounce', grants, 0);
      // The pool's pages lie on both sides of the middle.
      const address = memory.allocatePages(PAGES / 2 - 1)!;
      const held: { low: number; high: number }[] = [];
      for (let place = address; place < address + 6 * XEN_PAGE_SIZE; place += 2 * XEN_PAGE_SIZE) {
        const at = { low: 0, high: 0 };
        memory.bytes(place, size).fill(7);
        assert.ok(dma.map(place, size, DMA_TO_DEVICE, at));
        const copy = granted(at.low, at.high, size);
        assert.ok(copy.every((byte) => byte === 7));
        memory.bytes(place, size).fill(6);
        dma.unmap(at.low, at.high, size, DMA_TO_DEVICE);
        assert.ok(copy.every((byte) => byte === 0));
        assert.ok(dma.map(place, size, DMA_FROM_DEVICE, at));
        granted(at.low, at.high, size).fill(8);
        dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE);
        assert.ok(memory.bytes(place, size).every((byte) => byte === 8));
        assert.equal(memory.bytes(place + size, 1)[0], 0);
        // Stays mapped, so that the next one takes other pages.
        assert.ok(dma.map(place, size, DMA_TO_DEVICE, at));
        held.push(at);
      }
      for (const { low, high } of held) dma.unmap(low, high, size, DMA_TO_DEVICE);
      dma.close();
      assert.equal(memory.pagesFree, PAGES / 2 + 1);
    });
  }

  test(`${where}: without grants a device gets the address itself`, () => {
    const { memory } = guestAt(base);
    const dma = new PlainDma(memory);
    const ring = dma.allocate(BYTES)!;
    assert.equal(ring.high * 2 ** 32 + ring.low, base);
    const at = { low: 0, high: 0 };
    assert.ok(dma.map(base + BYTES - 1, 1, DMA_TO_DEVICE, at));
    assert.equal(at.high * 2 ** 32 + at.low, base + BYTES - 1);
    assert.ok(dma.free(ring));
    assert.equal(memory.pagesFree, PAGES);
  });

  test(`${where}: objects of the heap lie in it`, () => {
    const { memory } = guestAt(base);
    const heap = new GuestHeap(memory);
    for (let objects = 0; objects < PAGES * 2; objects++) {
      const address = heap.allocate(2048)!;
      memory.bytes(address, 2048).fill(1);
    }
    assert.equal(heap.allocate(2048), undefined);
    assert.ok(memory.bytes(base, BYTES).every((byte) => byte === 1));
  });
}

test('the quarantine holds the page that is mapped, wherever the memory begins', () => {
  for (const base of BASES) {
    const { memory, table, grants } = guestAt(base);
    const address = memory.allocatePages(2)!;
    const ref = grants.share(address / XEN_PAGE_SIZE, 2, false);
    const mapped = new Set([ref + 1]);
    table.revoke = (first = 0 as GrantRef, count = 1) =>
      [...mapped].filter((each) => each >= first && each < first + count).length;
    table.isFree = (each = 0 as GrantRef) => !mapped.has(each);
    assert.ok(!grants.unshare(ref, 2));
    memory.freePages(address, 2);
    assert.equal(memory.pagesFree, PAGES - 1);
    assert.equal(memory.allocatePages(PAGES - 2), address + 2 * XEN_PAGE_SIZE);
    mapped.clear();
    assert.equal(grants.retry(), 1);
    assert.equal(memory.allocatePages(2), address);
  }
});
