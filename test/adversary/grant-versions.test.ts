// A guest that switches the version of its grant table while others use it, and maps what the switch takes away
// (XSA-255, XSA-384, XSA-486, XSA-501); that asks for more frames than there are (XSA-382); that is on Arm (XSA-268).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTCOPY_DEST_GREF,
  GNTCOPY_SOURCE_GREF,
  GNTTABOP_GET_STATUS_FRAMES,
  GNTTABOP_SET_VERSION,
  gnttabGetStatusFrames,
  gnttabSetVersion,
} from '../../src/abi/grant-table-op.ts';
import { GNTMAP_HOST_MAP, GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GNTST_OKAY } from '../../src/abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { addDomain, bootTestMachine } from '../../src/hosts/model/domains.test.helper.ts';
import { EAGAIN, EBUSY, ENOSYS } from '../../src/hosts/model/errno.ts';
import { ACTIVE_LOCK } from '../../src/hosts/model/grants/active-entry.ts';
import { placeTableFrame } from '../../src/hosts/model/grants/table-ops.ts';
import { Machine } from '../../src/hosts/model/state.ts';
import type { FrameNumber, GrantRef } from '../../src/xen/ids.ts';
import { entriesV2, hypercall, LIST } from '../support/grant-hypercalls.test.helper.ts';

const REF = 8 as GrantRef;
const FRAME = 3 as FrameNumber;

function machine() {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2, { maxGrantFrames: 16 });
  const peer = addDomain(xen, 1);
  const setVersion = (version: number) =>
    hypercall(granter, GNTTABOP_SET_VERSION, gnttabSetVersion, { version }).result;
  const { record } = peer;
  const map = (ref: number) => xen.grants.map(record, record.window, GNTMAP_HOST_MAP, ref, granter.id);
  return { xen, granter, peer, setVersion, map };
}

test('H8: while anything is mapped no version is left, and nothing changes', () => {
  for (const version of [1, 2]) {
    const { xen, granter, peer, setVersion, map } = machine();
    granter.ports.grantTable.setVersion(version);
    granter.ports.grantTable.grant(REF, 1, peer.id, FRAME, false);
    const handle = map(REF);
    assert.ok(handle >= 0);
    assert.equal(setVersion(3 - version), EBUSY);
    assert.equal(granter.record.grantVersion, version);
    assert.ok(!granter.ports.grantTable.isFree(REF));
    assert.equal(xen.grants.unmap(peer.record, peer.record.window, handle), GNTST_OKAY);
    assert.equal(setVersion(3 - version), 0);
    assert.equal(map(REF), GNTST_GENERAL_ERROR, 'what was granted is forgotten');
  }
});

test('H8: a switch to half as many entries, between the check of a reference and its use, is noticed', (t) => {
  const { xen, granter, peer, setVersion, map } = machine();
  const ref = 300 as GrantRef;
  granter.ports.grantTable.grant(ref, 1, peer.id, FRAME, false);
  const heap = new Int32Array(xen.state.heap);
  const word = granter.record.activeEntry(ref) + ACTIVE_LOCK;
  const { compareExchange } = Atomics;
  let looks = 0;
  t.mock.method(
    Atomics,
    'compareExchange',
    (array: Int32Array, index: number, before: number, after: number) => {
      if (index === word && array.buffer === heap.buffer && ++looks === 1) assert.equal(setVersion(2), 0);
      return compareExchange(array, index, before, after);
    },
  );
  assert.equal(map(ref), GNTST_BAD_GNTREF);
  assert.ok(looks > 1);
  assert.equal(xen.grants.pins(granter.record, ref), 0);
});

test('H8: version 2 is not left while a part of a page, by a reference of the toolstack, is being copied', (t) => {
  const { xen, granter, peer, setVersion } = machine();
  assert.equal(setVersion(2), 0);
  entriesV2(granter).part(1, peer.id, FRAME, 0, 64);
  peer.ports.grantTable.grant(REF, 1, peer.id, FRAME, false);
  const { copyWithin } = Uint8Array.prototype;
  let answer = 0;
  t.mock.method(Uint8Array.prototype, 'copyWithin', function (this: Uint8Array, ...range: [number, number]) {
    answer = setVersion(1);
    return copyWithin.apply(this, range);
  });
  const source = { domain: granter.id, page: 1, offset: 0 };
  const dest = { domain: peer.id, page: REF, offset: 0 };
  const flags = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
  assert.equal(xen.copies.copy(peer.record, source, dest, 64, flags), GNTST_OKAY);
  assert.equal(answer, EAGAIN);
  assert.equal(granter.record.grantVersion, 2);
  assert.equal(setVersion(1), 0, 'afterwards it is');
});

test('H9: frames with statuses leave the guest with version 2: who gets them next is not seen', () => {
  const { xen, granter, setVersion } = machine();
  const statuses = granter.record.map.grantStatus;
  assert.equal(setVersion(2), 0);
  assert.equal(placeTableFrame(new Machine(xen.state), granter.record, 0, true, statuses), 0);
  granter.ports.addressSpace.read(statuses * XEN_PAGE_SIZE, 2);
  const { frames } = xen.free;
  assert.equal(setVersion(1), 0);
  assert.equal(xen.free.frames, frames + 1);
  assert.throws(() => granter.ports.addressSpace.read(statuses * XEN_PAGE_SIZE, 2), /PageFault|page/);
  for (let round = 0; round < 3; round++) for (const version of [2, 1]) assert.equal(setVersion(version), 0);
  assert.equal(xen.free.frames, frames + 1, 'and none is lost or given twice');
});

test('H10: get_status_frames writes as many frame numbers as the caller has room for, or none', () => {
  const { granter } = machine();
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  assert.ok(granter.ports.grantTable.grow(16 * 256));
  assert.equal(granter.record.statusFrames, 2);
  const { addressSpace } = granter.ports;
  const ask = (nr_frames: number) => {
    addressSpace.write(LIST, new Uint8Array(64).fill(0xee));
    const argument = { dom: DOMID_SELF, nr_frames, frame_list: LIST };
    const { done } = hypercall(granter, GNTTABOP_GET_STATUS_FRAMES, gnttabGetStatusFrames, argument);
    const written = addressSpace.read(LIST, 64).findLastIndex((byte) => byte !== 0xee) + 1;
    return [done[0].status, written];
  };
  assert.deepEqual(ask(0), [GNTST_OKAY, 0]);
  assert.deepEqual(ask(1), [GNTST_OKAY, 8]);
  assert.deepEqual(ask(2), [GNTST_OKAY, 16]);
  assert.deepEqual(ask(3), [GNTST_GENERAL_ERROR, 0]);
  assert.deepEqual(ask(0xffff_ffff), [GNTST_GENERAL_ERROR, 0]);
});

test('H8: a guest on Arm has version 1 only', () => {
  const xen = bootTestMachine();
  const arm = addDomain(xen, 1, { architecture: 'arm' });
  assert.equal(arm.ports.grantTable.setVersion(2), ENOSYS);
  assert.equal(arm.record.grantVersion, 1);
  assert.throws(() => addDomain(xen, 2, { architecture: 'arm', maxGrantVersion: 2 }), RangeError);
});
