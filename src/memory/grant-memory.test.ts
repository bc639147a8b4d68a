// A device that maps what the guest granted: what a chain needs by one call for each direction, all of it or nothing, and
// the events of each page by itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressHigh, grantAddressLow } from '../abi/grant-address.ts';
import { GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { traceTo } from '../dma/sharing.test.helper.ts';
import { ProtocolViolation } from '../errors.ts';
import { addDomain, bootTestMachine } from '../hosts/model/domains.test.helper.ts';
import type { GrantMapper, GrantPages } from '../xen/grant-mapper.ts';
import type { DomainId, FrameNumber, GrantRef } from '../xen/ids.ts';
import type { ChainAccess } from './device-memory.ts';
import { GrantMemory } from './grant-memory.ts';

/** References of the pages that are granted for writing, in a row; as many after them for reading only. */
const FIRST = 8;
const PAGES = 10;
const READ_ONLY = FIRST + PAGES;
/** The first one that is not granted, and one behind the table. */
const NOT_GRANTED = FIRST + 2 * PAGES;
const BEHIND = 600;

/** A guest whose pages are full of their references, and a backend that maps them. */
class Bench implements GrantMapper {
  readonly events: string[] = [];
  /** What the mapper was asked for. */
  readonly calls: string[] = [];
  readonly memory: GrantMemory;
  readonly #mapper;

  constructor() {
    const xen = bootTestMachine();
    const { id, ports } = addDomain(xen, 2);
    const tracer = traceTo((name, ...figures) => this.events.push(`${name} ${figures.join(' ')}`));
    const peer = addDomain(xen, 1, {}, tracer);
    for (let page = 0; page < 2 * PAGES; page++) {
      const ref = (FIRST + page) as GrantRef;
      const address = ports.memory.allocatePages(1)!;
      const frame = (address / XEN_PAGE_SIZE) as FrameNumber;
      ports.grantTable.grant(ref, 1, peer.id, frame, ref >= READ_ONLY);
      ports.memory.bytes(address, XEN_PAGE_SIZE).fill(ref);
    }
    this.#mapper = peer.ports.grantMapper;
    this.memory = new GrantMemory(this, peer.id, id, tracer);
  }

  get live(): number {
    return this.#mapper.live;
  }

  mapPages(owner: DomainId, pages: GrantPages, readonly: boolean): number {
    if (pages.count > 0) this.calls.push(`map ${pages.count} ${readonly ? 'to read' : 'to write'}`);
    return this.#mapper.mapPages(owner, pages, readonly);
  }

  unmapPages(pages: GrantPages): number {
    if (pages.count > 0) this.calls.push(`unmap ${pages.count}`);
    return this.#mapper.unmapPages(pages);
  }

  region = (handle: number) => this.#mapper.region(handle);
  offset = (handle: number) => this.#mapper.offset(handle);
}

const map = (access: ChainAccess, ref: number, offset: number, length: number, writable: boolean): number =>
  access.map(grantAddressLow(ref, offset), grantAddressHigh(ref), length, writable);

test('a chain is mapped by two calls and unmapped by two, and its pages are reported one by one', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  map(access, READ_ONLY, 4080, 16, false);
  map(access, READ_ONLY + 4, 4000, 200, false);
  map(access, FIRST + 1, 0, 2 * XEN_PAGE_SIZE, true);
  map(access, FIRST + 5, 16, 1, true);
  assert.deepEqual([bench.calls, access.readable.count], [[], 0], 'nothing before the chain is whole');
  assert.equal(access.ready(), GNTST_OKAY);
  assert.deepEqual(bench.calls, ['map 3 to read', 'map 3 to write']);
  assert.equal(bench.live, 6);
  assert.equal(access.release(216, XEN_PAGE_SIZE, 1), GNTST_OKAY);
  assert.deepEqual(bench.calls.slice(2), ['unmap 3', 'unmap 3']);
  assert.deepEqual(bench.events, [
    'map 1 2 18 0 true',
    'map 1 2 22 1 true',
    'map 1 2 23 2 true',
    'map 1 2 9 3 false',
    'map 1 2 10 4 false',
    'map 1 2 13 5 false',
    'touch 1 2 18 4080 16 false',
    'touch 1 2 22 4000 200 false',
    'touch 1 2 9 0 4096 true',
    'touch 1 2 13 16 1 true',
    'unmap 1 2 13 5',
    'unmap 1 2 10 4',
    'unmap 1 2 9 3',
    'unmap 1 2 23 2',
    'unmap 1 2 22 1',
    'unmap 1 2 18 0',
  ]);
});

test('a chain that only reads, only writes, or has nothing to map asks for no more than that', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  assert.equal(access.ready(), GNTST_OKAY);
  assert.equal(access.release(0, 0, 0), GNTST_OKAY);
  for (const writable of [false, true]) {
    map(access, FIRST, 0, 10, writable);
    assert.equal(access.ready(), GNTST_OKAY);
    access.release(0, 0, 0);
  }
  assert.deepEqual(bench.calls, ['map 1 to read', 'unmap 1', 'map 1 to write', 'unmap 1']);
});

test('T17: a chain with a refused page has its status, keeps nothing mapped, and can be used for the next', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  map(access, FIRST, 0, 16, false);
  map(access, READ_ONLY, 0, 16, true);
  assert.equal(access.ready(), GNTST_GENERAL_ERROR);
  assert.deepEqual([bench.live, access.readable.byteLength, access.writable.byteLength], [0, 0, 0]);
  assert.deepEqual(bench.events, [
    'map 1 2 8 0 true',
    `mapRefused 1 2 18 ${GNTST_GENERAL_ERROR}`,
    'unmap 1 2 8 0',
  ]);
  map(access, FIRST, 0, 16, true);
  assert.equal(access.ready(), GNTST_OKAY);
  assert.deepEqual([bench.live, access.readable.byteLength, access.writable.byteLength], [1, 0, 16]);
  access.release(0, 0, 0);
  assert.equal(bench.live, 0);
});

test('H16: a chain that breaks a rule half way through its buffers has mapped nothing', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  map(access, FIRST, 0, 16, false);
  assert.throws(() => access.map(0x1000, 0, 16, false), ProtocolViolation);
  access.release(0, 0, 0);
  assert.deepEqual(bench.calls, []);
  assert.equal(access.ready(), GNTST_OKAY);
  assert.equal(access.readable.byteLength, 0);
});

test('a chain that describes more pages than can be mapped is refused, and the next one is served', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  assert.equal(map(access, FIRST, 0, 0xffff_ffff, true), GNTST_NO_SPACE);
  for (let each = 0; each < 16; each++) assert.equal(map(access, FIRST, 0, 2 ** 22, each > 7), GNTST_OKAY);
  assert.equal(map(access, FIRST, 0, 1, true), GNTST_NO_SPACE);
  access.release(0, 0, 0);
  assert.equal(map(access, FIRST, 0, 1, true), GNTST_OKAY);
  assert.equal(access.ready(), GNTST_OKAY);
  assert.deepEqual(bench.calls, ['map 1 to write']);
});

test('a ring whose pages are granted for writing is mapped as a whole, and one that is not is refused', () => {
  const bench = new Bench();
  const low = grantAddressLow(FIRST, 0);
  const ring = bench.memory.mapRing(low, grantAddressHigh(FIRST), 100);
  assert.deepEqual(bench.calls, ['map 1 to write']);
  ring.release();
  const readOnly = [grantAddressLow(READ_ONLY, 0), grantAddressHigh(READ_ONLY)] as const;
  assert.throws(
    () => bench.memory.mapRing(...readOnly, 100),
    /mapping its grants failed with GNTST_general_error/,
  );
  assert.equal(bench.live, 0);
});

/** What mapping these pages one by one, in this order, comes to. */
function expectedStatus(refs: readonly number[], writable: boolean): number {
  for (const ref of refs) {
    if (ref >= BEHIND) return GNTST_BAD_GNTREF;
    if (ref >= NOT_GRANTED || (writable && ref >= READ_ONLY)) return GNTST_GENERAL_ERROR;
  }
  return GNTST_OKAY;
}

test('any chain has the bytes of its pages, or the status of the first one that is refused', () => {
  // Mostly pages that may be written.
  const ref = fc.oneof(
    { weight: 20, arbitrary: fc.integer({ min: FIRST, max: READ_ONLY - 3 }) },
    { weight: 2, arbitrary: fc.integer({ min: READ_ONLY - 2, max: NOT_GRANTED }) },
    { weight: 1, arbitrary: fc.constant(BEHIND) },
  );
  const buffer = fc.record({
    ref,
    offset: fc.nat(XEN_PAGE_SIZE - 1),
    length: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(4095, 4096, 4097, 8000)),
    writable: fc.boolean(),
  });
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  fc.assert(
    fc.property(fc.array(buffer, { maxLength: 6 }), (any) => {
      const buffers = [...any.filter(({ writable }) => !writable), ...any.filter(({ writable }) => writable)];
      for (const { ref, offset, length, writable } of buffers)
        assert.equal(map(access, ref, offset, length, writable), GNTST_OKAY);
      const bytes = { read: [] as number[], write: [] as number[] };
      for (const { ref, offset, length, writable } of buffers)
        for (let at = offset; at < offset + length; at++)
          bytes[writable ? 'write' : 'read'].push(ref + Math.floor(at / XEN_PAGE_SIZE));
      const expected = expectedStatus(bytes.read, false) || expectedStatus(bytes.write, true);
      assert.equal(access.ready(), expected);
      for (const [segments, wanted] of [
        [access.readable, bytes.read],
        [access.writable, bytes.write],
      ] as const) {
        const got = new Uint8Array(segments.byteLength);
        segments.copyTo(got, 0, got.length);
        assert.deepEqual([...got], expected === GNTST_OKAY ? wanted : []);
      }
      access.release(0, 0, 0);
      assert.equal(bench.live, 0);
    }),
    { seed: 17, numRuns: 200 },
  );
});
