// What every implementation of the port src/dma/dma.ts must do, in whatever way it shares a buffer. Misuse is not
// here: see src/dma/misuse.test.ts and src/dma/dma-debug.test.ts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DMA_MAPPING_ERROR_HALF, grantAddressRef, isGrantAddress } from '../../src/abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import {
  DMA_ATTR_MMIO,
  DMA_ATTR_SKIP_CPU_SYNC,
  type DmaAddress,
  type DmaOperations,
} from '../../src/dma/dma.ts';
import type { GuestMemory } from '../../src/dma/guest-memory.ts';
import {
  mapScatter,
  scatterElement,
  syncScatterForCpu,
  syncScatterForDevice,
  unmapScatter,
} from '../../src/dma/scatter-list.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../../src/trace.ts';

/** Operations under test, their guest, and a device that goes its own way to the guest's memory. */
export interface DmaUnderTest {
  readonly dma: DmaOperations;
  readonly memory: GuestMemory;
  /** The memory that coherent buffers come from, where it is another. */
  readonly coherent?: GuestMemory;
  readonly device: {
    read(at: DmaAddress, size: number): Uint8Array;
    write(at: DmaAddress, bytes: Uint8Array): void;
    /** Whether it may write there; undefined where nothing can keep it from that. */
    mayWrite(at: DmaAddress): boolean | undefined;
    /** Holds on to the page at an address until the function that it returns is called. */
    hold(at: DmaAddress): () => void;
  };
  /** Leaves this many references to map with. Returns what gives the others back; undefined: there are none. */
  leaveReferences(count: number): (() => void) | undefined;
  /** Nothing is shared, and no error was found on the way. */
  checkNothingLeft(): void;
}

/** What may differ between implementations. */
export interface DmaTraits {
  /** Addresses name grants. */
  readonly grants: boolean;
  /** The device works on a copy: what one side writes, the other sees after a sync. */
  readonly copies: boolean;
}

/** Why a test is left out, or false. */
type Skip = { readonly skip: string | false };

const DIRECTIONS = [
  [DMA_BIDIRECTIONAL, 'bidirectional'],
  [DMA_TO_DEVICE, 'to-device'],
  [DMA_FROM_DEVICE, 'from-device'],
] as const;
/** A byte on each side of every boundary: of slots, of pages, of the longest slot. */
const SIZES = [1, 128, 129, 512, 2048, 2049, 4095, 4096, 4097, 3 * XEN_PAGE_SIZE + 1];
const BUFFER_PAGES = 8;
const ERROR = { low: DMA_MAPPING_ERROR_HALF, high: DMA_MAPPING_ERROR_HALF };

const pattern = (size: number, salt: number) =>
  Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >>> 8) + salt) & 0xff);

/** A driver with a buffer of its own. */
class Driver {
  readonly under: DmaUnderTest;
  readonly dma: DmaOperations;
  readonly device: DmaUnderTest['device'];
  readonly coherent: GuestMemory;
  readonly #pagesFree: number;
  readonly #coherentFree: number;
  /** Guest-physical address of the buffer. */
  readonly buffer: number;

  constructor(under: DmaUnderTest) {
    this.under = under;
    this.dma = under.dma;
    this.device = under.device;
    this.coherent = under.coherent ?? under.memory;
    this.#pagesFree = under.memory.pagesFree;
    this.#coherentFree = this.coherent.pagesFree;
    this.buffer = under.memory.allocatePages(BUFFER_PAGES)!;
  }

  bytes(size: number, offset = 0): Uint8Array {
    return this.under.memory.bytes(this.buffer + offset, size);
  }

  map(size: number, direction: number, offset = 0, attributes = 0): DmaAddress {
    const at = { low: 1, high: 1 };
    assert.ok(this.dma.map(this.buffer + offset, size, direction, at, attributes));
    return at;
  }

  unmap({ low, high }: DmaAddress, size: number, direction: number, attributes = 0): void {
    assert.ok(this.dma.unmap(low, high, size, direction, attributes));
  }

  /** Everything is given back: nothing is shared, and every page of the guest is free. */
  finish(): void {
    this.dma.close();
    this.under.checkNothingLeft();
    this.under.memory.freePages(this.buffer, BUFFER_PAGES);
    assert.equal(this.under.memory.pagesFree, this.#pagesFree);
    assert.equal(this.coherent.pagesFree, this.#coherentFree);
    assert.deepEqual([this.dma.live, this.dma.quarantined], [0, 0]);
  }
}

/** Runs the contract. */
export function dmaOperationsContract(name: string, traits: DmaTraits, make: () => DmaUnderTest): void {
  const start = () => new Driver(make());
  const onlyGrants: Skip = { skip: traits.grants ? false : 'nothing is granted' };
  describe(`${name}: DmaOperations`, () => {
    coherentMemory(start, traits);
    mappings(start, traits, onlyGrants);
    syncs(start, traits);
    scatterLists(start, onlyGrants);
    limits(start, traits, onlyGrants);
    endings(start, traits, onlyGrants);
  });
}

function coherentMemory(start: () => Driver, { grants }: DmaTraits): void {
  for (const size of [1, XEN_PAGE_SIZE, XEN_PAGE_SIZE + 1, 5 * XEN_PAGE_SIZE])
    test(`R10: ${size} bytes of coherent memory are whole zeroed pages in a row, the same for both sides`, () => {
      const driver = start();
      const { dma, device, coherent } = driver;
      const free = coherent.pagesFree;
      const buffer = dma.allocate(size)!;
      const pages = Math.ceil(size / XEN_PAGE_SIZE);
      assert.equal(coherent.pagesFree, free - pages);
      assert.deepEqual([buffer.size, buffer.address % XEN_PAGE_SIZE], [size, 0]);
      const places = dma.pagesOf(buffer);
      assert.equal(places.length, pages);
      assert.deepEqual(places[0], { low: buffer.low, high: buffer.high });
      for (const [page, at] of places.entries()) {
        assert.equal(isGrantAddress(at.high), grants);
        if (grants)
          assert.equal(grantAddressRef(at.low, at.high), grantAddressRef(buffer.low, buffer.high) + page);
        assert.ok(device.read(at, XEN_PAGE_SIZE).every((byte) => byte === 0));
      }
      const view = dma.view(buffer);
      assert.equal(view.length, size);
      view.set(pattern(size, 3));
      assert.deepEqual(device.read(buffer, size), pattern(size, 3));
      device.write(buffer, pattern(size, 9));
      assert.deepEqual(Uint8Array.from(view), pattern(size, 9));
      assert.ok(dma.free(buffer));
      driver.finish();
    });

  for (const [direction, way] of DIRECTIONS)
    test(`9 G16: pages allocated as ${way} are so for the device from the beginning`, () => {
      const driver = start();
      const pages = driver.dma.allocatePages(3, direction)!;
      assert.equal(pages.size, 3 * XEN_PAGE_SIZE);
      for (const at of driver.dma.pagesOf(pages))
        assert.equal(driver.device.mayWrite(at) ?? true, grants ? direction !== DMA_TO_DEVICE : true);
      driver.dma.view(pages).fill(7);
      assert.ok(driver.device.read(pages, pages.size).every((byte) => byte === 7));
      assert.ok(driver.dma.free(pages));
      driver.finish();
    });

  test('H20: without pages or references nothing is allocated, and nothing is left behind', () => {
    const driver = start();
    const { dma, under, coherent } = driver;
    assert.equal(dma.allocate((coherent.pagesFree + 1) * XEN_PAGE_SIZE), undefined);
    const giveBack = under.leaveReferences(1);
    const free = coherent.pagesFree;
    if (giveBack !== undefined) {
      assert.equal(dma.allocate(2 * XEN_PAGE_SIZE), undefined);
      assert.equal(dma.allocatePages(2, DMA_TO_DEVICE), undefined);
    }
    assert.equal(coherent.pagesFree, free);
    giveBack?.();
    driver.finish();
  });
}

function mappings(start: () => Driver, { grants }: DmaTraits, onlyGrants: Skip): void {
  test('G1 G2: a buffer of any size at any offset is the same bytes for the device, there and back', () => {
    const driver = start();
    const buffer = fc.record({
      size: fc.oneof(fc.constantFrom(...SIZES), fc.integer({ min: 1, max: 4 * XEN_PAGE_SIZE })),
      offset: fc.integer({ min: 0, max: 4 * XEN_PAGE_SIZE - 1 }),
      direction: fc.constantFrom(...DIRECTIONS.map(([direction]) => direction)),
      salt: fc.nat(255),
    });
    fc.assert(
      fc.property(buffer, ({ size, offset, direction, salt }) => {
        driver.bytes(size, offset).set(pattern(size, salt));
        const at = driver.map(size, direction, offset);
        assert.equal(isGrantAddress(at.high), grants);
        if (direction !== DMA_FROM_DEVICE)
          assert.deepEqual(driver.device.read(at, size), pattern(size, salt));
        if (direction !== DMA_TO_DEVICE) driver.device.write(at, pattern(size, salt + 1));
        driver.unmap(at, size, direction);
        const expected = pattern(size, direction === DMA_TO_DEVICE ? salt : salt + 1);
        assert.deepEqual(Uint8Array.from(driver.bytes(size, offset)), expected);
      }),
      { seed: 1, numRuns: 150 },
    );
    driver.finish();
  });

  for (const [direction, way] of DIRECTIONS)
    test(
      `9 G16: a ${way} buffer ${direction === DMA_TO_DEVICE ? 'cannot' : 'can'} be written by the device`,
      onlyGrants,
      () => {
        const driver = start();
        for (const size of SIZES) {
          const at = driver.map(size, direction, 100);
          assert.equal(driver.device.mayWrite(at), direction !== DMA_TO_DEVICE, `${size} bytes`);
          driver.unmap(at, size, direction);
        }
        driver.finish();
      },
    );

  for (const [direction, way] of DIRECTIONS)
    test(
      `R3 G8: a ${way} buffer that finds no references is ~0, leaves nothing, and is mapped later`,
      onlyGrants,
      () => {
        const driver = start();
        for (const size of [1, 3000, 2 * XEN_PAGE_SIZE]) {
          const giveBack = driver.under.leaveReferences(Math.ceil(size / XEN_PAGE_SIZE) - 1)!;
          const at = { low: 1, high: 1 };
          driver.bytes(size).fill(0x42);
          assert.ok(!driver.dma.map(driver.buffer, size, direction, at));
          assert.deepEqual(at, ERROR);
          assert.equal(driver.dma.live, 0);
          assert.ok(driver.bytes(size).every((byte) => byte === 0x42));
          giveBack();
          driver.unmap(driver.map(size, direction), size, direction);
          driver.dma.revokeIdle();
        }
        driver.finish();
      },
    );

  test('a register (DMA_ATTR_MMIO) is refused', onlyGrants, () => {
    const driver = start();
    const at = { low: 1, high: 1 };
    assert.ok(!driver.dma.map(driver.buffer, 4, DMA_BIDIRECTIONAL, at, DMA_ATTR_MMIO));
    assert.deepEqual([at, driver.dma.live], [ERROR, 0]);
    driver.finish();
  });
}

function syncs(start: () => Driver, { copies }: DmaTraits): void {
  /** What lies where nobody has synced: the old bytes if there are two copies, the new ones if there is one. */
  const unsynced = (before: number, after: number) => (copies ? before : after);

  for (const size of [100, 2 * XEN_PAGE_SIZE]) {
    for (const [direction, way] of DIRECTIONS) {
      test(`a ${way} buffer of ${size} bytes: what was synced has arrived, and no more than that`, () => {
        const driver = start();
        const bytes = driver.bytes(size);
        bytes.fill(1);
        const at = driver.map(size, direction);
        const { low, high } = at;
        if (direction !== DMA_FROM_DEVICE) {
          bytes.fill(2);
          driver.dma.syncForDevice(low, high, size, direction, 20, 30);
          const seen = driver.device.read(at, size);
          assert.deepEqual([seen[19], seen[20], seen[49], seen[50]], [unsynced(1, 2), 2, 2, unsynced(1, 2)]);
          driver.dma.syncForDevice(low, high, size, direction);
          assert.ok(driver.device.read(at, size).every((byte) => byte === 2));
        }
        if (direction !== DMA_TO_DEVICE) {
          bytes.fill(3);
          driver.device.write(at, new Uint8Array(size).fill(4));
          driver.dma.syncForCpu(low, high, size, direction, 20, 30);
          assert.deepEqual(
            [bytes[19], bytes[20], bytes[49], bytes[50]],
            [unsynced(3, 4), 4, 4, unsynced(3, 4)],
          );
          driver.dma.syncForCpu(low, high, size, direction);
          assert.ok(bytes.every((byte) => byte === 4));
        }
        driver.unmap(at, size, direction);
        driver.finish();
      });
    }

    test(`a buffer of ${size} bytes with DMA_ATTR_SKIP_CPU_SYNC: its driver syncs by itself`, () => {
      const driver = start();
      const bytes = driver.bytes(size);
      bytes.fill(1);
      const at = driver.map(size, DMA_BIDIRECTIONAL, 0, DMA_ATTR_SKIP_CPU_SYNC);
      const { low, high } = at;
      assert.ok(driver.device.read(at, size).every((byte) => byte === unsynced(0, 1)));
      driver.dma.syncForDevice(low, high, size, DMA_BIDIRECTIONAL);
      assert.ok(driver.device.read(at, size).every((byte) => byte === 1));
      driver.device.write(at, new Uint8Array(size).fill(2));
      driver.unmap(at, size, DMA_BIDIRECTIONAL, DMA_ATTR_SKIP_CPU_SYNC);
      assert.ok(bytes.every((byte) => byte === unsynced(1, 2)));
      driver.finish();
    });
  }
}

function scatterLists(start: () => Driver, onlyGrants: Skip): void {
  const list = (driver: Driver) =>
    [1, 700, 4097, 3000].map((size, index) => scatterElement(driver.buffer + 8000 * index + 5, size));

  test('R8: a list of buffers is mapped, synced and unmapped as each of them alone', () => {
    for (const [direction] of DIRECTIONS) {
      const driver = start();
      const elements = list(driver);
      const bytes = elements.map(({ address, size }) => driver.under.memory.bytes(address, size));
      for (const each of bytes) each.fill(1);
      assert.ok(mapScatter(driver.dma, elements, direction));
      for (const each of bytes) each.fill(2);
      syncScatterForDevice(driver.dma, elements, direction);
      for (const { size, ...at } of elements) {
        if (direction !== DMA_FROM_DEVICE)
          assert.ok(driver.device.read(at, size).every((byte) => byte === 2));
        if (direction !== DMA_TO_DEVICE) driver.device.write(at, new Uint8Array(size).fill(3));
      }
      syncScatterForCpu(driver.dma, elements, direction);
      const last = direction === DMA_TO_DEVICE ? 2 : 3;
      assert.ok(bytes.every((each) => each.every((byte) => byte === last)));
      assert.ok(unmapScatter(driver.dma, elements, direction));
      assert.ok(elements.every(({ low, high }) => low === 0 && high === 0));
      driver.finish();
    }
  });

  for (let failing = 0; failing < 4; failing++)
    test(
      `G9 R8: of a list whose element ${failing} cannot be mapped none is, and no byte has changed`,
      onlyGrants,
      () => {
        for (const [direction] of DIRECTIONS) {
          const driver = start();
          const elements = list(driver);
          driver.bytes(BUFFER_PAGES * XEN_PAGE_SIZE).set(pattern(BUFFER_PAGES * XEN_PAGE_SIZE, 1));
          const wrapped: DmaOperations = Object.create(driver.dma, {
            map: {
              value: (address: number, size: number, way: number, out: DmaAddress, attributes?: number) => {
                const giveBack =
                  address === elements[failing].address ? driver.under.leaveReferences(0) : undefined;
                const mapped = driver.dma.map(address, size, way, out, attributes);
                giveBack?.();
                return mapped;
              },
            },
            unmap: { value: driver.dma.unmap.bind(driver.dma) },
          });
          assert.ok(!mapScatter(wrapped, elements, direction));
          assert.ok(elements.every(({ low, high }) => low === 0 && high === 0));
          driver.dma.revokeIdle();
          assert.equal(driver.dma.live, 0);
          assert.deepEqual(
            Uint8Array.from(driver.bytes(BUFFER_PAGES * XEN_PAGE_SIZE)),
            pattern(BUFFER_PAGES * XEN_PAGE_SIZE, 1),
          );
          driver.finish();
        }
      },
    );
}

function limits(start: () => Driver, { grants }: DmaTraits, onlyGrants: Skip): void {
  test('R7 G20: only a device that gives all 64 bits can use addresses of grants', onlyGrants, () => {
    const { dma } = start();
    for (let bits = 0; bits <= 64; bits++) assert.equal(dma.supportsMask(bits), bits === 64);
  });

  test('R7: a device that gives 64 bits can use any address', { skip: grants ? 'see G20' : false }, () => {
    const { dma } = start();
    assert.ok(dma.supportsMask(64) && !dma.supportsMask(12));
  });

  test('a buffer of maxMappingSize can be mapped, wherever in a page it begins', () => {
    const driver = start();
    const { memory } = driver.under;
    const size = driver.dma.maxMappingSize;
    const pages = size / XEN_PAGE_SIZE + 1;
    const address = memory.allocatePages(pages)!;
    for (const offset of [0, 1, XEN_PAGE_SIZE - 1]) {
      memory.bytes(address + offset, size).set(pattern(size, 5));
      const at = { low: 0, high: 0 };
      assert.ok(driver.dma.map(address + offset, size, DMA_TO_DEVICE, at));
      assert.deepEqual(driver.device.read(at, size), pattern(size, 5));
      driver.unmap(at, size, DMA_TO_DEVICE);
    }
    memory.freePages(address, pages);
    driver.finish();
  });
}

function endings(start: () => Driver, { grants }: DmaTraits, onlyGrants: Skip): void {
  test('what is mapped stays so through revokeIdle, tick and recover', () => {
    const driver = start();
    const ring = driver.dma.allocate(100)!;
    const at = driver.map(3000, DMA_FROM_DEVICE);
    const small = driver.map(60, DMA_FROM_DEVICE, 4000);
    const idle = driver.map(60, DMA_FROM_DEVICE, 6000);
    driver.unmap(idle, 60, DMA_FROM_DEVICE);
    driver.dma.revokeIdle();
    for (const now of [1, 1000, 1_000_000]) assert.ok(driver.dma.tick(now) >= now);
    assert.equal(driver.dma.recover(), 0);
    if (grants) assert.ok(driver.dma.live >= 3);
    for (const [place, size] of [
      [ring, 100],
      [at, 3000],
      [small, 60],
    ] as const)
      driver.device.write(place, new Uint8Array(size).fill(6));
    driver.unmap(at, 3000, DMA_FROM_DEVICE);
    driver.unmap(small, 60, DMA_FROM_DEVICE);
    assert.ok(driver.bytes(3000).every((byte) => byte === 6));
    assert.ok(driver.dma.free(ring));
    driver.dma.revokeIdle();
    assert.equal(driver.dma.live, 0);
    assert.equal(driver.dma.tick(2_000_000), Number.POSITIVE_INFINITY, 'nothing is due');
    driver.finish();
  });

  test(
    'G10 R4: coherent memory that the device holds on to is in quarantine until it lets go',
    onlyGrants,
    () => {
      const driver = start();
      const { dma, device } = driver;
      for (const ends of [() => dma.recover(), () => Number(dma.tick(0) > 0)]) {
        const ring = dma.allocate(2 * XEN_PAGE_SIZE)!;
        const letGo = device.hold(ring);
        assert.ok(!dma.free(ring));
        assert.deepEqual([dma.live, dma.quarantined, dma.recover()], [0, 1, 0]);
        letGo();
        assert.equal(ends(), 1);
        assert.equal(dma.quarantined, 0);
      }
      driver.finish();
    },
  );

  test('it can be used, closed and used again', () => {
    const driver = start();
    for (let round = 0; round < 2; round++) {
      for (const size of SIZES) driver.unmap(driver.map(size, DMA_BIDIRECTIONAL), size, DMA_BIDIRECTIONAL);
      driver.dma.close();
    }
    driver.finish();
  });
}
