// A guest that rewrites its entry between any two steps of Xen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTMAP_HOST_MAP, GNTST_GENERAL_ERROR } from '../../../abi/grant.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import { recount } from './recount.test.helper.ts';
import { headerWord } from './shared-entry.ts';

const REF = 8 as GrantRef;
/** GTF_PWT: a flag that decides nothing. */
const IDLE_BIT = 0x20;

test('H6: a guest that changes its entry before every swap is refused after a few tries', (t) => {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const peer = addDomain(xen, 1);
  granter.ports.grantTable.grant(REF, 1, peer.id, 3 as FrameNumber, false);
  const words = new Int32Array(xen.state.memory);
  const word = headerWord(granter.record, REF, 1);
  const { compareExchange } = Atomics;
  let tries = 0;
  const swap = t.mock.method(
    Atomics,
    'compareExchange',
    (array: Int32Array, index: number, before: number, after: number) => {
      if (index === word && array.buffer === words.buffer) {
        words[word] ^= IDLE_BIT;
        assert.ok(++tries < 100, 'it is tried again and again');
      }
      return compareExchange(array, index, before, after);
    },
  );
  const { record } = peer;
  const map = () => xen.grants.map(record, record.window, GNTMAP_HOST_MAP, REF, granter.id);
  assert.equal(map(), GNTST_GENERAL_ERROR);
  assert.equal(tries, 5);
  assert.ok(!granter.ports.grantTable.isFree(REF));
  recount([granter, peer]);
  swap.mock.restore();
  assert.ok(map() >= 0, 'a guest that holds still is served');
  recount([granter, peer]);
});
