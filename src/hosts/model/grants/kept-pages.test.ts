// Pages that outlive their domain: they stay whose they are, as long as they are held, and are given back once, in
// whatever order domains die that hold on to each other.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GNTST_OKAY } from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, type TestDomain } from '../domains.test.helper.ts';
import { Machine } from '../state.ts';
import { destroy, grant, machine, map, PAGE, REF, unmap } from '../teardown.test.helper.ts';
import { Xen } from '../xen.ts';
import { CopyBench, reference } from './copying.test.helper.ts';
import { passOn } from './entries.test.helper.ts';
import { recount } from './recount.test.helper.ts';
import { placeTableFrame } from './table-ops.ts';

test('a frame of its own grant table that a domain had granted is given back once, when the last mapping goes', () => {
  for (const [version, gfnOf] of [
    [1, ({ record }: TestDomain) => record.map.grantTable],
    [2, ({ record }: TestDomain) => record.map.grantStatus],
  ] as const) {
    const { xen, peer, granter, before } = machine();
    granter.ports.grantTable.setVersion(version);
    if (version === 2) placeTableFrame(new Machine(xen.state), granter.record, 0, true, gfnOf(granter));
    grant(granter, REF, peer, gfnOf(granter));
    const handle = map(peer, 0, REF, 2);
    assert.ok(handle >= 0);
    destroy(xen, 2);
    recount([peer], [granter]);
    assert.equal(unmap(peer, 0, handle), GNTST_OKAY);
    assert.deepEqual(xen.free, before);
  }
});

test('H7: a page that two entries grant stays until both are let go of, whichever goes first and when', () => {
  for (const [first, second] of [
    [REF, 1200],
    [1200, REF],
  ]) {
    for (let step = 0, done = false; !done; step++) {
      const { xen, peer, granter, before } = machine({ maxGrantFrames: 3 });
      granter.ports.grantTable.grow(3 * 512);
      granter.ports.memory.region.u8.fill(0x5a);
      grant(granter, first, peer);
      grant(granter, second, peer);
      const [one, other] = [map(peer, 0, first, 2), map(peer, 1, second, 2)];
      const teardown = xen.destroyDomain(2);
      for (let taken = 0; taken < step && !done; taken++) done = teardown.next().done === true;
      assert.equal(unmap(peer, 0, one), GNTST_OKAY);
      for (const _ of teardown);
      recount([peer], [granter]);
      const page = peer.ports.addressSpace.read((peer.record.window + 1) * XEN_PAGE_SIZE, XEN_PAGE_SIZE);
      assert.ok(
        page.every((byte) => byte === 0x5a),
        `the page is still there, after ${step} steps`,
      );
      assert.equal(unmap(peer, 1, other), GNTST_OKAY);
      assert.deepEqual(xen.free, before);
    }
  }
});

test('a domain that had passed a page on dies while it is copied: the page stays whose it is', () => {
  const made = new CopyBench(2);
  const { xen, granter, copier, third } = made;
  made.grant(REF, PAGE, false, third, granter);
  made.grant(REF + 1, PAGE + 1, false, third, copier);
  passOn(granter, REF, 1, 3, REF);
  const contents = made.page(third, PAGE).slice();
  const frames = xen.free.frames + granter.record.ramFrames + 3 + 1 + 1;
  const status = made.copyWhile(reference(2, REF), reference(3, REF + 1), 4096, (other) => destroy(other, 2));
  assert.equal(status, GNTST_OKAY);
  assert.deepEqual(made.page(third, PAGE).slice(), contents);
  assert.deepEqual(made.page(third, PAGE + 1).slice(), contents);
  assert.equal(xen.free.frames, frames);
  assert.equal(xen.domains.find(2), undefined);
  recount([copier, third]);
});

test('whoever asks for a reference of a domain whose table is being given back is refused, and does not wait', () => {
  const { xen, peer, before } = machine({ maxGrantFrames: 4 });
  xen.domain(2);
  const granter = xen.ports(xen.domain(2).id, () => false).grantTable;
  granter.grow(4 * 512);
  const machineState = new Machine(xen.state);
  let asked = 0;
  for (const _ of xen.destroyDomain(2)) {
    // What is given back is somebody else's at once, and full of their words.
    const taken: number[] = [];
    for (let page = machineState.takePages(1); page !== 0; page = machineState.takePages(1)) {
      machineState.heap.fill(1, page, page + 1024);
      taken.push(page);
    }
    for (const ref of [REF, 511, 512, 1024, 2047]) {
      assert.ok(map(peer, 0, ref, 2) < 0);
      asked++;
    }
    assert.ok(
      taken.every((page) => machineState.heap.subarray(page, page + 1024).every((word) => word === 1)),
    );
    for (const page of taken) machineState.givePages(page, 1);
  }
  assert.ok(asked > 50);
  assert.deepEqual(xen.free, before);
});

test('H22: of pages that outlive their domain a step gives one back at most', () => {
  const { xen, before } = machine();
  const granter = xen.domain(2);
  const holder = addDomain(xen, 3, { maxMaptrackFrames: 2 });
  const withHolder = xen.free;
  for (let ref = REF; ref < 60; ref++)
    grant(
      { xen, id: granter.id, record: granter, ports: xen.ports(granter.id, () => false) },
      ref,
      holder,
      ref - REF,
    );
  for (let ref = REF; ref < 60; ref++) assert.ok(map(holder, ref, ref, 2) >= 0);
  destroy(xen, 2);
  assert.equal(xen.free.frames, withHolder.frames + 64 + 3 - 52);
  const given: number[] = [];
  let { frames } = xen.free;
  for (const _ of xen.destroyDomain(3)) {
    given.push(xen.free.frames - frames);
    ({ frames } = xen.free);
  }
  assert.deepEqual(given.slice(0, 51), Array(51).fill(1));
  assert.deepEqual(xen.free, before);
});

/** What happens to five domains that map each other. */
const event = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constant('map' as const), fc.nat(4), fc.nat(4), fc.nat(3)) },
  { weight: 3, arbitrary: fc.tuple(fc.constant('unmap' as const), fc.nat(4), fc.nat(), fc.nat()) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('begin to end' as const), fc.nat(4), fc.nat(), fc.nat()) },
  { weight: 8, arbitrary: fc.tuple(fc.constant('step' as const), fc.nat(4), fc.nat(3), fc.nat()) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('create' as const), fc.nat(4), fc.nat(), fc.nat()) },
);

class Village {
  readonly xen = Xen.boot(3 << 20, 3 << 20, false);
  readonly before = this.xen.free;
  readonly alive = new Map<number, TestDomain>();
  readonly ending = new Map<number, Generator<void>>();
  /** Mappings of domains that live. */
  held: { readonly holder: TestDomain; readonly place: number; readonly handle: number }[] = [];
  #places = 0;

  create(id: number): void {
    if (this.alive.has(id) || this.ending.has(id)) return;
    // The id is taken as long as pages of the dead one are mapped.
    if (this.xen.domains.find(id)) assert.throws(() => addDomain(this.xen, id), /exists already/);
    else {
      const domain = addDomain(this.xen, id, { memory: 16 * XEN_PAGE_SIZE, maxGrantFrames: 3 });
      domain.ports.grantTable.grow(3 * 512);
      this.alive.set(id, domain);
      // Every frame is granted through two references, far apart.
      for (let peer = 0; peer < 5; peer++)
        for (let kind = 0; kind < 4; kind++)
          domain.ports.grantTable.grant(
            ((kind % 2) * 1200 + REF + peer * 4 + kind) as GrantRef,
            1,
            peer as never,
            (kind === 3 ? domain.record.map.grantTable : PAGE + (kind >> 1)) as FrameNumber,
            false,
          );
    }
  }

  map(id: number, owner: number, kind: number): void {
    const holder = this.alive.get(id);
    if (holder === undefined) return;
    const place = this.#places++ % 200;
    if (this.held.some((each) => each.holder === holder && each.place === place)) return;
    const handle = map(holder, place, (kind % 2) * 1200 + REF + id * 4 + kind, owner);
    assert.equal(handle >= 0, this.alive.has(owner), `map of domain ${owner}`);
    if (handle >= 0) this.held.push({ holder, place, handle });
  }

  unmap(which: number): void {
    if (this.held.length === 0) return;
    const [{ holder, place, handle }] = this.held.splice(which % this.held.length, 1);
    assert.equal(unmap(holder, place, handle), GNTST_OKAY);
  }

  beginToEnd(id: number): void {
    const domain = this.alive.get(id);
    if (domain === undefined) return;
    this.alive.delete(id);
    this.held = this.held.filter(({ holder }) => holder !== domain);
    const teardown = this.xen.destroyDomain(id);
    this.ending.set(id, teardown);
    teardown.next();
  }

  step(id: number, steps: number): void {
    for (let step = 0; step <= steps; step++) if (this.ending.get(id)?.next().done) this.ending.delete(id);
  }

  /** Everybody ends, and the machine is as it was switched on. */
  end(): void {
    for (const id of this.alive.keys()) this.beginToEnd(id);
    while (this.ending.size > 0) for (const id of this.ending.keys()) this.step(id, 0);
    assert.deepEqual(this.xen.free, this.before);
    for (let id = 0; id < 5; id++) assert.equal(this.xen.domains.find(id), undefined);
  }
}

test('domains that map each other die in any order, step by step and side by side, and everything comes back', () => {
  fc.assert(
    fc.property(fc.array(event, { minLength: 20, maxLength: 90 }), (events) => {
      const village = new Village();
      for (let id = 0; id < 5; id++) village.create(id);
      for (const [kind, id, other, more] of events) {
        if (kind === 'map') village.map(id, other, more);
        else if (kind === 'unmap') village.unmap(other);
        else if (kind === 'begin to end') village.beginToEnd(id);
        else if (kind === 'step') village.step(id, other * 8);
        else village.create(id);
      }
      if (village.ending.size === 0) recount([...village.alive.values()]);
      village.end();
    }),
    { seed: 380, numRuns: 60 },
  );
});
