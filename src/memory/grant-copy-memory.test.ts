// A device that copies reaches exactly the bytes of its buffers, with canaries around each of them; what is refused
// fails one chain; private memory is bounded, and holds nothing of another request.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressHigh, grantAddressLow } from '../abi/grant-address.ts';
import { GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GNTST_NO_SPACE } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { IdlePools } from '../dma/idle-pools.ts';
import { References } from '../dma/references.ts';
import { Grants } from '../dma/grants.ts';
import { traceTo } from '../dma/sharing.test.helper.ts';
import { addDomain, bootTestMachine } from '../hosts/model/domains.test.helper.ts';
import { noTrace } from '../trace.ts';
import type { ChainAccess } from './device-memory.ts';
import { GrantCopyMemory } from './grant-copy-memory.ts';
import { GrantMemory } from './grant-memory.ts';

const CANARY = 0xc5;
const PLACE_SIZE = 3 * XEN_PAGE_SIZE;
/** Private memory of a device at most. */
const MOST_PAGES = 1024;

interface Buffer {
  readonly offset: number;
  readonly length: number;
  readonly writable: boolean;
}

/** A guest full of canaries, and a backend that copies. */
class Bench {
  readonly events: string[] = [];
  readonly memory: GrantCopyMemory;
  readonly u8: Uint8Array;
  readonly #grants: Grants;
  readonly #peer: ReturnType<typeof addDomain>;

  constructor(peerPages = 64) {
    const xen = bootTestMachine();
    const guest = addDomain(xen, 2);
    const tracer = traceTo((name, ...figures) => this.events.push(`${name} ${figures.join(' ')}`));
    this.#peer = addDomain(xen, 1, { memory: peerPages * XEN_PAGE_SIZE }, tracer);
    const { id, ports } = guest;
    ports.grantTable.setVersion(2);
    const references = new References(ports.grantTable);
    const pools = new IdlePools();
    const domain = { id, memory: ports.memory, table: ports.grantTable, references, pools, tracer: noTrace };
    this.#grants = new Grants(domain, this.#peer.id);
    const peer = this.#peer.ports;
    const rings = new GrantMemory(peer.grantMapper, peer.id, id, tracer);
    this.memory = new GrantCopyMemory(rings, peer.grantCopier, peer.id, id, tracer);
    this.u8 = ports.memory.region.u8;
    this.u8.fill(CANARY, 0, 60 * XEN_PAGE_SIZE);
  }

  get pagesFree(): number {
    return this.#peer.ports.memory.pagesFree;
  }

  /** Grants bytes of the guest, or the whole pages that hold them, and describes them to the device. */
  map(access: ChainAccess, address: number, length: number, writable: boolean, whole = false): number {
    const offset = address % XEN_PAGE_SIZE;
    const pages = Math.ceil((offset + length) / XEN_PAGE_SIZE);
    const frame = Math.floor(address / XEN_PAGE_SIZE);
    const ref = whole
      ? this.#grants.share(frame, pages, !writable)
      : this.#grants.shareBytes(address, length, !writable);
    return access.map(grantAddressLow(ref, offset), grantAddressHigh(ref), length, writable);
  }
}

const buffer = fc.record({
  offset: fc.integer({ min: 1, max: XEN_PAGE_SIZE }),
  length: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(4095, 4096, 4097, 7000)),
  writable: fc.boolean(),
});
const chain = fc.array(buffer, { minLength: 1, maxLength: 5 });

for (const whole of [false, true]) {
  const what = whole ? 'whole pages' : 'parts of pages';
  test(`G14 H15: with grants of ${what} the device has what was sent, and writes what it wrote, to the byte`, () => {
    fc.assert(
      fc.property(chain, fc.nat(8000), fc.nat(8000), (buffers, most, end) => {
        const bench = new Bench();
        const before = bench.pagesFree;
        const access = bench.memory.newChainAccess();
        const sent = buffers.flatMap(({ offset, length, writable }, i) => {
          const start = i * PLACE_SIZE + offset;
          if (!writable) bench.u8.fill(i + 1, start, start + length);
          assert.equal(bench.map(access, start, length, writable, whole), 0);
          return writable ? [] : Array<number>(length).fill(i + 1);
        });
        assert.equal(access.ready(), 0);
        const { readable, writable } = access;
        const got = new Uint8Array(readable.byteLength);
        readable.copyTo(got, 0, got.length);
        assert.deepEqual([...got], sent);
        const room = new Uint8Array(writable.byteLength);
        writable.copyTo(room, 0, room.length);
        assert.ok(
          room.every((byte) => byte === 0),
          'nothing of another request is there',
        );
        const expected = bench.u8.slice();
        writable.copyFrom(room.fill(0xee), 0);
        const written = Math.min(most, room.length);
        markWritten(expected, buffers, written, Math.min(end, room.length));
        assert.equal(access.release(got.length, written, Math.min(end, room.length)), 0);
        assert.ok(Buffer.from(bench.u8).equals(expected), 'a byte beside what was written has changed');
        assert.equal(bench.pagesFree, before);
      }),
      { seed: 14, numRuns: 60 },
    );
  });
}

/** Puts the device's bytes where they belong in a copy of the guest's memory. */
function markWritten(bytes: Uint8Array, buffers: readonly Buffer[], start: number, end: number): void {
  const places = buffers.flatMap(({ offset, length, writable }, i) =>
    writable ? Array.from({ length }, (_, at) => i * PLACE_SIZE + offset + at) : [],
  );
  for (const [index, place] of places.entries())
    if (index < start || index >= places.length - end) bytes[place] = 0xee;
}

test('what one request left in private memory is not there for the next, and not copied out', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  bench.map(access, 100, 600, true);
  access.ready();
  access.writable.copyFrom(new Uint8Array(600).fill(0xba), 0);
  access.release(0, 0, 0);
  const other = bench.memory.newChainAccess();
  bench.map(other, 8192, 600, true);
  other.ready();
  assert.equal(other.release(0, 600, 0), 0);
  assert.ok(bench.u8.subarray(8192, 8792).every((byte) => byte === 0));
  assert.ok(bench.u8.subarray(100, 700).every((byte) => byte === CANARY));
});

test('a reference that nobody granted is refused when the chain is ready, traced, and nothing is kept', () => {
  const bench = new Bench();
  const before = bench.pagesFree;
  const access = bench.memory.newChainAccess();
  bench.map(access, 0, 16, false);
  access.map(grantAddressLow(200, 0), grantAddressHigh(200), 512, false);
  assert.ok(access.ready() < 0);
  assert.deepEqual([access.readable.byteLength, bench.pagesFree], [0, before]);
  assert.deepEqual(bench.events, [`mapRefused 1 2 200 ${GNTST_GENERAL_ERROR}`, 'touch 1 2 8 0 16 false']);
  assert.equal(access.map(grantAddressLow(5000, 0), grantAddressHigh(5000), 1, false), 0);
  assert.equal(access.ready(), GNTST_BAD_GNTREF);
});

test('H16: what is granted for reading only refuses the answer, and the chain with it', () => {
  const bench = new Bench();
  const before = bench.pagesFree;
  const access = bench.memory.newChainAccess();
  bench.map(access, 0, 16, true);
  // The descriptor says that the device may write, the grant says that it may not.
  const ref = 9;
  bench.map(bench.memory.newChainAccess(), 4096, 16, false);
  access.map(grantAddressLow(ref, 0), grantAddressHigh(ref), 16, true);
  assert.equal(access.ready(), 0);
  assert.equal(access.release(0, 32, 0), GNTST_GENERAL_ERROR);
  assert.ok(bench.u8.subarray(4096, 4112).every((byte) => byte === CANARY));
  assert.equal(bench.pagesFree, before);
  assert.deepEqual(bench.events, [`mapRefused 1 2 ${ref} ${GNTST_GENERAL_ERROR}`, 'touch 1 2 8 0 16 true']);
});

test('a chain that describes more than the device has memory for is refused, and the next one is served', () => {
  const bench = new Bench(MOST_PAGES + 100);
  const before = bench.pagesFree;
  const access = bench.memory.newChainAccess();
  const high = grantAddressHigh(8);
  assert.equal(access.map(0x8000, high, 0xffff_ffff, true), GNTST_NO_SPACE);
  for (let each = 0; each < 4; each++) assert.equal(access.map(0x8000, high, XEN_PAGE_SIZE * 256, true), 0);
  assert.equal(access.map(0x8000, high, 1, true), GNTST_NO_SPACE);
  access.release(0, 0, 0);
  bench.map(access, 0, 16, false);
  assert.equal(access.ready(), 0);
  assert.equal(bench.pagesFree, before - 1);
  access.release(0, 0, 0);
  assert.equal(bench.pagesFree, before);
});

test('chains in flight share the bound of their device, and each that ends makes room', () => {
  const bench = new Bench(MOST_PAGES + 400);
  const accesses = Array.from({ length: 5 }, () => bench.memory.newChainAccess());
  const high = grantAddressHigh(8);
  const begin = (access: ChainAccess) =>
    access.map(0x8000, high, XEN_PAGE_SIZE * 256, true) || access.ready();
  assert.deepEqual(accesses.map(begin), [0, 0, 0, 0, GNTST_NO_SPACE]);
  accesses[2].release(0, 0, 0);
  assert.equal(begin(accesses[4]), 0);
});

test('a backend without memory refuses chains, and nothing else happens', () => {
  const bench = new Bench();
  const access = bench.memory.newChainAccess();
  assert.equal(access.map(0x8000, grantAddressHigh(8), 100 * XEN_PAGE_SIZE, true), 0);
  assert.equal(access.ready(), GNTST_NO_SPACE);
});

test('G4 G5: an address that names no grant breaks the device', () => {
  const access = new Bench().memory.newChainAccess();
  assert.throws(() => access.map(0x1000, 0, 16, false), /bit 63/);
  assert.throws(() => access.map(0x1000, 0x8000_1000, 16, false), /bits 44/);
});
