// Domains and the machine's limits: what cannot be had is refused, and the machine is as usable as before.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import { addDomain, bootTestMachine, TEST_PAGES } from './domains.test.helper.ts';
import { Xen } from './xen.ts';

/** Frames that a test domain takes: memory, shared_info, console, xenstore, and the first frame of its grant table. */
const DOMAIN_FRAMES = TEST_PAGES + 4;
/** Of every machine's memory, frame 0 is never given out. */
const machineWith = (frames: number, heap = 1 << 20) => Xen.boot((1 + frames) * XEN_PAGE_SIZE, heap, false);

test('a domain has zeroed memory of its own, and ids stay unique', () => {
  const xen = bootTestMachine();
  const one = addDomain(xen, 1);
  one.ports.memory.region.u8.fill(0xee);
  const two = addDomain(xen, 2);
  assert.ok(two.ports.memory.region.u8.every((byte) => byte === 0));
  two.ports.memory.region.u8.fill(0x22);
  assert.ok(one.ports.memory.region.u8.every((byte) => byte === 0xee));
  assert.throws(() => addDomain(xen, 1), /domain 1 exists already/);
  assert.ok(one.ports.memory.region.u8.every((byte) => byte === 0xee));
});

test('a machine with memory for one domain has that one, after any number of refusals', () => {
  const xen = machineWith(DOMAIN_FRAMES);
  for (let i = 0; i < 100; i++)
    assert.throws(() => addDomain(xen, 1, { memory: (DOMAIN_FRAMES + 1) * XEN_PAGE_SIZE }), {
      name: 'RangeError',
      message: /frames of memory left/,
    });
  const domain = addDomain(xen, 1);
  domain.ports.addressSpace.write(0, new Uint8Array(TEST_PAGES * XEN_PAGE_SIZE).fill(1));
  assert.throws(() => addDomain(xen, 2, { memory: XEN_PAGE_SIZE }), /frames of memory left/);
  assert.equal(domain.ports.addressSpace.read(TEST_PAGES * XEN_PAGE_SIZE - 1, 1)[0], 1);
});

test('memory taken for a domain for which Xen’s heap is too small is given back', () => {
  const xen = machineWith(DOMAIN_FRAMES, 1 << 19);
  for (let i = 0; i < 100; i++)
    assert.throws(() => addDomain(xen, 1, { memory: 4096, maxGrantFrames: 1 << 15 }), {
      name: 'RangeError',
      message: /pages of Xen heap/,
    });
  assert.equal(addDomain(xen, 1).ports.grantTable.entries, 512);
});

for (const [what, id, options] of [
  ['an id above the table of domains', 128, {}],
  ['a negative id', -1, {}],
  ['an id that is no whole number', 1.5, {}],
  ['no memory', 1, { memory: 0 }],
  ['memory of half a page', 1, { memory: 2048 }],
  ['memory that is not a number', 1, { memory: Number.NaN }],
  ['no frame of grant table', 1, { maxGrantFrames: 0 }],
  ['more references than maptrack can number', 1, { maxGrantFrames: 32769 }],
  ['a negative number of frames of maptrack', 1, { maxMaptrackFrames: -1 }],
  ['more handles than the window has places for', 1, { maxMaptrackFrames: 4097 }],
] as const) {
  test(`a domain with ${what} is refused, and the machine is as it was`, () => {
    const xen = bootTestMachine();
    const heap = new Int32Array(xen.state.heap);
    const before = heap.slice();
    assert.throws(() => addDomain(xen, id, options), { name: 'RangeError' });
    assert.deepEqual(heap, before);
  });
}

test('a domain of 3 GiB is more than the machine has', () => {
  const xen = bootTestMachine();
  assert.throws(() => addDomain(xen, 1, { memory: 3 * 2 ** 30 }), /frames of memory left; 786432 are needed/);
});

test('H20: a grant table grows to max_grant_frames, and asking for more changes nothing', () => {
  const xen = bootTestMachine();
  const { grantTable } = addDomain(xen, 1, { maxGrantFrames: 3 }).ports;
  assert.deepEqual([grantTable.entries, grantTable.maxEntries], [512, 1536]);
  assert.ok(grantTable.grow(513));
  assert.equal(grantTable.entries, 1024);
  assert.ok(!grantTable.grow(1537));
  assert.equal(grantTable.entries, 1024);
  assert.ok(grantTable.grow(1536));
  assert.ok(grantTable.grow(1));
  assert.equal(grantTable.entries, 1536);
});

test('H20: a grant table that the machine has no memory for does not grow, and what is granted stays', () => {
  const xen = machineWith(DOMAIN_FRAMES + 1);
  const { grantTable, grantMapper } = addDomain(xen, 1, { maxGrantFrames: 4 }).ports;
  assert.ok(!grantTable.grow(3 * 512));
  assert.equal(grantTable.entries, 512);
  assert.equal(grantMapper.map(xen.domain(1).id, 512, true), -3);
  assert.ok(grantTable.grow(2 * 512));
  assert.ok(!grantTable.grow(3 * 512));
  grantTable.grant(1023 as GrantRef, 1, xen.domain(1).id, 0 as FrameNumber, false);
  assert.equal(grantMapper.map(xen.domain(1).id, 1023, true), 0);
});

test('a machine without a frame for a domain’s first grant table frame says so', () => {
  const xen = machineWith(DOMAIN_FRAMES - 1);
  assert.throws(() => addDomain(xen, 1), { name: 'RangeError', message: /grant table/ });
});

test('an unknown domain has no record and no ports', () => {
  assert.throws(() => bootTestMachine().domain(1), /there is no domain 1/);
});
