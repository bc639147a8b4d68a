// Suspended domains as bytes: what goes in comes out, with an empty grant table; what is damaged makes no domain.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import { SHUTDOWN_SUSPEND } from './domains.ts';
import { ENOSPC } from './errno.ts';
import { addDomain, bootTestMachine, TEST_PAGES } from './domains.test.helper.ts';
import { sharedEntries } from './grants/recount.test.helper.ts';

/** A domain with a few pages that are not zero and a grant, suspended. */
function suspended() {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 5, { vcpus: 2, maxGrantFrames: 3, maxMaptrackFrames: 2 });
  const { u8 } = guest.ports.memory.region;
  for (const page of [0, 1, 2, 7, TEST_PAGES - 1])
    for (let byte = 0; byte < XEN_PAGE_SIZE; byte += 5) u8[page * XEN_PAGE_SIZE + byte] = page + byte;
  guest.ports.grantTable.grant(8 as GrantRef, 1, guest.id, 1 as FrameNumber, true);
  xen.domains.shutDown(guest.record, SHUTDOWN_SUSPEND);
  return { xen, guest, image: Buffer.concat([...xen.saveDomain(5)]) };
}

test('a domain goes on in another machine with its memory and limits, paused, and an empty grant table', () => {
  const { guest, image } = suspended();
  const other = bootTestMachine();
  addDomain(other, 1);
  const record = other.restoreDomain(9, [image]);
  assert.equal(record.pauseCount, 1);
  assert.deepEqual(
    [record.ramFrames, record.vcpus, record.maxGrantFrames, record.maxMaptrackFrames, record.grantFrames],
    [TEST_PAGES, 2, 3, 2, 1],
  );
  const restored = { xen: other, id: record.id, record, ports: other.ports(record.id, () => false) };
  assert.deepEqual(restored.ports.memory.region.u8.slice(), guest.ports.memory.region.u8.slice());
  assert.deepEqual(sharedEntries(restored), []);
});

test('a domain that goes on elsewhere may have as many event channels as before', () => {
  const xen = bootTestMachine();
  const { record, id } = addDomain(xen, 5, { maxEventChannels: 2 });
  xen.domains.shutDown(record, SHUTDOWN_SUSPEND);
  const other = bootTestMachine();
  other.restoreDomain(5, xen.saveDomain(5));
  const { events } = other.ports(id, () => false);
  assert.deepEqual([events.allocateUnbound(id), events.allocateUnbound(id)], [1, 2]);
  assert.equal(events.allocateUnbound(id), ENOSPC);
});

test('pages of zeroes take no room', () => {
  const { image } = suspended();
  assert.ok(image.length < 6 * XEN_PAGE_SIZE);
});

test('a domain that runs cannot be saved', () => {
  const xen = bootTestMachine();
  addDomain(xen, 5);
  assert.throws(() => [...xen.saveDomain(5)], /domain 5 has not suspended itself/);
});

test('an image may be cut into pieces anywhere', () => {
  const { guest, image } = suspended();
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: image.length }), { maxLength: 20 }), (cuts) => {
      const ends = [...cuts.sort((a, b) => a - b), image.length];
      const pieces = ends.map((end, index) => image.subarray(ends[index - 1] ?? 0, end));
      const xen = bootTestMachine();
      const record = xen.restoreDomain(5, pieces);
      const { memory } = xen.ports(record.id, () => false);
      assert.deepEqual(memory.region.u8.slice(), guest.ports.memory.region.u8.slice());
    }),
    { seed: 5, numRuns: 20 },
  );
});

test('an image that was cut off or changed makes no domain, and the machine is as it was', () => {
  const { image } = suspended();
  const xen = bootTestMachine();
  const before = xen.free;
  fc.assert(
    fc.property(fc.nat(image.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, bits, cut) => {
      const bad = cut ? image.subarray(0, at) : Buffer.from(image);
      if (!cut) bad[at] ^= bits;
      assert.throws(() => xen.restoreDomain(5, [bad]), { name: 'DomainImageError' });
      assert.throws(() => xen.domain(5), /there is no domain 5/);
      assert.deepEqual(xen.free, before);
    }),
    { seed: 6, numRuns: 300 },
  );
});
