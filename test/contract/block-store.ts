// What every implementation of the port src/storage/block-store.ts must do, whatever the disk is made of.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type Region, regionOver } from '../../src/abi/region.ts';
import { Segments } from '../../src/memory/segments.ts';
import type { BlockStore, StoreAnswer, StoreRequest, StoreResult } from '../../src/storage/block-store.ts';

/** A store under test and the way to its bytes that does not go through it. */
export interface StoreUnderTest {
  readonly store: BlockStore;
  /** All bytes of the disk as they are outside the store. */
  contents(): Uint8Array;
  /** Guest memory of 64 KiB, where it matters what it is made of. */
  readonly memory?: Region;
  /** Takes away what `make` set up; the store is closed. */
  remove(): void;
}

/** A store whose every call waits for its outcome. */
class SettledStore {
  readonly #store: BlockStore;

  constructor(store: BlockStore) {
    this.#store = store;
  }

  get size(): number {
    return this.#store.size;
  }

  get readOnly(): boolean {
    return this.#store.readOnly;
  }

  read(offset: number, into: Segments): StoreResult {
    return this.#settle((request) => this.#store.read(offset, into, request));
  }

  write(offset: number, from: Segments): StoreResult {
    return this.#settle((request) => this.#store.write(offset, from, request));
  }

  flush(): StoreResult {
    return this.#settle((request) => this.#store.flush(request));
  }

  discard(offset: number, length: number): StoreResult {
    return this.#settle((request) => this.#store.discard(offset, length, request));
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): StoreResult {
    return this.#settle((request) => this.#store.writeZeroes(offset, length, mayUnmap, request));
  }

  #settle(call: (request: StoreRequest) => StoreAnswer): StoreResult {
    const results: StoreResult[] = [];
    const answer = call({ finish: (result) => results.push(result) });
    assert.equal(results.length, 0, 'a request is never finished within its call');
    if (answer !== 'later') return answer;
    assert.ok(this.#store.drain, 'who answers later can be waited for');
    this.#store.drain();
    assert.equal(results.length, 1, 'a request is finished once');
    return results[0];
  }
}

/** A store under test that has been opened. */
interface Made extends Omit<StoreUnderTest, 'store'> {
  readonly store: SettledStore;
}

type Make = (bytes: Uint8Array, readOnly: boolean) => StoreUnderTest;

const SECTOR = 512;
const SECTORS = 32;

function diskBytes(salt: number): Uint8Array {
  return Uint8Array.from({ length: SECTORS * SECTOR }, (_, i) => (i * 7) ^ (i >>> 8) ^ salt);
}

/** Guest memory, and segments over pieces of it. */
class Memory {
  readonly region: Region;

  constructor({ memory }: Made) {
    this.region = memory === undefined ? regionOver(new ArrayBuffer(64 * 1024)) : memory;
    this.region.u8.fill(0);
  }

  /** Pieces that start at `offsets` and are `lengths` long. */
  segments(...pieces: readonly (readonly [offset: number, length: number])[]): Segments {
    const segments = new Segments();
    for (const [offset, length] of pieces) segments.push(this.region, offset, length);
    return segments;
  }

  /** One piece with `bytes` in it. */
  holding(bytes: Uint8Array): Segments {
    this.region.u8.set(bytes);
    return this.segments([0, bytes.length]);
  }

  /** `length` bytes cut into pieces of the lengths that `cuts` gives, with gaps between them. */
  scattered(length: number, cuts: readonly number[]): Segments {
    const pieces: [number, number][] = [];
    let left = length;
    for (let i = 0, at = 8; left > 0; i++) {
      const piece = Math.min(cuts[i] ?? left, left);
      pieces.push([at, piece]);
      at += piece + 3;
      left -= piece;
    }
    return this.segments(...pieces);
  }
}

function bytesOf(segments: Segments): Uint8Array {
  const bytes = new Uint8Array(segments.byteLength);
  segments.copyTo(bytes, 0, bytes.length);
  return bytes;
}

/** The contract, for one implementation. */
export function blockStoreContract(implementation: string, make: Make): void {
  const withStore = (readOnly: boolean, check: (made: Made, bytes: Uint8Array) => void) => () => {
    const bytes = diskBytes(readOnly ? 1 : 2);
    const made = make(bytes.slice(), readOnly);
    try {
      check({ ...made, store: new SettledStore(made.store) }, bytes);
    } finally {
      made.store.close();
      made.remove();
    }
  };
  describe(`the port BlockStore by ${implementation}`, () => {
    reading(withStore);
    changing(withStore);
    readOnly(withStore);
    behavesAsAnArray(withStore);
  });
}

type WithStore = (readOnly: boolean, check: (made: Made, bytes: Uint8Array) => void) => () => void;

function reading(withStore: WithStore): void {
  test(
    'its size is that of its bytes',
    withStore(false, ({ store }) => {
      assert.equal(store.size, SECTORS * SECTOR);
      assert.equal(store.readOnly, false);
    }),
  );

  test(
    'a read fills all of the memory it is given, and no byte more',
    withStore(false, (made, bytes) => {
      const { store } = made;
      const memory = new Memory(made);
      memory.region.u8.fill(0xee);
      assert.equal(store.read(3 * SECTOR, memory.segments([100, 2 * SECTOR])), 'ok');
      const expected = new Uint8Array(64 * 1024).fill(0xee);
      expected.set(bytes.subarray(3 * SECTOR, 5 * SECTOR), 100);
      assert.deepEqual(memory.region.u8, expected);
    }),
  );

  test(
    'a read may go into very many pieces, more than one system call takes',
    withStore(false, (made, bytes) => {
      const { store } = made;
      const memory = new Memory(made);
      const many = memory.scattered(8 * SECTOR, new Array(8 * SECTOR).fill(1));
      assert.equal(many.count, 8 * SECTOR);
      assert.equal(store.read(0, many), 'ok');
      assert.deepEqual(bytesOf(many), bytes.slice(0, 8 * SECTOR));
    }),
  );

  test(
    'the first and the last sector are there',
    withStore(false, (made, bytes) => {
      const { store } = made;
      for (const sector of [0, SECTORS - 1]) {
        const into = new Memory(made).segments([0, SECTOR]);
        assert.equal(store.read(sector * SECTOR, into), 'ok');
        assert.deepEqual(bytesOf(into), bytes.slice(sector * SECTOR, (sector + 1) * SECTOR));
      }
    }),
  );
}

function changing(withStore: WithStore): void {
  test(
    'a write changes its bytes and no others; a flush makes it last',
    withStore(false, (made, bytes) => {
      const { store, contents } = made;
      const data = diskBytes(0x5a).slice(0, 3 * SECTOR);
      assert.equal(store.write(7 * SECTOR, new Memory(made).holding(data)), 'ok');
      assert.equal(store.flush(), 'ok');
      bytes.set(data, 7 * SECTOR);
      assert.deepEqual(contents(), bytes);
    }),
  );

  test(
    'a write may come from very many pieces',
    withStore(false, (made, bytes) => {
      const { store, contents } = made;
      const memory = new Memory(made);
      memory.region.u8.set(diskBytes(0x77));
      const many = memory.scattered(8 * SECTOR, new Array(8 * SECTOR).fill(1));
      assert.equal(store.write(SECTOR, many), 'ok');
      bytes.set(bytesOf(many), SECTOR);
      assert.deepEqual(contents(), bytes);
    }),
  );

  for (const mayUnmap of [false, true]) {
    test(
      `write zeroes makes the range read as zero, and no other byte, mayUnmap ${mayUnmap}`,
      withStore(false, ({ store, contents }, bytes) => {
        assert.equal(store.writeZeroes(4 * SECTOR, 9 * SECTOR, mayUnmap), 'ok');
        assert.equal(store.flush(), 'ok');
        bytes.fill(0, 4 * SECTOR, 13 * SECTOR);
        assert.deepEqual(contents(), bytes);
      }),
    );
  }

  test(
    'ranges of no bytes are done with at once',
    withStore(false, ({ store, contents }, bytes) => {
      assert.equal(store.writeZeroes(SECTOR, 0, true), 'ok');
      assert.equal(store.discard(SECTOR, 0), 'ok');
      assert.deepEqual(contents(), bytes);
    }),
  );

  test(
    'a discard leaves everything outside its range alone',
    withStore(false, ({ store, contents }, bytes) => {
      assert.equal(store.discard(4 * SECTOR, 4 * SECTOR), 'ok');
      const after = contents();
      assert.deepEqual(after.slice(0, 4 * SECTOR), bytes.slice(0, 4 * SECTOR));
      assert.deepEqual(after.slice(8 * SECTOR), bytes.slice(8 * SECTOR));
    }),
  );
}

function readOnly(withStore: WithStore): void {
  test(
    'a read-only store reads and flushes, and refuses every change with EROFS',
    withStore(true, (made, bytes) => {
      const { store, contents } = made;
      assert.equal(store.readOnly, true);
      const memory = new Memory(made);
      assert.equal(store.write(0, memory.holding(new Uint8Array(SECTOR))), 'EROFS');
      assert.equal(store.writeZeroes(0, SECTOR, false), 'EROFS');
      assert.equal(store.discard(0, SECTOR), 'EROFS');
      assert.equal(store.flush(), 'ok');
      assert.equal(store.read(0, memory.segments([0, SECTOR])), 'ok');
      assert.deepEqual(memory.region.u8.slice(0, SECTOR), bytes.slice(0, SECTOR));
      assert.deepEqual(contents(), bytes);
    }),
  );
}

/** A step of a script: what to do, from which sector, for how many, and how the memory is cut. */
const steps = fc.record({
  action: fc.constantFrom('read', 'write', 'zeroes', 'flush'),
  sector: fc.integer({ min: 0, max: SECTORS - 1 }),
  sectors: fc.integer({ min: 1, max: 8 }),
  cuts: fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 6 }),
  salt: fc.integer({ min: 0, max: 255 }),
});

function behavesAsAnArray(withStore: WithStore): void {
  test(
    'any script of reads, writes and zeroes gives what an array of sectors gives (29)',
    withStore(false, (made, model) => {
      const { store, contents } = made;
      const run = fc.property(fc.array(steps, { maxLength: 12 }), (script) => {
        for (const { action, sector, sectors, cuts, salt } of script) {
          const offset = sector * SECTOR;
          const length = Math.min(sectors, SECTORS - sector) * SECTOR;
          const memory = new Memory(made);
          memory.region.u8.fill(salt);
          const segments = memory.scattered(length, cuts);
          if (action === 'read') {
            assert.equal(store.read(offset, segments), 'ok');
            assert.deepEqual(bytesOf(segments), model.slice(offset, offset + length));
          } else if (action === 'write') {
            assert.equal(store.write(offset, segments), 'ok');
            model.fill(salt, offset, offset + length);
          } else if (action === 'zeroes') {
            assert.equal(store.writeZeroes(offset, length, salt > 127), 'ok');
            model.fill(0, offset, offset + length);
          } else assert.equal(store.flush(), 'ok');
        }
        assert.deepEqual(contents(), model);
      });
      fc.assert(run, { seed: 29, numRuns: 100 });
    }),
  );
}
