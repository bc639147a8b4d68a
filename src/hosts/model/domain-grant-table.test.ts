// Ending access while the backend acts between any two steps of the guest.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import { addDomain, bootTestMachine } from './domains.test.helper.ts';
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
