// Memory for rings and tables: exact pages, zeroed to their end, granted for as long as they are allocated.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { CoherentMemory } from './coherent.ts';
import { checkNothingShared, grantedFrames, newSharing, takePages } from './sharing.test.helper.ts';

function coherent(pages = 64) {
  const sharing = newSharing({ pages });
  return { sharing, memory: sharing.domain.memory, coherent: new CoherentMemory(sharing.grants, 0) };
}

for (const [size, pages] of [
  [1, 1],
  [XEN_PAGE_SIZE, 1],
  [XEN_PAGE_SIZE + 1, 2],
  [5 * XEN_PAGE_SIZE, 5],
  [5 * XEN_PAGE_SIZE - 1, 5],
]) {
  test(`R10: ${size} bytes are ${pages} pages, no power of two, all of them granted and zero to the end`, () => {
    const { sharing, memory, coherent: rings } = coherent();
    // What lay in these pages before.
    const used = takePages(sharing, 64);
    sharing.u8.fill(0x5e);
    memory.freePages(used, 64);
    const buffer = rings.allocate(size)!;
    assert.equal(memory.pagesFree, 64 - pages);
    assert.deepEqual([buffer.size, buffer.address % XEN_PAGE_SIZE], [size, 0]);
    const frame = buffer.address / XEN_PAGE_SIZE;
    assert.deepEqual(
      grantedFrames(sharing),
      Array.from({ length: pages }, (_, page) => ({ frame: frame + page, readonly: false })),
    );
    for (const page of sharing.backend.reach()) assert.ok(page.bytes.every((byte) => byte === 0));
    assert.ok(rings.free(buffer));
    assert.equal(memory.pagesFree, 64);
    checkNothingShared(sharing);
  });
}

test('G14: what was in it is wiped before its pages are anybody else’s, or stay with the backend', () => {
  const { sharing, memory, coherent: rings } = coherent();
  const buffer = rings.allocate(2 * XEN_PAGE_SIZE)!;
  sharing.u8.fill(0x5e, buffer.address, buffer.address + 2 * XEN_PAGE_SIZE);
  const handle = sharing.backend.map(grantAddressRef(buffer.low, buffer.high));
  assert.ok(!rings.free(buffer));
  assert.ok(sharing.backend.read(handle, 0, XEN_PAGE_SIZE).every((byte) => byte === 0));
  assert.ok(sharing.u8.every((byte) => byte === 0));
  assert.equal(memory.pagesFree, 63);
  sharing.backend.unmap(handle);
  assert.equal(sharing.grants.retry(), 1);
  assert.equal(memory.pagesFree, 64);
});

test('without pages or without references nothing is allocated and nothing is left behind', () => {
  const { sharing, memory, coherent: rings } = coherent();
  assert.equal(rings.allocate(65 * XEN_PAGE_SIZE), undefined);
  assert.equal(memory.pagesFree, 64);
  checkNothingShared(sharing);
  const refs = sharing.domain.references.allocate(503);
  assert.equal(rings.allocate(2 * XEN_PAGE_SIZE), undefined);
  assert.equal(memory.pagesFree, 64);
  const buffer = rings.allocate(1)!;
  assert.ok(rings.free(buffer));
  sharing.domain.references.release(refs, 503);
  checkNothingShared(sharing);
});

test('G18: memory is freed once, and only what was allocated', () => {
  const { sharing, coherent: rings } = coherent();
  assert.throws(() => rings.allocate(0), { name: 'AssertionError' });
  const buffer = rings.allocate(XEN_PAGE_SIZE)!;
  assert.throws(() => rings.free({ ...buffer, low: buffer.low + XEN_PAGE_SIZE }), { name: 'AssertionError' });
  assert.throws(() => rings.free({ ...buffer, size: XEN_PAGE_SIZE + 1 }), { name: 'AssertionError' });
  assert.equal(sharing.backend.reach().length, 1);
  assert.ok(rings.free(buffer));
  assert.throws(() => rings.free(buffer), { name: 'AssertionError' });
  checkNothingShared(sharing);
});
