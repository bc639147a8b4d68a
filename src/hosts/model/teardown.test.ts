// Domains that end: in slices that block nobody, with everything given back, and the id free for a new domain. What
// others hold of them meanwhile is in grants/kept-pages.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withPreemption } from '../../../test/support/preemption.test.helper.ts';
import { GNTST_BAD_DOMAIN, GNTST_GENERAL_ERROR, GNTST_OKAY } from '../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { GrantRef } from '../../xen/ids.ts';
import { addDomain, type TestDomain } from './domains.test.helper.ts';
import { recount, sharedEntries } from './grants/recount.test.helper.ts';
import { destroy, grant, machine, map, mapper, PAGE, READONLY, REF, unmap } from './teardown.test.helper.ts';
import { Xen } from './xen.ts';

test('a domain that nobody holds on to gives back all that it had, and its id', () => {
  for (const options of [{}, { maxGrantFrames: 5 }, { kind: 'pv' }, { vcpus: 4 }] as const) {
    const { xen, granter, before } = machine(options);
    granter.ports.grantTable.grow(5 * 512);
    granter.ports.grantTable.setVersion(2);
    destroy(xen, 2);
    assert.deepEqual(xen.free, before);
    assert.equal(xen.domains.find(2), undefined);
    assert.ok(!granter.record.current);
  }
});

test('a domain that maps others, and itself, gives their pages back', () => {
  const { xen, peer, granter, before } = machine();
  grant(peer, REF, granter);
  grant(granter, REF, granter);
  for (let place = 0; place < 100; place++) assert.ok(map(granter, place, REF, place % 2 === 0 ? 1 : 2) >= 0);
  destroy(xen, 2);
  recount([peer]);
  assert.equal(peer.ports.grantTable.revoke(REF as GrantRef, 1), 0);
  assert.deepEqual(xen.free, before);
});

test('what others map of a dead domain stays theirs, with its contents, until the last of them lets go', () => {
  const { xen, peer, granter } = machine();
  const third = mapper(xen, 3);
  const withGranter = xen.free;
  granter.ports.memory.region.u8.fill(0x5a);
  grant(granter, REF, peer);
  grant(granter, REF + 1, third);
  grant(granter, REF + 2, peer, PAGE + 1);
  const steps = (
    [
      [peer, 0, REF],
      [peer, 2, REF + 2],
      [third, 0, REF + 1],
      [peer, 1, REF],
    ] as const
  ).map(([holder, place, ref]) => ({ holder, place, handle: map(holder, place, ref, 2) }));
  const record = xen.domain(2);
  destroy(xen, 2);
  // Nobody gets the pages meanwhile, whoever takes all the memory that there is.
  const hoard = addDomain(xen, 9, { memory: (xen.free.frames - 200) * XEN_PAGE_SIZE });
  hoard.ports.memory.region.u8.fill(0xff);
  destroy(xen, 9);
  const read = ({ ports, record: { window } }: TestDomain, place: number) =>
    ports.addressSpace.read((window + place) * XEN_PAGE_SIZE, XEN_PAGE_SIZE);
  for (const [index, { holder, place, handle }] of steps.entries()) {
    for (const step of steps.slice(index))
      assert.ok(read(step.holder, step.place).every((byte) => byte === 0x5a));
    assert.throws(() => addDomain(xen, 2), /domain 2 exists already/);
    recount([peer, third], [granter]);
    assert.equal(unmap(holder, place, handle), GNTST_OKAY);
  }
  assert.ok(!record.current);
  const again = addDomain(xen, 2);
  assert.notEqual(again.record.generation, record.generation);
  assert.deepEqual(xen.free, withGranter);
});

test('12: a new domain with the id of a dead one has none of its memory, entries, mappings, handles or ports', () => {
  const { xen, peer, granter } = machine();
  granter.ports.memory.region.u8.fill(0xee);
  granter.ports.grantTable.setVersion(2);
  grant(granter, REF, peer);
  grant(peer, REF, granter);
  assert.equal(map(granter, 0, REF, 1), 0);
  const port = granter.ports.events.allocateUnbound(peer.id);
  destroy(xen, 2);
  const { ports, record } = addDomain(xen, 2);
  assert.ok(ports.memory.region.u8.every((byte) => byte === 0));
  assert.deepEqual(
    [record.grantVersion, record.grantFrames, record.statusFrames, record.maptrackLimit],
    [1, 1, 0, 0],
  );
  assert.deepEqual(sharedEntries({ ...granter, record, ports }), []);
  assert.equal(map(peer, 0, REF, 2), GNTST_GENERAL_ERROR);
  assert.equal(xen.grants.unmap(record, record.window, 0), -4);
  assert.ok(ports.events.send(port) < 0);
  assert.throws(() => ports.addressSpace.read(record.window * XEN_PAGE_SIZE, 1), /page fault/);
  // What the old one was granted is granted to the new one, as in Xen: an id is all that an entry names.
  recount([peer, { ...granter, record, ports }]);
});

test('a domain that is dying can be neither mapped nor copied from, at any step, and nothing of it is changed', () => {
  const { xen, peer, granter, before } = machine({ maxGrantFrames: 20 });
  granter.ports.grantTable.grow(20 * 512);
  grant(granter, REF, peer);
  grant(granter, 9000, peer, PAGE + 1);
  const handle = map(peer, 0, REF, 2);
  const source = { domain: 2, page: REF, offset: 0 };
  const own = { domain: DOMID_SELF, page: PAGE, offset: 0 };
  let steps = 0;
  const tries = () => {
    steps++;
    const outcomes = [
      map(peer, 5, REF, 2),
      map(peer, 5, 9000, 2, READONLY),
      xen.copies.copy(peer.record, source, own, 10, 1),
      xen.copies.copy(peer.record, own, { ...source, page: 9000 }, 10, 2),
    ];
    for (const status of outcomes) assert.ok(status < 0);
  };
  for (const _ of xen.destroyDomain(2)) tries();
  tries();
  assert.ok(steps > 10);
  assert.equal(unmap(peer, 0, handle), GNTST_OKAY);
  assert.deepEqual(xen.free, before);
  assert.deepEqual(
    [map(peer, 5, REF, 2), xen.copies.copy(peer.record, source, own, 10, 1)],
    [GNTST_BAD_DOMAIN, GNTST_BAD_DOMAIN],
  );
  recount([peer]);
});

/** Atomic accesses that one step of a teardown makes at most: the same on every machine, unlike its time. */
const MOST_WORK = 20_000;

test('H22: a domain that holds 100,000 mappings ends in small steps, between which everybody else goes on', () => {
  const xen = Xen.boot(4 << 20, 8 << 20, false);
  const granter = addDomain(xen, 2, { maxGrantFrames: 4 });
  const bystander = mapper(xen, 3);
  granter.ports.grantTable.grow(1024);
  const before = xen.free;
  const holder = addDomain(xen, 1, { maxMaptrackFrames: 400 });
  for (let ref = REF; ref < 1000; ref++) grant(granter, ref, holder);
  grant(granter, 1000, bystander);
  const count = 100_000;
  for (let place = 0; place < count; place++)
    assert.ok(map(holder, place, REF + (place % 900), 2, READONLY) >= 0);
  const left = () => {
    let pins = 0;
    for (let ref = REF; ref < 1000; ref++) pins += xen.grants.pins(granter.record, ref) >>> 8;
    return pins;
  };
  const teardown = xen.destroyDomain(1);
  let steps = 0;
  let pins = left();
  assert.equal(pins, count);
  for (let done: boolean | undefined = false; !done; steps++) {
    let work = 0;
    withPreemption(
      () => void work++,
      () => {
        ({ done } = teardown.next());
      },
    );
    assert.ok(work < MOST_WORK, `step ${steps}: ${work} accesses`);
    const now = left();
    assert.ok(pins - now <= 256, `step ${steps}: ${pins - now} mappings`);
    pins = now;
    const handle = map(bystander, 0, 1000, 2);
    assert.ok(handle >= 0);
    assert.equal(unmap(bystander, 0, handle), GNTST_OKAY);
  }
  assert.equal(pins, 0);
  assert.ok(steps >= count / 256 && steps < 1000, `${steps} steps`);
  recount([granter, bystander]);
  assert.deepEqual(xen.free, before);
  assert.equal(granter.ports.grantTable.revoke(REF as GrantRef, 900), 0);
});
