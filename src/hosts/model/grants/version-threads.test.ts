// H8 and H9 on real threads: a granter switches between versions, grows its table and grants, while two processors of
// its peer map, copy and unmap, references among them that only version 1 has.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import { GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTST_OKAY } from '../../../abi/grant.ts';
import { DOMID_SELF } from '../../../abi/xen.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EBUSY } from '../errno.ts';
import { meet, myPart, newStage, perform, type Stage } from '../threads.test.helper.ts';
import { grantPart } from './entries.test.helper.ts';
import { recount } from './recount.test.helper.ts';

const GRANTER = 2 as DomainId;
const PEER = 1 as DomainId;
const ROUNDS = 400;
/** Rounds after which the race ends though the threads have not met in it often enough. */
const MOST_ROUNDS = 20 * ROUNDS;
const FRAME = 3 as FrameNumber;
const PART = 9;
/** References that are granted: the last is none in version 2. */
const REFS = [0, 8, 300];

// Words of the stage.
const DONE = 0;
const SWITCHED = 1;
const BUSY = 2;
const UNEXPECTED = 3;
const MAPPED = 4;
const COPIED = 5;
const LEFT = 6;

const never = () => false;

function switchVersions(stage: Stage): void {
  const { xen, words } = stage;
  const ports = xen.ports(GRANTER, never);
  const granter: TestDomain = { xen, id: GRANTER, record: xen.domain(GRANTER), ports };
  const { grantTable } = ports;
  const enough = () => Math.min(words[SWITCHED], words[BUSY], words[MAPPED], words[COPIED]) >= 20;
  meet(stage, 3);
  for (let round = 0; round < MOST_ROUNDS && (round < ROUNDS || !enough()); round++) {
    for (const ref of REFS)
      if (ref < grantTable.entries && grantTable.isFree(ref as GrantRef))
        grantTable.grant(ref as GrantRef, 1, PEER, FRAME, false);
    if (grantTable.version === 2) grantPart(granter, PART, PEER, FRAME, [0, 100]);
    for (let spins = (round % 40) * 5; spins > 0; spins--) Atomics.load(words, DONE);
    const result = grantTable.setVersion(3 - grantTable.version);
    if (result === 0) words[SWITCHED]++;
    // Parts of pages are copied through references above the reserved ones only: never -EAGAIN before -EBUSY.
    else if (result === EBUSY) words[BUSY]++;
    else words[UNEXPECTED]++;
  }
  Atomics.store(words, DONE, 1);
}

function mapAndCopy(stage: Stage, processor: number): void {
  const { xen, words } = stage;
  const record = xen.domain(PEER);
  const place = record.window + processor;
  const dest = { domain: DOMID_SELF, page: FRAME + processor, offset: 0 };
  meet(stage, 3);
  for (let round = 0; Atomics.load(words, DONE) === 0; round++) {
    const ref = REFS[round % REFS.length];
    const flags = GNTMAP_HOST_MAP | (round % 2 === 0 ? GNTMAP_READONLY : 0);
    const handle = xen.grants.map(record, place, flags, ref, GRANTER);
    const source = { domain: GRANTER, page: round % 2 === 0 ? PART : ref, offset: 0 };
    if (xen.copies.copy(record, source, dest, 100, GNTCOPY_SOURCE_GREF) === GNTST_OKAY)
      Atomics.add(words, COPIED, 1);
    if (handle < 0) continue;
    Atomics.add(words, MAPPED, 1);
    if (xen.grants.unmap(record, place, handle) !== GNTST_OKAY) Atomics.add(words, LEFT, 1);
  }
}

if (isMainThread) {
  test('H8 H9 XSA-379: versions switch while two processors map and copy: nothing is lost, and all adds up', async () => {
    const xen = bootTestMachine(true);
    const domains = [addDomain(xen, PEER, { vcpus: 2 }), addDomain(xen, GRANTER)];
    const before = xen.free.frames;
    const stage = newStage(xen);
    await perform(import.meta.url, stage, ['switch', 'map 0', 'map 1']);
    const { words } = stage;
    assert.deepEqual([words[UNEXPECTED], words[LEFT]], [0, 0]);
    assert.ok(
      Math.min(words[SWITCHED], words[BUSY], words[MAPPED], words[COPIED]) > 0,
      `the threads met: ${words}`,
    );
    recount(domains);
    assert.equal(xen.ports(GRANTER, never).grantTable.setVersion(1), 0);
    assert.equal(xen.free.frames, before);
  });
} else {
  const stage = myPart();
  if (stage.part === 'switch') switchVersions(stage);
  else mapAndCopy(stage, Number(stage.part.slice(-1)));
}
