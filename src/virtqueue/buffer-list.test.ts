// Cutting a buffer of a request in two, where it finds no run of references that is long enough.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { BufferList } from './buffer-list.ts';

/** Address and length of each buffer, in order. */
function buffersOf({ count, addresses, lengths }: BufferList): [number, number][] {
  return Array.from({ length: count }, (_, index) => [addresses[index], lengths[index]]);
}

test('G8: a buffer is cut where a page begins, near its middle, and the others stay as they are', () => {
  const list = new BufferList();
  list.clear().addReadable(16, 16).addReadable(0x3ffc, 4).addReadable(0x5ff0, 0x2020).addWritable(0x20, 1);
  assert.ok(list.split(2));
  const first = [0x5ff0, 0x1010];
  assert.deepEqual(buffersOf(list), [[16, 16], [0x3ffc, 4], first, [0x7000, 0x1010], [0x20, 1]]);
  assert.deepEqual([list.readable, list.writableBytes], [4, 1]);
  assert.ok(list.split(3));
  assert.deepEqual(buffersOf(list).slice(2, 5), [first, [0x7000, 0x1000], [0x8000, 0x10]]);
  assert.ok(!list.split(1), 'one page is not cut');
  assert.deepEqual([list.count, list.readable], [6, 5]);
});

test('G8: a cut buffer leaves nothing behind for the next request', () => {
  const list = new BufferList();
  for (let turn = 0; turn < 3; turn++) {
    list.clear().addReadable(0, 16).addWritable(0x1000, 0x4000).addWritable(16, 1);
    assert.ok(list.split(1));
    assert.deepEqual(buffersOf(list), [
      [0, 16],
      [0x1000, 0x2000],
      [0x3000, 0x2000],
      [16, 1],
    ]);
    assert.deepEqual([list.readable, list.addresses.length], [1, 4]);
  }
});

test('G8: whatever is cut, the pieces are the buffer, meet where pages begin, and need fewer in a row', () => {
  const request = fc.record({
    // Up to where addresses are no 32-bit numbers.
    page: fc.integer({ min: 0, max: 2 ** 22 }),
    offset: fc.nat(XEN_PAGE_SIZE - 1),
    length: fc.integer({ min: 1, max: 300 * XEN_PAGE_SIZE }),
    writable: fc.boolean(),
    cuts: fc.array(fc.nat(), { maxLength: 20 }),
  });
  fc.assert(
    fc.property(request, ({ page, offset, length, writable, cuts }) => {
      const list = new BufferList();
      const address = page * XEN_PAGE_SIZE + offset;
      if (writable) list.addWritable(address, length);
      else list.addReadable(address, length);
      for (const cut of cuts) {
        const index = cut % list.count;
        const [at, bytes] = buffersOf(list)[index];
        const pages = pagesTouched(at % XEN_PAGE_SIZE, bytes);
        assert.equal(list.split(index), pages > 1);
        const after = buffersOf(list)[index];
        if (pages > 1) assert.equal(pagesTouched(after[0] % XEN_PAGE_SIZE, after[1]), Math.ceil(pages / 2));
      }
      let end = address;
      for (const [at, bytes] of buffersOf(list)) {
        assert.ok(bytes > 0 && at === end && (at === address || at % XEN_PAGE_SIZE === 0));
        end += bytes;
      }
      assert.equal(end, address + length);
      assert.equal(list.readable, writable ? 0 : list.count);
      assert.equal(list.writableBytes, writable ? length : 0);
    }),
    { seed: 8, numRuns: 300 },
  );
});
