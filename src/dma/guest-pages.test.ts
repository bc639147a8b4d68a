// Guests whose kernel has pages of 16 or 64 KiB: it allocates by those, and grants, which are 4 KiB always, only
// what a buffer needs of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressOffset, grantAddressRef, pagesTouched } from '../abi/grant-address.ts';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { GuestHeap } from './guest-heap.ts';
import { GUEST_PAGE_SIZES, GuestMemory, type GuestPageSize } from './guest-memory.ts';
import {
  checkNothingShared,
  dmaOf,
  GRANTING_MODES,
  grantedFrames,
  newSharing,
  takePages,
} from './sharing.test.helper.ts';

const KIB = 1024;

function memoryOf(frames: number, pageSize: GuestPageSize, base = 0): GuestMemory {
  return new GuestMemory(regionOver(new ArrayBuffer(frames * XEN_PAGE_SIZE)), base, pageSize);
}

for (const pageSize of GUEST_PAGE_SIZES) {
  const framesPerPage = pageSize / XEN_PAGE_SIZE;
  const kernel = `${pageSize / KIB} KiB pages`;

  test(`R6 ${kernel}: an allocation is whole pages of the kernel, zeroed, and comes back as it went`, () => {
    const memory = memoryOf(8 * framesPerPage, pageSize, 0x4000_0000);
    memory.region.u8.fill(0xee);
    for (const count of [1, framesPerPage, framesPerPage + 1, 3 * framesPerPage]) {
      const pages = Math.ceil(count / framesPerPage);
      const address = memory.allocatePages(count)!;
      assert.equal(address % pageSize, 0);
      assert.equal(memory.pagesFree, (8 - pages) * framesPerPage);
      assert.ok(memory.bytes(address, pages * pageSize).every((byte) => byte === 0));
      memory.freePages(address, count);
      assert.equal(memory.pagesFree, 8 * framesPerPage);
    }
  });

  test(`${kernel}: what does not begin or end with a page of the kernel is not given out`, () => {
    for (const held of [0, framesPerPage - 1, framesPerPage >> 1]) {
      const memory = memoryOf(4 * framesPerPage - 1, pageSize);
      memory.hold(framesPerPage + held, 1);
      // Pages 0 and 2; a frame of page 1 is held, and page 3 is no whole one unless its frame is all of it.
      assert.equal(memory.allocatePages(framesPerPage + 1), undefined);
      assert.deepEqual([1, 2, 3].map(() => memory.allocatePages(1)).sort(), [0, 2 * pageSize, undefined]);
      memory.release(framesPerPage + held, 1);
      assert.equal(memory.allocatePages(framesPerPage), pageSize);
    }
  });

  test(`${kernel}: allocations in any order are free pages of the kernel in a row, while there are any`, () => {
    const step = fc.record({ free: fc.boolean(), at: fc.nat(), count: fc.integer({ min: 1, max: 40 }) });
    const pages = 12;
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
        const memory = memoryOf(pages * framesPerPage, pageSize);
        const used = new Array<boolean>(pages).fill(false);
        const runs: { address: number; count: number }[] = [];
        const mark = (address: number, count: number, use: boolean) => {
          for (let page = 0; page < Math.ceil(count / framesPerPage); page++) {
            assert.equal(used[address / pageSize + page], !use);
            used[address / pageSize + page] = use;
          }
        };
        for (const { free, at, count } of steps) {
          if (free) {
            const [run] = runs.length > 0 ? runs.splice(at % runs.length, 1) : [];
            if (run === undefined) continue;
            memory.freePages(run.address, run.count);
            mark(run.address, run.count, false);
          } else {
            const address = memory.allocatePages(count);
            const longest = Math.max(
              ...used
                .map((page) => (page ? '#' : '.'))
                .join('')
                .split('#')
                .map((run) => run.length),
            );
            assert.equal(address !== undefined, longest * framesPerPage >= count);
            if (address === undefined) continue;
            mark(address, count, true);
            runs.push({ address, count });
          }
          assert.equal(memory.pagesFree, used.filter((page) => !page).length * framesPerPage);
        }
      }),
      { seed: 6, numRuns: 100 },
    );
  });

  test(`G3 R6 ${kernel}: an object of 32 bytes shares its page with ${pageSize / 32 - 1}, and exposes 4 KiB`, () => {
    const sharing = newSharing({ pageSize });
    const heap = new GuestHeap(sharing.domain.memory);
    const dma = dmaOf('direct', sharing);
    const objects = Array.from({ length: pageSize / 32 }, () => heap.allocate(32)!);
    assert.equal(new Set(objects.map((at) => Math.floor(at / pageSize))).size, 1);
    for (const object of objects) {
      const at = { low: 0, high: 0 };
      sharing.u8.set([1, 2, 3], object);
      assert.ok(dma.map(object, 32, DMA_TO_DEVICE, at));
      assert.deepEqual(grantedFrames(sharing), [{ frame: object >>> 12, readonly: true }]);
      assert.deepEqual([...sharing.backend.readAt(at, 3)], [1, 2, 3]);
      assert.ok(dma.unmap(at.low, at.high, 32, DMA_TO_DEVICE));
      sharing.u8.fill(0, object, object + 3);
    }
    checkNothingShared(sharing);
  });

  for (const mode of GRANTING_MODES) {
    test(`R1 R2 R6 G1 G2 G3 ${kernel}: a buffer anywhere in a page of the kernel is the backend's to read and write, ${mode}`, () => {
      const sharing = newSharing({ pageSize });
      const dma = dmaOf(mode, sharing);
      const pages = takePages(sharing, 2 * framesPerPage);
      const buffer = fc.record({ offset: fc.nat(pageSize - 1), size: fc.integer({ min: 1, max: pageSize }) });
      fc.assert(
        fc.property(buffer, ({ offset, size }) => {
          const address = pages + offset;
          const at = { low: 0, high: 0 };
          for (let i = 0; i < size; i += 61) sharing.u8[address + i] = i + offset;
          const before = sharing.u8.slice(address, address + size);
          assert.ok(dma.map(address, size, DMA_TO_DEVICE, at));
          assert.deepEqual(sharing.backend.readAt(at, size), before);
          if (mode === 'direct') {
            const first = Math.floor(address / XEN_PAGE_SIZE);
            const count = pagesTouched(address % XEN_PAGE_SIZE, size);
            assert.equal(grantAddressOffset(at.low), address % XEN_PAGE_SIZE);
            assert.deepEqual(
              grantedFrames(sharing).map(({ frame }) => frame),
              Array.from({ length: count }, (_, page) => first + page),
            );
          }
          assert.ok(dma.unmap(at.low, at.high, size, DMA_TO_DEVICE));
          assert.ok(dma.map(address, size, DMA_FROM_DEVICE, at));
          sharing.backend.writeAt(
            at,
            before.map((byte) => byte ^ 0xff),
          );
          assert.ok(dma.unmap(at.low, at.high, size, DMA_FROM_DEVICE));
          assert.deepEqual(
            sharing.u8.slice(address, address + size),
            before.map((byte) => byte ^ 0xff),
          );
          dma.revokeIdle();
          checkNothingShared(sharing);
        }),
        { seed: 2, numRuns: 40 },
      );
    });

    for (const size of [1, XEN_PAGE_SIZE, 5 * XEN_PAGE_SIZE + 1, pageSize, pageSize + 1]) {
      test(`L1 R6 R10 ${kernel}: of ${size} coherent bytes exactly their own frames are granted, ${mode}`, () => {
        const sharing = newSharing({ pageSize });
        const { memory } = sharing.domain;
        const dma = dmaOf(mode, sharing);
        takePages(sharing, 1);
        const free = memory.pagesFree;
        const buffer = dma.allocate(size)!;
        assert.equal(buffer.address % pageSize, 0);
        const pages = Math.ceil(size / pageSize);
        assert.equal(memory.pagesFree, free - pages * framesPerPage);
        assert.deepEqual(
          grantedFrames(sharing),
          Array.from({ length: Math.ceil(size / XEN_PAGE_SIZE) }, (_, page) => ({
            frame: buffer.address / XEN_PAGE_SIZE + page,
            readonly: false,
          })),
        );
        memory.bytes(buffer.address, size).fill(0x5e);
        assert.ok(sharing.backend.readAt(buffer, size).every((byte) => byte === 0x5e));
        assert.ok(dma.free(buffer));
        assert.equal(memory.pagesFree, free);
        checkNothingShared(sharing);
      });
    }
  }

  test(`G13 ${kernel}: while the backend maps 4 KiB of a page of the kernel, none of that page is used again`, () => {
    const sharing = newSharing({ pageSize });
    const { memory } = sharing.domain;
    const dma = dmaOf('direct', sharing);
    const buffer = dma.allocate(pageSize)!;
    const handle = sharing.backend.map(grantAddressRef(buffer.low, buffer.high) + framesPerPage - 1);
    assert.ok(!dma.free(buffer));
    const given: number[] = [];
    for (let page = memory.allocatePages(1); page !== undefined; page = memory.allocatePages(1))
      given.push(page);
    assert.ok(!given.includes(buffer.address));
    assert.equal(given.length, 256 / framesPerPage - 1);
    sharing.backend.unmap(handle);
    assert.equal(dma.recover(), 1);
    assert.equal(memory.allocatePages(1), buffer.address);
  });
}

test('a guest has pages of 4, 16 or 64 KiB, and its memory begins with one: errors of ours', () => {
  for (const pageSize of [0, 2048, 8192, 131072])
    assert.throws(() => memoryOf(64, pageSize as GuestPageSize), { name: 'AssertionError' });
  assert.throws(() => memoryOf(64, 65536, 0x8000), { name: 'AssertionError' });
  const heap = new GuestHeap(memoryOf(64, 16384));
  assert.throws(() => heap.allocate(16385), { name: 'AssertionError' });
  assert.notEqual(heap.allocate(16384), undefined);
});
