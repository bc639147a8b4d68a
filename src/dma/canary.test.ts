// Canaries: the guest's memory is full of secrets, and after every step the backend tries every reference. What
// it reads and where it can write is then known byte by byte, and so is what of its writing comes back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { grantAddressOffset, grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { sharedEntries } from '../hosts/model/grants/recount.test.helper.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { DmaOperations } from './dma.ts';
import {
  checkNothingShared,
  dmaOf,
  type GrantingMode,
  newSharing,
  type Reached,
  type Sharing,
  takePages,
  traceTo,
} from './sharing.test.helper.ts';

/** The modes that show nothing foreign. */
const PRIVATE_MODES = ['bounce', 'persistent', 'auto'] as const;

/** Places for buffers, each of four pages, all around them secrets. */
const PLACES = 12;
const PLACE_SIZE = 4 * XEN_PAGE_SIZE;
const SCRIBBLE = 0xba;

interface Live {
  readonly address: number;
  readonly size: number;
  readonly direction: number;
  readonly low: number;
  readonly high: number;
  /** What the backend finds there, and what the guest gets back of it. */
  readonly content: Uint8Array;
}

/** A guest full of secrets, its device's mappings, and the backend that looks and scribbles. */
class Bench {
  readonly pool = new Set<number>();
  readonly sharing: Sharing;
  readonly dma: DmaOperations;
  readonly secrets: number;
  /** What the guest's own pages have to hold when nothing is mapped. */
  readonly shadow: Uint8Array;
  readonly live = new Map<number, Live>();
  /** What the backend itself wrote last, by frame. */
  readonly written = new Map<number, Uint8Array>();

  constructor(mode: GrantingMode) {
    const tracer = traceTo((name, _domain, ...figures) => {
      const [frame, count] = figures.slice(name === 'privatePages' ? 1 : 0).map(Number);
      for (let page = frame; name === 'privatePages' && page < frame + count; page++) this.pool.add(page);
      for (let page = frame; name === 'privatePagesEnd' && page < frame + count; page++)
        this.pool.delete(page);
    });
    this.sharing = newSharing({ tracer });
    this.dma = dmaOf(mode, this.sharing, { directFrom: XEN_PAGE_SIZE });
    this.secrets = takePages(this.sharing, (PLACES * PLACE_SIZE) / XEN_PAGE_SIZE);
    this.shadow = Uint8Array.from({ length: PLACES * PLACE_SIZE }, (_, i) => ((i * 31 + (i >> 8)) % 255) + 1);
    this.sharing.u8.set(this.shadow, this.secrets);
  }

  get own(): Uint8Array {
    return this.sharing.u8.subarray(this.secrets, this.secrets + PLACES * PLACE_SIZE);
  }

  isSecret(frame: number): boolean {
    const page = frame - this.secrets / XEN_PAGE_SIZE;
    return page >= 0 && page < this.own.length / XEN_PAGE_SIZE;
  }

  /** Whether a buffer was granted itself, so that the device's writes are in the guest's memory at once. */
  isDirect({ low, high }: Live): boolean {
    return this.isSecret(this.frameOf(grantAddressRef(low, high)));
  }

  frameOf(ref: number): number {
    return sharedEntries(this.sharing.guest).find((entry) => entry.ref === ref)!.frame;
  }

  /** What the guest's own pages have to hold now. */
  expected(): Uint8Array {
    const expected = this.shadow.slice();
    for (const live of this.live.values()) if (this.isDirect(live)) expected.set(live.content, live.address);
    return expected;
  }

  map(place: number, offset: number, size: number, direction: number): void {
    const start = place * PLACE_SIZE + offset;
    const at = { low: 0, high: 0 };
    assert.ok(this.dma.map(this.secrets + start, size, direction, at));
    const content =
      direction === DMA_FROM_DEVICE ? new Uint8Array(size) : this.shadow.slice(start, start + size);
    this.live.set(place, { address: start, size, direction, ...at, content });
  }

  unmap(place: number): void {
    const { address, size, direction, low, high, content } = this.live.get(place)!;
    this.live.delete(place);
    assert.ok(this.dma.unmap(low, high, size, direction));
    if (direction !== DMA_TO_DEVICE) this.shadow.set(content, address);
    assert.ok(Buffer.from(this.own).equals(this.expected()), `place ${place} came back changed`);
  }

  /** Which bytes of a granted page belong to a live buffer, and what they are. */
  buffersIn(ref: number): { start: number; bytes: Uint8Array }[] {
    return [...this.live.values()].flatMap(({ low, high, size, content }) => {
      // In bytes from the beginning of the page behind `ref`.
      const start = (grantAddressRef(low, high) - ref) * XEN_PAGE_SIZE + grantAddressOffset(low);
      if (start >= XEN_PAGE_SIZE || start + size <= 0) return [];
      const bytes = content.subarray(Math.max(-start, 0), XEN_PAGE_SIZE - start);
      return [{ start: Math.max(start, 0), bytes }];
    });
  }

  /** Whether the page behind `ref` is wholly in a live buffer. */
  isFilled(ref: number): boolean {
    return this.buffersIn(ref).some(({ bytes }) => bytes.length === XEN_PAGE_SIZE);
  }

  /** The device writes into a live buffer. */
  write(place: number, share: number, value: number): void {
    const live = this.live.get(place);
    if (live === undefined || live.direction === DMA_TO_DEVICE) return;
    const length = Math.ceil(live.size * share);
    live.content.fill(value, 0, length);
    this.sharing.backend.writeAt(live, live.content.slice(0, length));
    const start = grantAddressOffset(live.low);
    for (let at = 0, ref = grantAddressRef(live.low, live.high); at < length; ref++) {
      const end = Math.min(length, at + XEN_PAGE_SIZE - ((start + at) & 0xfff));
      this.writtenIn(this.frameOf(ref)).fill(value, (start + at) & 0xfff, ((start + end - 1) & 0xfff) + 1);
      at = end;
    }
  }

  writtenIn(frame: number): Uint8Array {
    const bytes = this.written.get(frame) ?? new Uint8Array(XEN_PAGE_SIZE);
    this.written.set(frame, bytes);
    return bytes;
  }

  /** The backend writes wherever it can but into live buffers. */
  scribble(): void {
    for (const { ref, frame, writable, bytes } of this.sharing.backend.reach()) {
      if (!writable) continue;
      const kept = this.buffersIn(ref).map(({ start, bytes: { length } }) => ({
        start,
        bytes: bytes.slice(start, start + length),
      }));
      bytes.fill(SCRIBBLE);
      for (const each of kept) bytes.set(each.bytes, each.start);
      const handle = this.sharing.backend.map(ref);
      this.sharing.backend.write(handle, 0, bytes);
      this.sharing.backend.unmap(handle);
      this.written.set(frame, bytes);
    }
  }

  /** Foreign bytes in what was reached: in no live buffer, not zero, and not what the backend wrote itself. */
  foreign(reached: Reached[]): number {
    return reached.reduce((sum, { ref, frame, bytes }) => {
      const rest = bytes.slice();
      for (const { start, bytes: own } of this.buffersIn(ref)) {
        assert.deepEqual(bytes.slice(start, start + own.length), own);
        rest.fill(0, start, start + own.length);
      }
      const known = this.written.get(frame);
      return sum + rest.reduce((count, byte, i) => count + (byte === 0 || byte === known?.[i] ? 0 : 1), 0);
    }, 0);
  }

  close(): void {
    for (const place of this.live.keys()) this.unmap(place);
    this.dma.revokeIdle();
    checkNothingShared(this.sharing);
    assert.ok(Buffer.from(this.own).equals(this.shadow));
  }
}

/** One mapping or, where the place is in use, its end; then what the device writes. */
const step = fc.record({
  place: fc.nat(PLACES - 1),
  offset: fc.oneof(fc.constantFrom(0, XEN_PAGE_SIZE), fc.integer({ min: 0, max: XEN_PAGE_SIZE })),
  size: fc.oneof(
    fc.constantFrom(1, 127, 128, 129, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 4097, 12_288),
    fc.integer({ min: 1, max: 600 }),
    fc.integer({ min: 1, max: PLACE_SIZE - XEN_PAGE_SIZE }),
  ),
  direction: fc.constantFrom(DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE),
  written: fc.nat(PLACES - 1),
  share: fc.constantFrom(0, 0.5, 1),
});
const steps = fc.array(step, { minLength: 10, maxLength: 40 });

function run(bench: Bench, { place, offset, size, direction }: { [key: string]: number }): void {
  if (bench.live.has(place)) bench.unmap(place);
  else bench.map(place, offset, size, direction);
}

for (const mode of PRIVATE_MODES) {
  test(`1 9 G14: ${mode}: at no step does the backend reach a page of the guest’s, or a byte that is not its buffers’`, () => {
    fc.assert(
      fc.property(steps, (each) => {
        const bench = new Bench(mode);
        each.forEach((now, i) => {
          run(bench, now);
          bench.write(now.written, now.share, i + 1);
          const reached = bench.sharing.backend.reach();
          assert.ok(reached.every(({ ref, frame }) => bench.pool.has(frame) || bench.isFilled(ref)));
          assert.equal(bench.foreign(reached), 0);
          for (const { low, high, direction } of bench.live.values()) {
            const page = reached.find(({ ref }) => ref === grantAddressRef(low, high));
            assert.equal(page!.writable, direction !== DMA_TO_DEVICE);
          }
        });
        bench.close();
      }),
      { seed: 14, numRuns: 30 },
    );
  });

  test(`B3: ${mode}: what the backend scribbles outside of buffers never comes into the guest’s memory`, () => {
    fc.assert(
      fc.property(steps, (each) => {
        const bench = new Bench(mode);
        each.forEach((now, i) => {
          run(bench, now);
          bench.scribble();
          bench.write(now.written, now.share, i + 1);
          assert.ok(Buffer.from(bench.own).equals(bench.expected()));
        });
        bench.close();
      }),
      { seed: 15, numRuns: 30 },
    );
  });

  test(`${mode}: pages of the pool are zero when they are not granted, whatever was copied and scribbled`, () => {
    const bench = new Bench(mode);
    for (let round = 0; round < 3; round++) {
      for (let place = 0; place < PLACES; place++) bench.map(place, 5, 1 + place ** 4 / 2, place % 3);
      bench.scribble();
      for (let place = 0; place < PLACES; place++) bench.write(place, 1, 0x77);
      for (let place = 0; place < PLACES; place++) bench.unmap(place);
      bench.dma.revokeIdle();
      assert.ok(bench.pool.size > 0);
      for (const frame of bench.pool) {
        const page = bench.sharing.u8.subarray(frame * XEN_PAGE_SIZE, (frame + 1) * XEN_PAGE_SIZE);
        assert.ok(page.every((byte) => byte === 0));
      }
    }
    bench.close();
    bench.dma.close();
    assert.equal(bench.pool.size, 0);
  });
}

for (const [offset, size, direction] of [
  [100, 32, DMA_TO_DEVICE],
  [100, 32, DMA_FROM_DEVICE],
  [4090, 12, DMA_BIDIRECTIONAL],
  [0, 4096, DMA_FROM_DEVICE],
] as const) {
  test(`XSA-403: direct, ${size} bytes at ${offset}: the rest of the pages is exposed, exactly`, () => {
    const bench = new Bench('direct');
    bench.map(3, offset, size, direction);
    if (direction === DMA_FROM_DEVICE) {
      bench.live.get(3)!.content.set(bench.shadow.subarray(3 * PLACE_SIZE + offset).subarray(0, size));
    }
    const reached = bench.sharing.backend.reach();
    const pages = Math.ceil((offset + size) / XEN_PAGE_SIZE);
    const first = (bench.secrets + 3 * PLACE_SIZE) / XEN_PAGE_SIZE;
    assert.deepEqual(
      reached.map(({ frame }) => frame),
      Array.from({ length: pages }, (_, page) => first + page),
    );
    assert.equal(bench.foreign(reached), pages * XEN_PAGE_SIZE - size);
    bench.scribble();
    const changed = bench.own.reduce((count, byte, i) => count + (byte === bench.shadow[i] ? 0 : 1), 0);
    const same = bench.shadow
      .subarray(3 * PLACE_SIZE, 3 * PLACE_SIZE + pages * XEN_PAGE_SIZE)
      .filter((byte, i) => byte === SCRIBBLE && (i < offset || i >= offset + size)).length;
    const writable = direction === DMA_TO_DEVICE ? 0 : pages * XEN_PAGE_SIZE - size - same;
    assert.equal(changed, writable);
  });
}
