// GNTTABOP_set_version: what is forgotten, what the toolstack's entries become, what forbids it, and that a switch
// that is refused has changed nothing. On threads: version-threads.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTTABOP_GET_STATUS_FRAMES,
  GNTTABOP_SET_VERSION,
  gnttabGetStatusFrames,
  gnttabSetVersion,
} from '../../../abi/grant-table-op.ts';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_GNTREF,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GTF_ACCEPT_TRANSFER,
  GTF_PERMIT_ACCESS,
  GTF_PWT,
  GTF_READING,
  GTF_READONLY,
  GTF_SUB_PAGE,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { DOMID_SELF, XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EBUSY, EFAULT, EINVAL, ENOMEM, ENOSYS, ERANGE } from '../errno.ts';
import { P2M_NONE, P2M_RAM, p2mEntry } from '../physmap.ts';
import { Machine } from '../state.ts';
import { entryV2, grantPart, passOn, statusOf } from './entries.test.helper.ts';
import { ARGUMENTS, call, callOne } from './hypercall.test.helper.ts';
import { grantState, recount, sharedEntries, sharedEntry } from './recount.test.helper.ts';
import { placeTableFrame } from './table-ops.ts';

const PAGE = 3;
const READONLY = GNTMAP_HOST_MAP | GNTMAP_READONLY;

function machine(
  options: Parameters<typeof addDomain>[2] = {},
  peerOptions: Parameters<typeof addDomain>[2] = {},
) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2, { maxGrantFrames: 20, ...options });
  const peer = addDomain(xen, 1, peerOptions);
  let places = 0;
  return {
    xen,
    granter,
    peer,
    all: [granter, peer],
    setVersion: (version: number) => call(granter, GNTTABOP_SET_VERSION, gnttabSetVersion, [{ version }]),
    grant: (ref: number, frame = PAGE, readonly = false) =>
      granter.ports.grantTable.grant(ref as GrantRef, 1, peer.id, frame as FrameNumber, readonly),
    map: (ref: number, flags = GNTMAP_HOST_MAP) =>
      xen.grants.map(peer.record, peer.record.window + places++, flags, ref, granter.id),
    unmap: (handle: number, place = handle) =>
      xen.grants.unmap(peer.record, peer.record.window + place, handle),
  };
}

/** A switch that must be refused, and must have changed nothing but the version that the argument tells. */
function refuses(made: ReturnType<typeof machine>, version: number, errno: number): void {
  const before = grantState(made.all);
  const { free } = made.xen;
  const answer = made.setVersion(version);
  assert.deepEqual([answer.result, answer.elements[0].version], [errno, made.granter.record.grantVersion]);
  assert.deepEqual(grantState(made.all), before);
  assert.deepEqual(made.xen.free, free);
  recount(made.all);
}

for (const version of [0, 3, 0xffff_ffff])
  test(`version ${version} does not exist: -EINVAL, and the argument tells which there is`, () =>
    refuses(machine(), version, EINVAL));

for (const [what, options] of [
  ['a domain whose max_grant_version is 1', { maxGrantVersion: 1 }],
  ['a domain on Arm (XSA-268)', { architecture: 'arm' }],
] as const) {
  test(`${what} has no version 2: -ENOSYS; version 1 is what it has`, () => {
    const made = machine(options);
    const before = grantState(made.all);
    assert.equal(made.granter.ports.grantTable.setVersion(2), ENOSYS);
    assert.equal(made.granter.ports.grantTable.setVersion(1), 0);
    assert.deepEqual(grantState(made.all), before);
  });
}

test('an argument that leads nowhere is refused with -EFAULT', () => {
  const { granter, all } = machine();
  const before = grantState(all);
  assert.equal(granter.ports.grantTableOp(GNTTABOP_SET_VERSION, 0x8000_0000, 1), EFAULT);
  assert.deepEqual(grantState(all), before);
});

test('what was granted is forgotten, both ways, and the table has half as many entries in version 2', () => {
  const made = machine();
  const { granter, xen, peer } = made;
  for (const [version, entries] of [
    [2, 256],
    [1, 512],
    [2, 256],
  ]) {
    made.grant(100);
    assert.equal(granter.ports.grantTable.setVersion(version), 0);
    assert.equal(granter.record.grantVersion, version);
    assert.deepEqual(sharedEntries(granter), []);
    assert.equal(granter.ports.grantTable.entries, entries);
    const map = (ref: number) => xen.grants.map(peer.record, peer.record.window, READONLY, ref, 2);
    assert.deepEqual(
      [map(100), map(entries - 1), map(entries)],
      [GNTST_GENERAL_ERROR, GNTST_GENERAL_ERROR, GNTST_BAD_GNTREF],
    );
    recount(made.all);
  }
});

test('the version that there is already forgets nothing, even while entries are mapped', () => {
  const made = machine();
  made.grant(8);
  const handle = made.map(8);
  const before = grantState(made.all);
  assert.equal(made.setVersion(1).result, 0);
  assert.deepEqual(grantState(made.all), before);
  made.unmap(handle);
});

for (const version of [1, 2]) {
  for (const ref of [8, 255]) {
    test(`H8: while reference ${ref} is mapped version ${version} stays: -EBUSY`, () => {
      const made = machine();
      made.granter.ports.grantTable.setVersion(version);
      made.grant(ref);
      const handle = made.map(ref, READONLY);
      refuses(made, 3 - version, EBUSY);
      assert.equal(made.unmap(handle), GNTST_OKAY);
      assert.equal(made.setVersion(3 - version).result, 0);
      recount(made.all);
    });
  }
}

test('H8: a mapped reference that version 2 would not have keeps the table at version 1', () => {
  const made = machine();
  made.grant(511);
  const handle = made.map(511);
  refuses(made, 2, EBUSY);
  made.unmap(handle);
  assert.equal(made.setVersion(2).result, 0);
  assert.equal(made.map(511), GNTST_BAD_GNTREF);
});

test('entries of the toolstack stay, mapped or not, with their bits, from version 1 to 2 and back', () => {
  const made = machine();
  const { granter } = made;
  made.grant(0, PAGE);
  made.grant(1, PAGE + 1, true);
  made.grant(7, PAGE + 2);
  sharedEntry(granter, 7).flags |= GTF_PWT;
  const [console, xenstore] = [made.map(0), made.map(1, READONLY)];
  const before = sharedEntries(granter);
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  const flagsAndFrames = [0, 1, 2, 7].map((ref) => {
    const { flags, domid, frameLow, frameHigh } = entryV2(granter, ref).full;
    return [flags, domid, frameLow, frameHigh, statusOf(granter, ref)];
  });
  assert.deepEqual(flagsAndFrames, [
    [GTF_PERMIT_ACCESS, 1, PAGE, 0, GTF_READING | GTF_WRITING],
    [GTF_PERMIT_ACCESS | GTF_READONLY, 1, PAGE + 1, 0, GTF_READING],
    [0, 0, 0, 0, 0],
    [GTF_PERMIT_ACCESS | GTF_PWT, 1, PAGE + 2, 0, 0],
  ]);
  recount(made.all);
  assert.equal(granter.ports.grantTable.setVersion(1), 0);
  assert.deepEqual(sharedEntries(granter), before);
  recount(made.all);
  // Let go of in the other version: the bits go where they are now.
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  assert.deepEqual([made.unmap(console), made.unmap(xenstore)], [GNTST_OKAY, GNTST_OKAY]);
  assert.deepEqual([statusOf(granter, 0), statusOf(granter, 1)], [0, 0]);
  recount(made.all);
});

test('toolstack’s entries of a kind that means nothing in the other version are cleared', () => {
  const made = machine();
  const { granter } = made;
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  Object.assign(entryV2(granter, 0).full, { flags: GTF_ACCEPT_TRANSFER, domid: 1, frameLow: 5 });
  Object.assign(entryV2(granter, 1).full, { flags: 0, domid: 1, frameLow: 5, frameHigh: 9 });
  made.grant(2, PAGE);
  assert.equal(granter.ports.grantTable.setVersion(1), 0);
  assert.deepEqual(
    sharedEntries(granter).map(({ ref, flags, domid, frame }) => [ref, flags, domid, frame]),
    [[2, GTF_PERMIT_ACCESS, 1, PAGE]],
  );
});

for (const [what, write] of [
  ['passes on', (granter: TestDomain) => passOn(granter, 3, 1, 3, 8)],
  [
    'grants a frame number of 64 bits',
    (granter: TestDomain) =>
      void Object.assign(entryV2(granter, 3).full, {
        frameHigh: 1,
        frameLow: 5,
        domid: 1,
        flags: GTF_PERMIT_ACCESS,
      }),
  ],
] as const) {
  test(`an entry of the toolstack that ${what} cannot become one of version 1: -ERANGE`, () => {
    const made = machine();
    assert.equal(made.granter.ports.grantTable.setVersion(2), 0);
    write(made.granter);
    refuses(made, 1, ERANGE);
    entryV2(made.granter, 3).full.flags = 0;
    assert.equal(made.setVersion(1).result, 0);
  });
}

test('a part of a page that the toolstack has granted keeps its flag, which forbids to map it (as in Xen)', () => {
  const made = machine();
  assert.equal(made.granter.ports.grantTable.setVersion(2), 0);
  grantPart(made.granter, 1, 1, PAGE, [0, 100]);
  assert.equal(made.granter.ports.grantTable.setVersion(1), 0);
  assert.equal(sharedEntry(made.granter, 1).flags, GTF_PERMIT_ACCESS | GTF_SUB_PAGE);
  assert.equal(made.map(1, READONLY), GNTST_GENERAL_ERROR);
});

/** What get_status_frames answers for as many frames. */
function statusFrames(domain: TestDomain, count: number) {
  const list = ARGUMENTS + XEN_PAGE_SIZE;
  const { status } = callOne(domain, GNTTABOP_GET_STATUS_FRAMES, gnttabGetStatusFrames, {
    dom: DOMID_SELF,
    nr_frames: count,
    frame_list: list,
  });
  const bytes = domain.ports.addressSpace.read(list, count * 8);
  const numbers = [...new BigUint64Array(bytes.buffer)];
  return { status, numbers };
}

test('H9: frames of statuses come with version 2, wiped, and go with it, from the address space too', () => {
  const made = machine();
  const { xen, granter } = made;
  const state = new Machine(xen.state);
  const before = xen.free;
  const gfn = granter.record.map.grantStatus;
  for (let round = 0; round < 3; round++) {
    assert.equal(granter.ports.grantTable.setVersion(2), 0);
    assert.equal(granter.record.statusFrames, 1);
    assert.equal(xen.free.frames, before.frames - 1);
    const frame = granter.record.statusFrame(0);
    assert.deepEqual(statusFrames(granter, 1), { status: GNTST_OKAY, numbers: [2n ** 64n - 1n] });
    assert.equal(placeTableFrame(state, granter.record, 0, true, gfn), 0);
    assert.deepEqual(statusFrames(granter, 1), { status: GNTST_OKAY, numbers: [BigInt(gfn)] });
    assert.equal(granter.record.physmap.get(gfn), p2mEntry(frame, P2M_RAM));
    assert.ok(
      granter.ports.addressSpace.read(gfn * XEN_PAGE_SIZE, XEN_PAGE_SIZE).every((byte) => byte === 0),
    );
    granter.ports.addressSpace.write(gfn * XEN_PAGE_SIZE, new Uint8Array(XEN_PAGE_SIZE).fill(0xee));
    assert.equal(granter.ports.grantTable.setVersion(1), 0);
    assert.deepEqual(xen.free.frames, before.frames);
    assert.equal(granter.record.physmap.get(gfn), P2M_NONE);
    assert.equal(statusFrames(granter, 1).status, GNTST_GENERAL_ERROR);
    assert.throws(() => granter.ports.addressSpace.read(gfn * XEN_PAGE_SIZE, 1), /page fault/);
  }
});

test('a table that grows in version 2 gets frames of statuses with its entries, and Xen uses them', () => {
  const made = machine();
  const { granter } = made;
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  const sizes = [1, 8, 9, 16, 17].map((frames) => {
    assert.ok(granter.ports.grantTable.grow(frames * 256));
    return granter.record.statusFrames;
  });
  assert.deepEqual(sizes, [1, 1, 2, 2, 3]);
  const refs = [255, 2047, 2048, 4095, 4096, 17 * 256 - 1];
  for (const ref of refs) {
    made.grant(ref);
    assert.ok(made.map(ref) >= 0);
    assert.equal(statusOf(granter, ref), GTF_READING | GTF_WRITING);
  }
  recount(made.all);
  assert.equal(granter.ports.grantTable.revoke(2048 as GrantRef, 1), 1);
  refuses(made, 1, EBUSY);
});

test('a table that had grown in version 1 gets all its frames of statuses at the switch', () => {
  const made = machine();
  assert.ok(made.granter.ports.grantTable.grow(20 * 512));
  assert.equal(made.granter.ports.grantTable.setVersion(2), 0);
  assert.equal(made.granter.record.statusFrames, 3);
  made.grant(20 * 256 - 1);
  assert.ok(made.map(20 * 256 - 1) >= 0);
  recount(made.all);
});

test('a machine without memory for statuses: -ENOMEM, and the table neither switches nor, in version 2, grows', () => {
  const made = machine();
  const state = new Machine(made.xen.state);
  assert.ok(made.granter.ports.grantTable.grow(9 * 512));
  const hoard: number[] = [];
  const takeAllBut = (frames: number) => {
    while (made.xen.free.frames > frames) hoard.push(state.frames.take(1));
  };
  takeAllBut(1);
  refuses(made, 2, ENOMEM);
  state.frames.give(hoard.pop()!, 1);
  assert.equal(made.setVersion(2).result, 0);
  made.granter.ports.grantTable.setVersion(2);
  for (let frame = 0; frame < 8; frame++) state.frames.give(hoard.pop()!, 1);
  const before = [grantState(made.all), made.xen.free];
  // Eight more frames of entries need one more of statuses.
  assert.ok(!made.granter.ports.grantTable.grow(17 * 256));
  assert.deepEqual([grantState(made.all), made.xen.free], before);
  assert.ok(made.granter.ports.grantTable.grow(16 * 256));
});

/** A domain with a table of version 2 whose frame of statuses stands in its address space. */
function withStatuses() {
  const made = machine();
  const { granter } = made;
  const state = new Machine(made.xen.state);
  const gfn = granter.record.map.grantStatus;
  assert.equal(granter.ports.grantTable.setVersion(2), 0);
  assert.equal(placeTableFrame(state, granter.record, 0, true, gfn), 0);
  return { made, granter, state, gfn };
}

test('H9: frames of statuses that somebody maps are not freed: -EBUSY (XSA-255)', () => {
  const { made, gfn } = withStatuses();
  // Only an entry of the toolstack may stay mapped through a switch.
  made.grant(0, gfn);
  const handle = made.map(0);
  assert.ok(handle >= 0);
  refuses(made, 1, EBUSY);
  assert.equal(made.unmap(handle), GNTST_OKAY);
  assert.equal(made.setVersion(1).result, 0);
});

test('H9: a PV guest grants a frame of its statuses by its number, and keeps version 2 while it is mapped', () => {
  const made = machine({ kind: 'pv' });
  assert.equal(made.granter.ports.grantTable.setVersion(2), 0);
  made.grant(0);
  entryV2(made.granter, 0).full.frameLow = made.granter.record.statusFrame(0);
  const handle = made.map(0);
  assert.ok(handle >= 0, `mapped: ${handle}`);
  refuses(made, 1, EBUSY);
  assert.equal(made.unmap(handle), GNTST_OKAY);
  assert.equal(made.setVersion(1).result, 0);
});

test('H9: what stands in the place of a frame of statuses when it goes is left alone', () => {
  const { made, granter, gfn } = withStatuses();
  const { xen, peer } = made;
  peer.ports.grantTable.grant(8 as GrantRef, 1, granter.id, PAGE as FrameNumber, false);
  const handle = xen.grants.map(granter.record, gfn, GNTMAP_HOST_MAP, 8, peer.id);
  assert.ok(handle >= 0);
  assert.equal(made.setVersion(1).result, 0);
  recount(made.all);
  assert.equal(xen.grants.unmap(granter.record, gfn, handle), GNTST_OKAY);
});

test('what stands where a frame of the table stood is left alone when that is placed elsewhere', () => {
  const { made, granter, state, gfn } = withStatuses();
  const { xen, peer } = made;
  peer.ports.grantTable.grant(8 as GrantRef, 1, granter.id, PAGE as FrameNumber, false);
  const handle = xen.grants.map(granter.record, gfn, GNTMAP_HOST_MAP, 8, peer.id);
  assert.equal(placeTableFrame(state, granter.record, 0, true, gfn + 1), 0);
  recount(made.all);
  assert.equal(xen.grants.unmap(granter.record, gfn, handle), GNTST_OKAY);
  assert.equal(granter.record.physmap.get(gfn + 1), p2mEntry(granter.record.statusFrame(0), P2M_RAM));
});
