// G18, G19: what DMA debugging says of drivers that misuse their mappings, in every exposure mode and without
// grants: Linux's words, the stacks of both calls, and nothing changed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, grantAddressOffset, grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { DMA_ATTR_MMIO, DMA_ATTR_SKIP_CPU_SYNC, type DmaAddress, MAX_MAPPING_SIZE } from './dma.ts';
import { DmaDebug } from './dma-debug.ts';
import { DmaDebugLog, type DmaDebugOptions, formatDmaDebug } from './dma-debug-log.ts';
import { grantDma } from './exposure-modes.ts';
import { PlainDma } from './plain-dma.ts';
import { mapScatter, scatterElement } from './scatter-list.ts';
import {
  checkNothingShared,
  GRANTING_MODES,
  newSharing,
  type Sharing,
  takePages,
  traceTo,
} from './sharing.test.helper.ts';

const WAYS = [...GRANTING_MODES, 'plain'] as const;
type Way = (typeof WAYS)[number];

/** A driver that does everything wrong, each thing in a function of its own, so that stacks can be told. */
class BadDriver {
  readonly sharing: Sharing;
  readonly log: DmaDebugLog;
  readonly dma: DmaDebug;
  /** Pages of its own, full of what must not change. */
  readonly memory: number;

  constructor(way: Way, options: DmaDebugOptions = {}, sharing = newSharing()) {
    this.sharing = sharing;
    this.log = new DmaDebugLog(sharing.domain, options);
    const dma = way === 'plain' ? new PlainDma(sharing.domain.memory) : grantDma(way, sharing.grants, 0);
    this.dma = new DmaDebug(dma, this.log, {
      driver: 'bad_driver',
      device: 'virtio7',
      number: 0,
      restricted: way !== 'plain',
    });
    this.memory = takePages(sharing, 8);
    sharing.u8.fill(0x5e, this.memory, this.memory + 8 * XEN_PAGE_SIZE);
  }

  mapsBuffer(size: number, direction: number, offset = 0, attributes = 0): DmaAddress {
    const at = { low: 0, high: 0 };
    this.dma.map(this.memory + offset, size, direction, at, attributes);
    return at;
  }

  unmapsBuffer(at: DmaAddress, size: number, direction: number, attributes = 0): boolean {
    return this.dma.unmap(at.low, at.high, size, direction, attributes);
  }

  syncsBuffer(
    at: DmaAddress,
    size: number,
    direction: number,
    toCpu: boolean,
    from?: number,
    length?: number,
  ) {
    const { low, high } = at;
    if (toCpu) this.dma.syncForCpu(low, high, size, direction, from, length);
    else this.dma.syncForDevice(low, high, size, direction, from, length);
  }

  /** All that a call could have changed. */
  state(): unknown {
    const { u8, backend } = this.sharing;
    return [Buffer.from(u8).toString('base64'), backend.reach(), this.dma.live, this.log.result.entries];
  }

  /** Does what is wrong, and finds `messages` reported of it, each with its stacks, and nothing changed. */
  errs(step: () => void, messages: readonly string[], functions: { calls: string; maps?: string }): void {
    const before = this.state();
    const { errors } = this.log.result;
    step();
    const found = this.log.result.reports.slice(errors);
    assert.deepEqual(
      found.map(({ message }) => message),
      messages,
    );
    for (const { driver, device, calledAt, mappedAt } of found) {
      assert.deepEqual([driver, device], ['bad_driver', 'virtio7']);
      assert.match(calledAt[0], frameOf(functions.calls));
      if (functions.maps === undefined) assert.equal(mappedAt, undefined);
      else assert.match(mappedAt![0], frameOf(functions.maps));
    }
    assert.deepEqual(this.state(), before);
    assert.equal(this.log.result.errors, errors + messages.length);
  }

  /** Ends without another error and without anything left. */
  finish(): void {
    const { errors } = this.log.result;
    this.dma.close();
    assert.deepEqual([this.log.result.errors, this.log.result.entries], [errors, 0]);
    checkNothingShared(this.sharing);
  }
}

/** A frame of a function of this file. */
function frameOf(name: string): RegExp {
  return new RegExp(`^(BadDriver\\.)?${name} \\(src/dma/dma-debug\\.test\\.[jt]s:\\d+:\\d+\\)$`);
}

const address = ({ low, high }: DmaAddress) => formatAddress(low, high).replace('_', '');
const UNMAP_AND_MAP = { calls: 'unmapsBuffer', maps: 'mapsBuffer' };
const SYNC_AND_MAP = { calls: 'syncsBuffer', maps: 'mapsBuffer' };
const FAILED = { low: 0xffff_ffff, high: 0xffff_ffff };

for (const way of WAYS) {
  for (const size of [100, 2 * XEN_PAGE_SIZE]) {
    test(`G18: ${way}, ${size} bytes: unmap with another size is reported and ends nothing`, () => {
      const driver = new BadDriver(way);
      const at = driver.mapsBuffer(size, DMA_TO_DEVICE);
      for (const wrong of [size - 1, size + 1, 0]) {
        const message = `device driver frees DMA memory with different size [device address=${address(at)}] [map size=${size} bytes] [unmap size=${wrong} bytes]`;
        driver.errs(
          () => assert.ok(!driver.unmapsBuffer(at, wrong, DMA_TO_DEVICE)),
          [message],
          UNMAP_AND_MAP,
        );
      }
      assert.ok(driver.unmapsBuffer(at, size, DMA_TO_DEVICE));
      driver.finish();
    });

    test(`G18: ${way}, ${size} bytes: unmap with another direction is reported and ends nothing`, () => {
      const driver = new BadDriver(way);
      const at = driver.mapsBuffer(size, DMA_TO_DEVICE);
      for (const [wrong, name] of [
        [DMA_FROM_DEVICE, 'DMA_FROM_DEVICE'],
        [DMA_BIDIRECTIONAL, 'DMA_BIDIRECTIONAL'],
        [3, 'DMA_NONE'],
      ] as const) {
        const message = `device driver frees DMA memory with different direction [device address=${address(at)}] [size=${size} bytes] [mapped with DMA_TO_DEVICE] [unmapped with ${name}]`;
        driver.errs(() => assert.ok(!driver.unmapsBuffer(at, size, wrong)), [message], UNMAP_AND_MAP);
      }
      assert.ok(driver.unmapsBuffer(at, size, DMA_TO_DEVICE));
      driver.finish();
    });

    test(`G18: ${way}, ${size} bytes: the second unmap of a buffer is reported with where it was mapped`, () => {
      const driver = new BadDriver(way);
      const at = driver.mapsBuffer(size, DMA_FROM_DEVICE);
      assert.ok(driver.unmapsBuffer(at, size, DMA_FROM_DEVICE));
      const message = `device driver tries to free DMA memory it has not allocated [device address=${address(at)}] [size=${size} bytes]`;
      driver.errs(() => assert.ok(driver.unmapsBuffer(at, size, DMA_FROM_DEVICE)), [message], UNMAP_AND_MAP);
      driver.finish();
    });
  }

  test(`G18: ${way}: unmap and sync of what was never mapped are reported`, () => {
    const driver = new BadDriver(way);
    const at = driver.mapsBuffer(100, DMA_FROM_DEVICE);
    const never = { low: at.low + 0x40_0000, high: at.high };
    driver.errs(
      () => driver.unmapsBuffer(never, 100, DMA_FROM_DEVICE),
      [
        `device driver tries to free DMA memory it has not allocated [device address=${address(never)}] [size=100 bytes]`,
      ],
      { calls: 'unmapsBuffer' },
    );
    for (const toCpu of [true, false])
      driver.errs(
        () => driver.syncsBuffer(never, 100, DMA_FROM_DEVICE, toCpu),
        [
          `device driver tries to sync DMA memory it has not allocated [device address=${address(never)}] [size=100 bytes]`,
        ],
        { calls: 'syncsBuffer' },
      );
    assert.ok(driver.unmapsBuffer(at, 100, DMA_FROM_DEVICE));
    driver.finish();
  });

  test(`G19: ${way}: a driver that goes on with a failed mapping did not check for the error`, () => {
    const driver = new BadDriver(way);
    // A register cannot be granted; without grants nothing fails but a wrong call.
    const at =
      way === 'plain'
        ? driver.mapsBuffer(0, DMA_TO_DEVICE)
        : driver.mapsBuffer(100, DMA_TO_DEVICE, 0, DMA_ATTR_MMIO);
    assert.deepEqual(at, FAILED);
    const size = way === 'plain' ? 0 : 100;
    const message = `device driver failed to check map error[device address=0xffffffffffffffff] [size=${size} bytes] [mapped as single]`;
    driver.errs(() => assert.ok(driver.unmapsBuffer(at, size, DMA_TO_DEVICE)), [message], UNMAP_AND_MAP);
    driver.errs(() => driver.syncsBuffer(at, size, DMA_TO_DEVICE, false), [message], SYNC_AND_MAP);
    driver.errs(
      () => driver.unmapsBuffer(at, 17, DMA_TO_DEVICE),
      ['device driver tries to free an invalid DMA memory address'],
      { calls: 'unmapsBuffer' },
    );
    driver.finish();
  });

  test(`G18: ${way}: a sync beyond the mapping, or with another size or direction, is reported and copies nothing`, () => {
    const driver = new BadDriver(way);
    const at = driver.mapsBuffer(300, DMA_TO_DEVICE);
    driver.sharing.u8.fill(0x77, driver.memory, driver.memory + 300);
    const [name, mapped] = [`[device address=${address(at)}]`, '[mapped with DMA_TO_DEVICE]'];
    const sync = (size: number, direction: number, toCpu: boolean, from?: number, length?: number) => () =>
      driver.syncsBuffer(at, size, direction, toCpu, from, length);
    const outside = (end: number) =>
      `device driver syncs DMA memory outside allocated range ${name} [allocation size=300 bytes] [sync offset+size=${end}]`;
    driver.errs(sync(300, DMA_TO_DEVICE, false, 200, 101), [outside(301)], SYNC_AND_MAP);
    driver.errs(sync(300, DMA_TO_DEVICE, false, -1, 10), [outside(9)], SYNC_AND_MAP);
    driver.errs(sync(301, DMA_TO_DEVICE, false), [outside(301)], SYNC_AND_MAP);
    driver.errs(
      sync(299, DMA_TO_DEVICE, false),
      [
        `device driver syncs DMA memory with different size ${name} [map size=300 bytes] [sync size=299 bytes]`,
      ],
      SYNC_AND_MAP,
    );
    const from = `${name} [size=300 bytes] ${mapped} [synced with DMA_FROM_DEVICE]`;
    driver.errs(
      sync(300, DMA_FROM_DEVICE, true),
      [
        `device driver syncs DMA memory with different direction ${from}`,
        `device driver syncs device read-only DMA memory for cpu ${from}`,
      ],
      SYNC_AND_MAP,
    );
    assert.ok(driver.unmapsBuffer(at, 300, DMA_TO_DEVICE));
    const written = driver.mapsBuffer(300, DMA_FROM_DEVICE);
    const to = `[device address=${address(written)}] [size=300 bytes] [mapped with DMA_FROM_DEVICE] [synced with DMA_TO_DEVICE]`;
    driver.errs(
      () => driver.syncsBuffer(written, 300, DMA_TO_DEVICE, false),
      [
        `device driver syncs DMA memory with different direction ${to}`,
        `device driver syncs device write-only DMA memory to device ${to}`,
      ],
      SYNC_AND_MAP,
    );
    assert.ok(driver.unmapsBuffer(written, 300, DMA_FROM_DEVICE));
    driver.finish();
  });

  test(`${way}: what is left at the release of the device is reported, each with where it was mapped`, () => {
    const driver = new BadDriver(way);
    const at = driver.mapsBuffer(100, DMA_TO_DEVICE);
    const ring = driver.dma.allocate(5000)!;
    const leak = (name: DmaAddress, rest: string) =>
      `device driver has pending DMA allocations while released from device [count=2]\nOne of leaked entries details: [device address=${address(name)}] ${rest}`;
    driver.dma.close();
    const { reports, errors, entries } = driver.log.result;
    assert.deepEqual(
      reports.map(({ message }) => message),
      [
        leak(at, '[size=100 bytes] [mapped with DMA_TO_DEVICE] [mapped as single]'),
        leak(ring, '[size=5000 bytes] [mapped with DMA_BIDIRECTIONAL] [mapped as coherent]'),
      ],
    );
    assert.match(reports[0].mappedAt![0], frameOf('mapsBuffer'));
    assert.match(reports[1].mappedAt![0], /dma-debug\.test/);
    assert.deepEqual([errors, entries], [2, 0]);
    driver.dma.released();
    assert.equal(driver.log.result.errors, 2, 'reported once');
  });

  test(`G18: ${way}: coherent memory freed twice, with another size or place, or by the wrong function`, () => {
    const driver = new BadDriver(way);
    const ring = driver.dma.allocate(5000)!;
    const name = `[device address=${address(ring)}]`;
    const frees = (buffer: typeof ring) => driver.dma.free(buffer);
    const errs = (buffer: typeof ring, message: string) => {
      const before = driver.state();
      assert.equal(frees(buffer), false);
      assert.equal(driver.log.result.reports.at(-1)!.message, message);
      assert.deepEqual(driver.state(), before);
    };
    errs(
      { ...ring, size: 4096 },
      `device driver frees DMA memory with different size ${name} [map size=5000 bytes] [unmap size=4096 bytes]`,
    );
    const cpu = (value: number) => `0x${value.toString(16).padStart(16, '0')}`;
    errs(
      { ...ring, address: ring.address + 4096 },
      `device driver frees DMA memory with different CPU address ${name} [size=5000 bytes] [cpu alloc address=${cpu(ring.address)}] [cpu free address=${cpu(ring.address + 4096)}]`,
    );
    driver.errs(
      () => assert.ok(!driver.unmapsBuffer(ring, 5000, DMA_BIDIRECTIONAL)),
      [
        `device driver frees DMA memory with wrong function ${name} [size=5000 bytes] [mapped as coherent] [unmapped as single]`,
      ],
      { calls: 'unmapsBuffer', maps: '<anonymous>|BadDriver|TestContext.<anonymous>' },
    );
    assert.ok(frees(ring));
    const { errors } = driver.log.result;
    assert.ok(frees(ring));
    assert.equal(
      driver.log.result.reports[errors].message,
      `device driver tries to free DMA memory it has not allocated ${name} [size=5000 bytes]`,
    );
    driver.finish();
  });

  test(`G18: ${way}: a buffer that is freed, or unmapped as a register, is reported`, () => {
    const driver = new BadDriver(way);
    const at = driver.mapsBuffer(4096, DMA_BIDIRECTIONAL);
    const wrong = (as: string) =>
      `device driver frees DMA memory with wrong function [device address=${address(at)}] [size=4096 bytes] [mapped as single] [unmapped as ${as}]`;
    driver.errs(
      () => assert.ok(!driver.unmapsBuffer(at, 4096, DMA_BIDIRECTIONAL, DMA_ATTR_MMIO)),
      [wrong('resource')],
      UNMAP_AND_MAP,
    );
    assert.ok(!driver.dma.free({ ...at, address: driver.memory, size: 4096 }));
    assert.equal(driver.log.result.reports[1].message, wrong('coherent'));
    assert.ok(driver.unmapsBuffer(at, 4096, DMA_BIDIRECTIONAL, DMA_ATTR_SKIP_CPU_SYNC));
    driver.finish();
  });

  test(`G18: ${way}: what cannot be mapped or allocated at all is reported, and refused`, () => {
    const driver = new BadDriver(way);
    const end = driver.sharing.u8.length;
    for (const [size, direction, offset, message] of [
      [0, DMA_TO_DEVICE, 0, 'device driver maps memory of invalid size [len=0]'],
      [-1, DMA_TO_DEVICE, 0, 'device driver maps memory of invalid size [len=-1]'],
      [
        MAX_MAPPING_SIZE + 1,
        DMA_TO_DEVICE,
        0,
        `mapping segment longer than device claims to support [len=${MAX_MAPPING_SIZE + 1}] [max=${MAX_MAPPING_SIZE}]`,
      ],
      [1, 3, 0, 'device driver maps memory with invalid direction [direction=3]'],
      [
        2,
        DMA_TO_DEVICE,
        end - 1 - driver.memory,
        `device driver maps memory from invalid area [addr=0x${(end - 1).toString(16).padStart(16, '0')}] [len=2]`,
      ],
    ] as const) {
      const maps = () => assert.deepEqual(driver.mapsBuffer(size, direction, offset), FAILED);
      driver.errs(maps, [message], { calls: 'mapsBuffer' });
    }
    const before = driver.log.result.errors;
    assert.equal(driver.dma.allocate(0), undefined);
    assert.equal(driver.dma.allocatePages(1, 3), undefined);
    assert.deepEqual(
      driver.log.result.reports.slice(before).map(({ message }) => message),
      [
        'device driver allocates DMA memory of invalid size [len=0]',
        'device driver allocates DMA memory with invalid direction [direction=3]',
      ],
    );
    driver.finish();
  });

  test(`${way}: the same bytes mapped twice are reported when the device may write them, and only then`, () => {
    const overlap = "cacheline tracking EEXIST, overlapping mappings aren't supported";
    for (const [first, second, offset, attributes, conflict] of [
      [DMA_TO_DEVICE, DMA_TO_DEVICE, 0, 0, false],
      [DMA_TO_DEVICE, DMA_FROM_DEVICE, 4999, 0, true],
      [DMA_TO_DEVICE, DMA_FROM_DEVICE, 5000, 0, false],
      [DMA_FROM_DEVICE, DMA_TO_DEVICE, 100, 0, true],
      [DMA_BIDIRECTIONAL, DMA_BIDIRECTIONAL, 0, 0, true],
      [DMA_FROM_DEVICE, DMA_FROM_DEVICE, 0, DMA_ATTR_SKIP_CPU_SYNC, false],
    ] as const) {
      const driver = new BadDriver(way);
      const one = driver.mapsBuffer(5000, first);
      const two = driver.mapsBuffer(200, second, offset, attributes);
      assert.deepEqual(
        driver.log.result.reports.map(({ message }) => message),
        conflict ? [overlap] : [],
        `${first} ${second} ${offset}`,
      );
      if (conflict) assert.match(driver.log.result.reports[0].mappedAt![0], frameOf('mapsBuffer'));
      assert.ok(driver.unmapsBuffer(two, 200, second));
      assert.ok(driver.unmapsBuffer(one, 5000, first));
      const again = driver.mapsBuffer(5000, DMA_FROM_DEVICE);
      assert.ok(driver.unmapsBuffer(again, 5000, DMA_FROM_DEVICE));
      driver.finish();
    }
  });

  test(`${way}: a buffer right before a mapped one is no overlap, and one byte more is`, () => {
    for (const [size, errors] of [
      [1000, 0],
      [1001, 1],
    ]) {
      const driver = new BadDriver(way);
      const behind = driver.mapsBuffer(100, DMA_FROM_DEVICE, 1000);
      const before = driver.mapsBuffer(size, DMA_FROM_DEVICE);
      assert.equal(driver.log.result.errors, errors);
      assert.ok(driver.unmapsBuffer(behind, 100, DMA_FROM_DEVICE));
      assert.ok(driver.unmapsBuffer(before, size, DMA_FROM_DEVICE));
      driver.finish();
    }
  });

  test(`${way}: a driver that makes no mistake is told of none, whatever it does`, () => {
    const driver = new BadDriver(way);
    for (const size of [1, 100, 2048, 3000, 2 * XEN_PAGE_SIZE]) {
      for (const direction of [DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE]) {
        for (const attributes of [0, DMA_ATTR_SKIP_CPU_SYNC]) {
          const at = driver.mapsBuffer(size, direction, 30, attributes);
          for (const toCpu of [true, false]) driver.syncsBuffer(at, size, direction, toCpu);
          driver.syncsBuffer(at, size, direction, true, 0, 1);
          assert.ok(driver.unmapsBuffer(at, size, direction, attributes));
        }
      }
    }
    const ring = driver.dma.allocate(1)!;
    const pages = driver.dma.allocatePages(3, DMA_FROM_DEVICE)!;
    assert.deepEqual([driver.dma.view(ring).length, driver.dma.pagesOf(pages).length], [1, 3]);
    assert.ok(driver.dma.free(ring) && driver.dma.free(pages));
    driver.finish();
    assert.equal(driver.log.result.errors, 0);
    assert.equal(driver.log.result.mostEntries, 2);
    assert.equal(formatDmaDebug(driver.log.result), '');
  });

  test(`${way}: more entries than are watched end the debugging, and not the driver`, () => {
    const driver = new BadDriver(way, { maxEntries: 2 });
    const mapped = [0, 1000, 2000].map((offset) => driver.mapsBuffer(100, DMA_TO_DEVICE, offset));
    assert.ok(driver.log.result.disabled);
    assert.equal(formatDmaDebug(driver.log.result), 'DMA-API: debugging out of memory - disabling\n');
    for (const at of mapped) assert.ok(driver.unmapsBuffer(at, 100, DMA_TO_DEVICE));
    const ring = driver.dma.allocate(100)!;
    assert.ok(driver.dma.free(ring));
    driver.finish();
    assert.equal(driver.log.result.errors, 0);
  });
}

for (const mode of GRANTING_MODES) {
  test(`G5 G18: ${mode}: an address that is no grant's is named`, () => {
    const driver = new BadDriver(mode);
    for (const [at, why] of [
      [{ low: 0x1000, high: 0 }, 'bit 63 is clear: a plain address, not a grant'],
      [{ low: 0x1000, high: 0x8000_1000 }, 'bits 44-62 are not clear'],
    ] as const)
      driver.errs(
        () => driver.unmapsBuffer(at, 100, DMA_TO_DEVICE),
        [
          `device driver tries to free an invalid DMA memory address [device address=${address(at)}] [size=100 bytes] [${why}]`,
        ],
        { calls: 'unmapsBuffer' },
      );
    driver.finish();
  });

  test(`G19: ${mode}: a mapping that fails for want of references, and whose result nobody looks at`, () => {
    const driver = new BadDriver(mode);
    const { references } = driver.sharing.domain;
    const taken = references.free;
    const first = references.allocate(taken);
    const at = driver.mapsBuffer(100, DMA_FROM_DEVICE);
    driver.errs(
      () => driver.unmapsBuffer(at, 100, DMA_FROM_DEVICE),
      [
        'device driver failed to check map error[device address=0xffffffffffffffff] [size=100 bytes] [mapped as single]',
      ],
      UNMAP_AND_MAP,
    );
    references.release(first, taken);
    driver.finish();
  });

  test(`${mode}: the trace tells of each mapping where it was made, past the frames of this folder`, () => {
    const origins: number[][] = [];
    const tracer = traceTo((name, ...figures) => {
      if (name === 'origin') origins.push(figures.map(Number));
    });
    const driver = new BadDriver(mode, {}, newSharing({ tracer }));
    const mapsList = (list: Parameters<typeof mapScatter>[1]) =>
      assert.ok(mapScatter(driver.dma, list, DMA_TO_DEVICE));
    const list = [scatterElement(driver.memory, 10), scatterElement(driver.memory + 5000, 3000)];
    mapsList(list);
    const { stacks } = driver.log.result;
    assert.deepEqual(
      origins.map(([domain, device, ref, offset]) => [domain, device, ref, offset]),
      list.map(({ low, high }) => [2, 0, grantAddressRef(low, high), grantAddressOffset(low)]),
    );
    assert.equal(origins[0][4], origins[1][4], 'one place in the code, one number');
    assert.match(stacks.get(origins[0][4])!, /^mapsList \(src\/dma\/dma-debug\.test\.[jt]s:/);
    for (const text of stacks.values()) assert.ok(!text.includes('file:') && !text.includes('node:'), text);
    for (const { low, high, size } of list)
      assert.ok(driver.unmapsBuffer({ low, high }, size, DMA_TO_DEVICE));
    driver.finish();
  });
}

test('after so many reports errors are counted only, and those of other drivers always', () => {
  const driver = new BadDriver('direct', { maxReports: 2, only: 'bad_driver' });
  for (let i = 0; i < 5; i++) driver.unmapsBuffer({ low: 0, high: 0x8000_0000 }, 1, DMA_TO_DEVICE);
  const { errors, reports } = driver.log.result;
  assert.deepEqual([errors, reports.length], [5, 2]);
  assert.match(formatDmaDebug(driver.log.result), /\nDMA-API: errors not shown: 3\n$/);
  for (const [only, reported] of [
    ['virtio7', 1],
    ['virtio8', 0],
  ] as const) {
    const other = new BadDriver('direct', { only });
    other.unmapsBuffer({ low: 0, high: 0x8000_0000 }, 1, DMA_TO_DEVICE);
    assert.deepEqual([other.log.result.errors, other.log.result.reports.length], [1, reported]);
  }
});

test('a report reads as a kernel would log it', () => {
  const driver = new BadDriver('direct');
  const at = driver.mapsBuffer(100, DMA_TO_DEVICE);
  driver.unmapsBuffer(at, 10, DMA_TO_DEVICE);
  const lines = formatDmaDebug(driver.log.result).split('\n');
  assert.equal(
    lines[0],
    'DMA-API: bad_driver virtio7: device driver frees DMA memory with different size [device address=0x8000000000008000] [map size=100 bytes] [unmap size=10 bytes]',
  );
  assert.equal(lines[1], 'Call Trace:');
  assert.match(lines[2], /^ BadDriver\.unmapsBuffer \(/);
  const mapped = lines.indexOf('DMA-API: Mapped at:');
  assert.match(lines[mapped + 1], /^ BadDriver\.mapsBuffer \(/);
});
