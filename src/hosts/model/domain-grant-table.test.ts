// Ending access while the backend acts between any two steps of the guest.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainId, FrameNumber, GrantRef } from '../../xen/ids.ts';
import { GTF_PERMIT_ACCESS, GTF_READONLY, GTF_SUB_PAGE } from '../../abi/grant.ts';
import { addDomain, bootTestMachine } from './domains.test.helper.ts';
import { entryV2 } from './grants/entries.test.helper.ts';
import { headerWord } from './grants/shared-entry.ts';

const REF = 8 as GrantRef;
const FRAME = 3 as FrameNumber;

function machine(version: number) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const peer = addDomain(xen, 1);
  const { grantTable } = granter.ports;
  assert.equal(grantTable.setVersion(version), 0);
  grantTable.grant(REF, 1, peer.id, FRAME, false);
  const map = () => peer.ports.grantMapper.map(granter.id, REF, false);
  return { xen, granter, peer, grantTable, map };
}

test('G12: a backend that maps between the look at the flags and the swap makes the revoke fail', (t) => {
  const { xen, granter, grantTable, peer, map } = machine(1);
  const words = new Int32Array(xen.state.memory);
  const word = headerWord(granter.record, REF, 1);
  const { load } = Atomics;
  let looks = 0;
  let place = -1;
  t.mock.method(Atomics, 'load', (array: Int32Array, index: number) => {
    const seen = load(array, index);
    if (index === word && array.buffer === words.buffer && ++looks === 1) place = map();
    return seen;
  });
  assert.equal(grantTable.revoke(REF, 1), 1);
  assert.ok(place >= 0, 'the backend did map');
  assert.ok(!grantTable.isFree(REF));
  assert.equal(peer.ports.grantMapper.unmap(place), 0);
  assert.equal(grantTable.revoke(REF, 1), 0);
  assert.ok(grantTable.isFree(REF));
});

for (const version of [1, 2]) {
  test(`G10: what is mapped is busy until it is unmapped, version ${version}`, () => {
    const { grantTable, peer, map } = machine(version);
    const place = map();
    for (let tries = 0; tries < 3; tries++) {
      assert.equal(grantTable.revoke(REF, 1), 1);
      assert.ok(!grantTable.isFree(REF));
    }
    assert.equal(peer.ports.grantMapper.unmap(place), 0);
    assert.equal(grantTable.revoke(REF, 1), 0);
    assert.ok(grantTable.isFree(REF));
    assert.ok(map() < 0);
  });
}

test('H14 H15: a part of a page is granted as the ABI says, and cannot be mapped', () => {
  const { granter, peer, grantTable, map } = machine(2);
  const ref = (REF + 1) as GrantRef;
  for (const [offset, length, readonly] of [
    [17, 5, false],
    [0, 4096, true],
    [4095, 1, false],
  ] as const) {
    grantTable.grantPart(ref, peer.id, FRAME, offset, length, readonly);
    const { flags, domid, page_off, length: size, frameLow, frameHigh } = entryV2(granter, ref).sub;
    assert.deepEqual(
      { flags, domid, page_off, size, frameLow, frameHigh },
      {
        flags: GTF_PERMIT_ACCESS | GTF_SUB_PAGE | (readonly ? GTF_READONLY : 0),
        domid: peer.id,
        page_off: offset,
        size: length,
        frameLow: FRAME,
        frameHigh: 0,
      },
    );
    assert.ok(peer.ports.grantMapper.map(granter.id, ref, true) < 0);
    assert.ok(!grantTable.isFree(ref));
    assert.equal(grantTable.revoke(ref, 1), 0);
    assert.ok(grantTable.isFree(ref));
  }
  assert.ok(map() >= 0, 'the whole page beside it still can');
});

test('the flags of an entry are published last', (t) => {
  const { granter, peer, grantTable } = machine(2);
  const word = headerWord(granter.record, REF + 1, 2);
  const { store } = Atomics;
  const seen: number[][] = [];
  t.mock.method(Atomics, 'store', (array: Int32Array, index: number, value: number) => {
    if (index === word) seen.push([...array.subarray(word + 1, word + 4)]);
    return store(array, index, value);
  });
  grantTable.grantPart((REF + 1) as GrantRef, peer.id, FRAME, 100, 200, false);
  assert.deepEqual(seen, [[100 | (200 << 16), FRAME, 0]]);
});

test('XSA-268: a table on Arm, and one of version 1 elsewhere, cannot grant parts of pages', () => {
  const arm = addDomain(bootTestMachine(), 2, { architecture: 'arm' }).ports.grantTable;
  assert.ok(arm.setVersion(2) < 0);
  assert.ok(!arm.grantsParts);
  const { grantTable } = machine(1);
  assert.ok(!grantTable.grantsParts);
  assert.throws(() => grantTable.grantPart(REF, 1 as DomainId, FRAME, 0, 1, false), /version 2/);
  assert.equal(grantTable.setVersion(2), 0);
  assert.ok(grantTable.grantsParts);
});
