// Grants on real threads. Invariant 10: a granter gives and takes back one reference while two processors of
// the peer map and unmap it. And two processors that unmap each other's handles.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTST_OKAY } from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { noTrace } from '../../../trace.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../../xen/ids.ts';
import type { AddressSpace } from '../address-space.ts';
import { addDomain, bootTestMachine, TEST_HANDLES } from '../domains.test.helper.ts';
import { lock, unlock } from '../lock.ts';
import { grantState, recount, sharedEntries } from './recount.test.helper.ts';
import { meet, myPart, newStage, perform, type Stage } from '../threads.test.helper.ts';
import type { Xen } from '../xen.ts';

const GRANTER = 2 as DomainId;
const PEER = 1 as DomainId;
const REF = 8 as GrantRef;
const FRAME = 3 as FrameNumber;
const ROUNDS = 3000;
const THEFTS = 10_000;
const OVERTAKINGS = 200;
/** Most spins between grant and revoke: about as long as a map takes. */
const WINDOW = 100;
/** Rounds after which the race ends though the threads have not met in it often enough. */
const MOST_ROUNDS = 100 * ROUNDS;
/** What stands in the page while nobody may see it. */
const SECRET = 0x5ec2e7;

// Words of the stage.
const DONE = 0;
const BUSY = 1;
const SEEN = 2;
const PINNED = 3;
const UNMAPPED = 4;
const STOLEN = 5;
const REVOKED = 6;
const PAUSE = 7;
/** For each processor of the peer, the handle it holds plus one, to be stolen by the other. */
const HELD = 8;
const MAPPED = 16;

const never = () => false;

function showsSecret(space: AddressSpace, gfn: number): boolean {
  return new DataView(space.read(gfn * XEN_PAGE_SIZE, 4).buffer).getInt32(0, true) === SECRET;
}

/** Grants, takes back, and uses the page for something else. */
function grantAndRevoke(stage: Stage): void {
  const { xen, words } = stage;
  const { grantTable, memory } = xen.ports(GRANTER, never, noTrace);
  const record = xen.domain(GRANTER);
  const at = (FRAME * XEN_PAGE_SIZE) / 4;
  const enough = () => Math.min(words[BUSY], words[MAPPED], words[MAPPED + 1]) >= 50;
  meet(stage, 3);
  for (let round = 0; round < MOST_ROUNDS && (round < ROUNDS || !enough()); round++) {
    grantTable.grant(REF, 1, PEER, FRAME, round % 3 === 0);
    for (let spins = round % WINDOW; spins > 0; spins--) Atomics.load(words, PAUSE);
    for (let tries = 0; grantTable.revoke(REF, 1) > 0; tries++) {
      Atomics.add(words, BUSY, 1);
      // Two that map in turn could hold the page for ever.
      if (tries === 100) Atomics.store(words, PAUSE, 1);
    }
    Atomics.store(memory.region.i32, at, SECRET);
    if (xen.grants.pins(record, REF) !== 0) Atomics.add(words, PINNED, 1);
    Atomics.add(words, REVOKED, 1);
    Atomics.store(memory.region.i32, at, 0);
    Atomics.store(words, PAUSE, 0);
  }
  Atomics.store(words, DONE, 1);
}

/** One processor of the peer: maps, looks, and unmaps. */
function mapAndLook(stage: Stage, processor: number): void {
  const { xen, words } = stage;
  const record = xen.domain(PEER);
  const { addressSpace } = xen.ports(PEER, never, noTrace);
  const gfn = record.window + processor;
  meet(stage, 3);
  for (let round = 0; Atomics.load(words, DONE) === 0; round++) {
    const flags = GNTMAP_HOST_MAP | (round % 2 === 0 ? GNTMAP_READONLY : 0);
    if (Atomics.load(words, PAUSE) !== 0) continue;
    const handle = xen.grants.map(record, gfn, flags, REF, GRANTER);
    if (handle < 0) continue;
    Atomics.add(words, MAPPED + processor, 1);
    for (let looks = 0; looks < 20; looks++) if (showsSecret(addressSpace, gfn)) Atomics.add(words, SEEN, 1);
    if (xen.grants.unmap(record, gfn, handle) === GNTST_OKAY) Atomics.add(words, UNMAPPED, 1);
  }
}

/** One processor of the peer: maps one reference or the other, and unmaps its handle and the other's. */
function mapAndSteal(stage: Stage, processor: number): void {
  const { xen, words } = stage;
  const record = xen.domain(PEER);
  const other = 1 - processor;
  // Where two mappings of one page stand, either handle ends either of them.
  const unmap = (owner: number, handle: number) =>
    handle >= 0 &&
    [owner, 1 - owner].some(
      (place) => xen.grants.unmap(record, record.window + place, handle) === GNTST_OKAY,
    );
  meet(stage, 2);
  for (let round = 0; round < THEFTS; round++) {
    const flags = GNTMAP_HOST_MAP | (round % 3 === 0 ? GNTMAP_READONLY : 0);
    const handle = xen.grants.map(record, record.window + processor, flags, REF + (round % 2), GRANTER);
    if (handle >= 0) Atomics.add(words, MAPPED + processor, 1);
    Atomics.store(words, HELD + processor, handle + 1);
    for (let tries = 0; tries < 3; tries++)
      if (unmap(other, Atomics.load(words, HELD + other) - 1)) Atomics.add(words, STOLEN, 1);
    if (unmap(processor, handle)) Atomics.add(words, UNMAPPED, 1);
  }
}

/**
 * Maps reference 8, and while the other processor waits for that entry's lock to unmap it, unmaps it first and
 * maps reference 9: the same page, at the same place, by the same handle.
 */
function overtake(stage: Stage): void {
  const { xen, words } = stage;
  const heap = new Int32Array(xen.state.heap);
  const record = xen.domain(PEER);
  const entry = xen.domain(GRANTER).activeEntry(REF);
  for (let round = 0; round < OVERTAKINGS; round++) {
    const handle = xen.grants.map(record, record.window, GNTMAP_HOST_MAP, REF, GRANTER);
    Atomics.store(words, HELD, handle);
    lock(heap, entry);
    meet(stage, 2);
    // Somebody sleeps on the lock: the other processor has looked at the handle.
    while (Atomics.notify(heap, entry) === 0 && Atomics.load(words, DONE) === round);
    unlock(heap, entry);
    const first = xen.grants.unmap(record, record.window, handle) === GNTST_OKAY;
    // If the other processor was first after all, it may not have given the handle back yet.
    const next = first ? mapByHandle(stage, handle) : -1;
    meet(stage, 2);
    if (!first) continue;
    Atomics.add(words, UNMAPPED, 1);
    if (xen.grants.unmap(record, record.window, next) !== GNTST_OKAY) Atomics.add(words, STOLEN, 1);
  }
}

/** Maps reference 9 again and again until `handle` stands for it; -1 when that never happens. */
function mapByHandle({ xen }: Stage, handle: number): number {
  const record = xen.domain(PEER);
  for (let tries = 0; tries < 2 * TEST_HANDLES; tries++) {
    const next = xen.grants.map(record, record.window, GNTMAP_HOST_MAP, REF + 1, GRANTER);
    if (next === handle) return next;
    if (next >= 0) xen.grants.unmap(record, record.window, next);
  }
  return -1;
}

/** Takes all handles but three, so that one that is given back soon comes again. */
function takeHandles(xen: Xen): void {
  const record = xen.domain(PEER);
  for (let taken = 0; taken < TEST_HANDLES - 3; taken++) {
    const flags = GNTMAP_HOST_MAP | (taken % 2 === 0 ? GNTMAP_READONLY : 0);
    assert.ok(xen.grants.map(record, record.window + 1 + taken, flags, REF + 2, GRANTER) >= 0);
  }
}

function beOvertaken(stage: Stage): void {
  const { xen, words } = stage;
  const record = xen.domain(PEER);
  for (let round = 0; round < OVERTAKINGS; round++) {
    meet(stage, 2);
    const status = xen.grants.unmap(record, record.window, Atomics.load(words, HELD));
    if (status === GNTST_OKAY) Atomics.add(words, UNMAPPED, 1);
    Atomics.add(words, DONE, 1);
    meet(stage, 2);
  }
}

if (isMainThread) {
  test('10 G12: once revoke has succeeded the page is not mapped and cannot be, whoever races', async () => {
    const xen = bootTestMachine(true);
    const domains = [addDomain(xen, PEER), addDomain(xen, GRANTER)];
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['grant', 'look 0', 'look 1']);
    const { words } = stage;
    assert.equal(words[SEEN], 0, 'a page was seen after access to it had been ended');
    assert.equal(words[PINNED], 0, 'an entry was pinned after it had been revoked');
    assert.equal(words[UNMAPPED], words[MAPPED] + words[MAPPED + 1]);
    assert.ok(
      words[REVOKED] >= ROUNDS && words[BUSY] > 0 && words[UNMAPPED] > 0,
      `the threads met: ${words}`,
    );
    recount(domains);
    assert.deepEqual(sharedEntries(domains[1]), []);
    assert.deepEqual(grantState(domains)[0].mappings, []);
  });

  test('H3 H21: a handle that two threads unmap at once ends one mapping once, and is not lost', async () => {
    const xen = bootTestMachine(true);
    const [peer, granter] = [addDomain(xen, PEER), addDomain(xen, GRANTER)];
    granter.ports.grantTable.grant(REF, 2, PEER, FRAME, false);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['steal 0', 'steal 1']);
    const { words } = stage;
    assert.ok(words[STOLEN] > 0, 'the threads met');
    assert.equal(words[UNMAPPED] + words[STOLEN], words[MAPPED] + words[MAPPED + 1]);
    assert.deepEqual(grantState([peer])[0].mappings, []);
    recount([peer, granter]);
    assert.equal(granter.ports.grantTable.revoke(REF, 2), 0);
  });

  test('H3: a handle that is reused while a thread is about to unmap it keeps its new mapping', async () => {
    const xen = bootTestMachine(true);
    const [peer, granter] = [addDomain(xen, PEER), addDomain(xen, GRANTER)];
    for (const ref of [REF, REF + 1, REF + 2])
      granter.ports.grantTable.grant(ref as GrantRef, 1, PEER, FRAME, false);
    takeHandles(xen);
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['overtake', 'be overtaken']);
    assert.equal(stage.words[STOLEN], 0);
    assert.equal(stage.words[UNMAPPED], OVERTAKINGS);
    recount([peer, granter]);
    assert.equal(granter.ports.grantTable.revoke(REF, 2), 0);
  });
} else {
  const stage = myPart();
  const processor = Number(stage.part.slice(-1));
  if (stage.part === 'grant') grantAndRevoke(stage);
  else if (stage.part.startsWith('look')) mapAndLook(stage, processor);
  else if (stage.part.startsWith('steal')) mapAndSteal(stage, processor);
  else if (stage.part === 'overtake') overtake(stage);
  else beOvertaken(stage);
}
