// The operations on whole tables: their size and frames, their version, who may ask for those of others; swaps of
// entries, transfers, and flushes of caches.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as op from '../../../abi/grant-table-op.ts';
import {
  GNTMAP_HOST_MAP,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_PAGE,
  GNTST_BAD_VIRT_ADDR,
  GNTST_EAGAIN,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GNTST_PERMISSION_DENIED,
  GTF_PERMIT_ACCESS,
  GTF_READONLY,
} from '../../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import type { DomainOptions } from '../domain-options.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EINVAL, EOPNOTSUPP, EPERM, ESRCH } from '../errno.ts';
import { grantPart, statusOf } from './entries.test.helper.ts';
import { ARGUMENTS, call, callOne, getArguments, putArguments, UNSET } from './hypercall.test.helper.ts';
import { grantState, recount, sharedEntries, sharedEntry } from './recount.test.helper.ts';

const REF = 8;
const PAGE = 3;
/** Where frame numbers go. */
const LIST = ARGUMENTS + XEN_PAGE_SIZE;
const NOWHERE = 0xd000_0000;
const CANARY = 0xa5;
const INVALID = 2n ** 64n - 1n;

/** Domain 0 may act on the others; 1 and 2 may not. */
function machine(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const toolstack = addDomain(xen, 0);
  const guest = addDomain(xen, 1, { maxGrantFrames: 20, ...options });
  const other = addDomain(xen, 2, { maxGrantFrames: 20 });
  for (const { ports } of [toolstack, guest, other])
    ports.addressSpace.write(LIST, new Uint8Array(XEN_PAGE_SIZE).fill(CANARY));
  return { xen, toolstack, guest, other, all: [toolstack, guest, other] };
}

/** The frame numbers that stand at the list's place, up to the first byte that nobody has written. */
function listed({ ports }: TestDomain): bigint[] {
  const numbers = new BigUint64Array(ports.addressSpace.read(LIST, XEN_PAGE_SIZE).buffer);
  const untouched = new BigUint64Array(new Uint8Array(8).fill(CANARY).buffer)[0];
  const end = numbers.indexOf(untouched);
  assert.ok(
    numbers.subarray(end).every((each) => each === untouched),
    'nothing is written past the list',
  );
  return [...numbers.subarray(0, end)];
}

const setup = (domain: TestDomain, frames: number, dom: number = DOMID_SELF, list = LIST) =>
  callOne(domain, op.GNTTABOP_SETUP_TABLE, op.gnttabSetupTable, {
    dom,
    nr_frames: frames,
    frame_list: list,
    status: UNSET,
  }).status;
const statuses = (domain: TestDomain, frames: number, dom: number = DOMID_SELF, list = LIST) =>
  callOne(domain, op.GNTTABOP_GET_STATUS_FRAMES, op.gnttabGetStatusFrames, {
    dom,
    nr_frames: frames,
    frame_list: list,
    status: UNSET,
  }).status;
const querySize = (domain: TestDomain, dom: number = DOMID_SELF) => {
  const { status, nr_frames, max_nr_frames } = callOne(domain, op.GNTTABOP_QUERY_SIZE, op.gnttabQuerySize, {
    dom,
    status: UNSET,
  });
  return [status, nr_frames, max_nr_frames];
};

test('H20: setup_table grows a table to max_grant_frames and tells where its frames stand', () => {
  const { guest, all } = machine();
  const table = BigInt(guest.record.map.grantTable);
  assert.equal(setup(guest, 3), GNTST_OKAY);
  // The kernel has placed the first frame; where the others are to stand it says later.
  assert.deepEqual(listed(guest), [table, INVALID, INVALID]);
  assert.deepEqual(querySize(guest), [GNTST_OKAY, 3, 20]);
  assert.ok(guest.ports.grantTable.grow(3 * 512));
  assert.equal(setup(guest, 3), GNTST_OKAY);
  assert.deepEqual(listed(guest), [table, table + 1n, table + 2n]);
  for (const frames of [21, 0x7fff_ffff, 0xffff_ffff])
    assert.equal(setup(guest, frames), GNTST_GENERAL_ERROR);
  assert.deepEqual(querySize(guest), [GNTST_OKAY, 3, 20]);
  assert.equal(setup(guest, 20), GNTST_OKAY);
  assert.equal(listed(guest).length, 20);
  assert.equal(setup(guest, 0), GNTST_OKAY);
  assert.deepEqual(querySize(guest), [GNTST_OKAY, 20, 20]);
  recount(all);
});

test('a PV guest is told the machine’s frame numbers', () => {
  const { guest } = machine({ kind: 'pv' });
  assert.equal(setup(guest, 2), GNTST_OKAY);
  assert.deepEqual(
    listed(guest),
    [0, 1].map((index) => BigInt(guest.record.grantFrame(index))),
  );
  assert.equal(guest.ports.grantTable.setVersion(2), 0);
  assert.equal(statuses(guest, 1), GNTST_OKAY);
  assert.deepEqual(listed(guest)[0], BigInt(guest.record.statusFrame(0)));
});

test('H20: setup_table with the machine’s memory used up changes nothing', () => {
  const { xen, guest, all } = machine();
  const hoard = addDomain(xen, 7, { memory: (xen.free.frames - 8) * XEN_PAGE_SIZE });
  assert.ok(xen.free.frames < 10);
  const before = [grantState(all), xen.free];
  assert.equal(setup(guest, 19), GNTST_GENERAL_ERROR);
  assert.deepEqual([grantState(all), xen.free], before);
  assert.equal(setup(guest, 2), GNTST_OKAY);
  recount([...all, hoard]);
});

test('a list of frame numbers that leads nowhere is bad_virt_addr', () => {
  const { guest } = machine();
  assert.equal(setup(guest, 1, DOMID_SELF, NOWHERE), GNTST_BAD_VIRT_ADDR);
  assert.equal(guest.ports.grantTable.setVersion(2), 0);
  assert.equal(statuses(guest, 1, DOMID_SELF, 2 ** 52), GNTST_BAD_VIRT_ADDR);
  assert.equal(setup(guest, 0, DOMID_SELF, NOWHERE), GNTST_OKAY);
});

test('H10: get_status_frames writes as many numbers as were asked for, and none when that is more than there are', () => {
  const { guest } = machine();
  for (const frames of [1, 2, 0xffff_ffff]) assert.equal(statuses(guest, frames), GNTST_GENERAL_ERROR);
  assert.deepEqual(listed(guest), []);
  assert.equal(guest.ports.grantTable.setVersion(2), 0);
  assert.ok(guest.ports.grantTable.grow(20 * 256));
  assert.equal(guest.record.statusFrames, 3);
  for (const frames of [4, 64, 512, 0x7fff_ffff, 0xffff_ffff]) {
    assert.equal(statuses(guest, frames), GNTST_GENERAL_ERROR);
    assert.deepEqual(listed(guest), [], `${frames} frames asked for`);
  }
  for (const frames of [0, 1, 2, 3]) {
    guest.ports.addressSpace.write(LIST, new Uint8Array(XEN_PAGE_SIZE).fill(CANARY));
    assert.equal(statuses(guest, frames), GNTST_OKAY);
    assert.equal(listed(guest).length, frames);
  }
});

test('H10: a list that ends before the numbers do is bad_virt_addr, and nothing past its end is touched', () => {
  const { guest } = machine();
  assert.equal(guest.ports.grantTable.setVersion(2), 0);
  assert.ok(guest.ports.grantTable.grow(20 * 256));
  const end = guest.record.ramFrames * XEN_PAGE_SIZE;
  assert.equal(statuses(guest, 3, DOMID_SELF, end - 12), GNTST_BAD_VIRT_ADDR);
  const bytes = guest.ports.addressSpace.read(end - 12, 12);
  assert.deepEqual(bytes, new Uint8Array(12).fill(0xff));
});

for (const [what, ask] of [
  ['setup_table', (domain: TestDomain, dom: number) => setup(domain, 2, dom)],
  ['get_status_frames', (domain: TestDomain, dom: number) => statuses(domain, 0, dom)],
  ['query_size', (domain: TestDomain, dom: number) => querySize(domain, dom)[0]],
] as const) {
  test(`${what} of another domain is for the toolstack: permission_denied for guests, bad_domain for no domain`, () => {
    const { toolstack, guest, all } = machine();
    const before = grantState(all);
    assert.equal(ask(guest, 2), GNTST_PERMISSION_DENIED);
    for (const nobody of [99, 0x7ff1, 0xffff]) {
      assert.equal(ask(guest, nobody), GNTST_BAD_DOMAIN);
      assert.equal(ask(toolstack, nobody), GNTST_BAD_DOMAIN);
    }
    assert.deepEqual(grantState(all), before);
    assert.deepEqual(listed(guest), []);
    // Its own, by its id as well.
    assert.deepEqual([ask(guest, 1), ask(guest, DOMID_SELF), ask(toolstack, 2)], [0, 0, 0]);
  });
}

test('get_version: -ESRCH for no domain, -EPERM for a guest that asks for another’s', () => {
  const { toolstack, guest, other } = machine();
  assert.equal(other.ports.grantTable.setVersion(2), 0);
  const ask = (domain: TestDomain, dom: number) => {
    const { result, elements } = call(domain, op.GNTTABOP_GET_VERSION, op.gnttabGetVersion, [
      { dom, version: 77 },
    ]);
    return [result, elements[0].version];
  };
  assert.deepEqual(ask(guest, 99), [ESRCH, 77]);
  assert.deepEqual(ask(guest, 2), [EPERM, 77]);
  assert.deepEqual(ask(guest, DOMID_SELF), [0, 1]);
  assert.deepEqual(ask(other, DOMID_SELF), [0, 2]);
  assert.deepEqual(ask(toolstack, 2), [0, 2]);
});

for (const command of [op.GNTTABOP_SETUP_TABLE, op.GNTTABOP_QUERY_SIZE, op.GNTTABOP_GET_STATUS_FRAMES])
  test(`GNTTABOP ${command} takes one element: another count is -EINVAL, and nothing is looked at`, () => {
    const { guest, all } = machine();
    const before = grantState(all);
    for (const count of [0, 2, 1000]) assert.equal(guest.ports.grantTableOp(command, NOWHERE, count), EINVAL);
    assert.deepEqual(grantState(all), before);
  });

const swap = (domain: TestDomain, a: number, b: number) =>
  callOne(domain, op.GNTTABOP_SWAP_GRANT_REF, op.gnttabSwapGrantRef, { ref_a: a, ref_b: b, status: UNSET })
    .status;

for (const version of [1, 2]) {
  test(`swap_grant_ref swaps two entries of version ${version}, with all that they hold`, () => {
    const { xen, guest, other, all } = machine();
    const { grantTable } = guest.ports;
    assert.equal(grantTable.setVersion(version), 0);
    grantTable.grant(REF as GrantRef, 1, other.id, PAGE as FrameNumber, true);
    if (version === 2) grantPart(guest, REF + 1, 9, PAGE + 1, [1, 2]);
    const before = sharedEntries(guest);
    assert.equal(swap(guest, REF, REF + 1), GNTST_OKAY);
    assert.deepEqual(
      sharedEntries(guest),
      before.map((entry) => ({ ...entry, ref: 2 * REF + 1 - entry.ref })).toSorted((a, b) => a.ref - b.ref),
    );
    assert.equal(xen.grants.map(other.record, other.record.window, GNTMAP_HOST_MAP | 4, REF + 1, 1), 0);
    recount(all);
    assert.equal(swap(guest, REF, REF), GNTST_OKAY);
    assert.equal(swap(guest, REF + 1, REF + 1), GNTST_OKAY, 'the same entry, pinned or not');
  });

  test(`H1: swap_grant_ref refuses references past a table of version ${version}, and entries that are mapped`, () => {
    const { xen, guest, other, all } = machine();
    const { grantTable } = guest.ports;
    assert.equal(grantTable.setVersion(version), 0);
    const entries = version === 1 ? 512 : 256;
    grantTable.grant(REF as GrantRef, 1, other.id, PAGE as FrameNumber, false);
    assert.equal(xen.grants.map(other.record, other.record.window, GNTMAP_HOST_MAP, REF, 1), 0);
    const before = grantState(all);
    for (const wrong of [entries, 0x8000_0000, 0xffff_ffff]) {
      assert.equal(swap(guest, wrong, REF), GNTST_BAD_GNTREF);
      assert.equal(swap(guest, REF, wrong), GNTST_BAD_GNTREF);
      assert.equal(swap(guest, wrong, wrong), GNTST_BAD_GNTREF);
    }
    assert.equal(swap(guest, REF, REF + 1), GNTST_EAGAIN);
    assert.equal(swap(guest, REF + 1, REF), GNTST_EAGAIN);
    assert.deepEqual(grantState(all), before);
    recount(all);
  });
}

test('a status word of version 2 that the guest has scribbled on goes along with its entry', () => {
  const { guest } = machine();
  assert.equal(guest.ports.grantTable.setVersion(2), 0);
  new Uint16Array(guest.xen.state.memory)[guest.record.statusFrame(0) * 2048 + REF] = 0x1234;
  assert.equal(swap(guest, REF, REF + 1), GNTST_OKAY);
  assert.deepEqual([statusOf(guest, REF), statusOf(guest, REF + 1)], [0, 0x1234]);
});

test('transfer moves no page: a PV guest is told so, a translated one gets a status for each element', () => {
  const { guest, other, all } = machine();
  sharedEntry(other, REF).flags = 2;
  sharedEntry(other, REF).domid = 1;
  const before = grantState(all);
  const elements = [
    { mfn: PAGE, domid: 2, ref: REF, status: UNSET },
    { mfn: 2 ** 40, domid: 2, ref: REF, status: UNSET },
    { mfn: guest.record.window, domid: 99, ref: 5000, status: UNSET },
  ];
  const answer = call(guest, op.GNTTABOP_TRANSFER, op.gnttabTransfer, elements);
  assert.equal(answer.result, 0);
  assert.deepEqual(
    answer.elements.map(({ status }) => status),
    [GNTST_GENERAL_ERROR, GNTST_BAD_PAGE, GNTST_BAD_PAGE],
  );
  assert.deepEqual(grantState(all), before);
  const pv = machine({ kind: 'pv' });
  putArguments(pv.guest, op.gnttabTransfer, elements);
  assert.equal(pv.guest.ports.grantTableOp(op.GNTTABOP_TRANSFER, ARGUMENTS, 3), EOPNOTSUPP);
  assert.equal(getArguments(pv.guest, op.gnttabTransfer, 1)[0].status, UNSET);
});

/** A guest on Arm that owns pages, one that it lets domain 1 map, and domain 1, which flushes. */
function caches() {
  const xen = bootTestMachine();
  const arm = { architecture: 'arm' } as const;
  const [guest, owner, third] = [1, 2, 3].map((id) => addDomain(xen, id, arm));
  owner.ports.grantTable.grant(REF as GrantRef, 1, guest.id, PAGE as FrameNumber, false);
  const at = guest.record.map.ram * XEN_PAGE_SIZE;
  const flush = (frame: number, offset: number, length: number, operation: number, inPage = 0) => {
    const { bytes } = op.gnttabCacheFlush.make({
      a: frame * XEN_PAGE_SIZE + inPage,
      offset,
      length,
      op: operation,
    });
    guest.ports.addressSpace.write(at, bytes);
    return guest.ports.grantTableOp(op.GNTTABOP_CACHE_FLUSH, at, 1);
  };
  return { xen, guest, owner, third, flush };
}

test('cache_flush is for a guest’s own pages on Arm, and for those that it has mapped', () => {
  const { xen, guest, owner, third, flush } = caches();
  owner.ports.grantTable.grant(
    REF as GrantRef,
    1,
    guest.id,
    (owner.record.map.ram + PAGE) as FrameNumber,
    false,
  );
  const granted = owner.record.ramFrame + PAGE;
  const both = op.GNTTAB_CACHE_CLEAN | op.GNTTAB_CACHE_INVAL;
  assert.equal(flush(guest.record.ramFrame, 0, 4096, both), 0);
  assert.equal(flush(guest.record.ramFrame, 4095, 1, op.GNTTAB_CACHE_CLEAN), 0);
  assert.equal(flush(granted, 0, 64, both), EINVAL, 'not mapped yet');
  assert.equal(xen.grants.map(guest.record, guest.record.window, GNTMAP_HOST_MAP, REF, 2), 0);
  assert.equal(flush(granted, 0, 64, both), 0);
  assert.equal(flush(granted + 1, 0, 64, both), EINVAL, 'another page of the same domain');
  assert.equal(flush(third.record.ramFrame, 0, 64, both), EINVAL);
  recount([guest, owner, third]);
});

test('cache_flush refuses what is no part of a page, no operation, and no memory of any domain', () => {
  const { xen, guest, flush } = caches();
  const own = guest.record.ramFrame;
  for (const [offset, length] of [
    [4096, 0],
    [4095, 2],
    [0, 4097],
    [0xffff, 0xffff],
  ])
    assert.equal(flush(own, offset, length, 1), EINVAL, `${length} bytes at ${offset}`);
  for (const operation of [4, 0xffff_fffc, op.GNTTAB_CACHE_SOURCE_GREF >>> 0])
    assert.equal(flush(own, 0, 1, operation), EINVAL);
  assert.equal(flush(2 ** 40, 0, 1, 1), EINVAL, 'past the machine’s memory');
  const free = xen.state.memory.byteLength / XEN_PAGE_SIZE - 1;
  assert.equal(flush(free, 0, 1, 1), EPERM, 'memory that nobody has');
  // Nothing to do is done, whatever the page.
  assert.deepEqual([flush(free, 0, 0, 1), flush(free, 0, 1, 0)], [0, 0]);
});

test('an entry may grant a frame of the table itself, and its owner’s pages by flags that Xen only keeps', () => {
  const { xen, guest, other, all } = machine();
  const table = guest.record.map.grantTable as FrameNumber;
  guest.ports.grantTable.grant(REF as GrantRef, 1, other.id, table, true);
  assert.equal(xen.grants.map(other.record, other.record.window, GNTMAP_HOST_MAP | 4, REF, 1), 0);
  const entry = other.ports.addressSpace.read((other.record.window * 512 + REF) * 8, 8);
  assert.deepEqual(entry.slice(0, 4), Uint8Array.of(GTF_PERMIT_ACCESS | GTF_READONLY | 8, 0, 2, 0));
  recount(all);
});
