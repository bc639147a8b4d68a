// Address spaces: pages that a guest places, pages of others that a toolstack or device model maps, and how long a
// mapped page and its domain stay.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as op from '../../abi/memory-op.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { DomainOptions } from './domain-options.ts';
import { addDomain, bootTestMachine, TEST_PAGES, type TestDomain } from './domains.test.helper.ts';
import { DOMAIN_DEAD, NO_GFN } from './domain-record.ts';
import { EACCES, EBUSY, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO, EOPNOTSUPP, EPERM, ESRCH } from './errno.ts';
import { foreignUses } from './foreign-pages.ts';
import { setVersion } from './grants/version.ts';
import { P2M_FOREIGN, P2M_GRANT_WRITABLE, P2M_NONE, P2M_RAM, p2mFrame, p2mType } from './physmap.ts';
import { Machine } from './state.ts';

const DOMID_SELF = 0x7ff0;
const { XENMAPSPACE_shared_info: SHARED_INFO, XENMAPSPACE_grant_table: GRANT_TABLE } = op;
const { XENMAPSPACE_gmfn: GMFN, XENMAPSPACE_gmfn_range: RANGE, XENMAPSPACE_gmfn_foreign: FOREIGN } = op;
const { XENMAPIDX_grant_table_status: STATUS } = op;
const ARGUMENT = 8 * XEN_PAGE_SIZE;
const LISTS = 9 * XEN_PAGE_SIZE;
/** A place where nothing stands. */
const HOLE = 0xf_3000;

function write(caller: TestDomain, offset: number, bytes: Uint8Array): number {
  const address = caller.record.map.ram * XEN_PAGE_SIZE + offset;
  caller.ports.addressSpace.write(address, bytes);
  return address;
}

function add(caller: TestDomain, domid: number, space: number, idx: number, gpfn: number, size = 0): number {
  const bytes = op.xenAddToPhysmap.make({ domid, space, idx, gpfn, size }).bytes;
  return caller.ports.memoryOp(op.XENMEM_add_to_physmap, write(caller, ARGUMENT, bytes));
}

function remove(caller: TestDomain, domid: number, gpfn: number): number {
  const bytes = op.xenRemoveFromPhysmap.make({ domid, gpfn }).bytes;
  return caller.ports.memoryOp(op.XENMEM_remove_from_physmap, write(caller, ARGUMENT, bytes));
}

function u64s(values: readonly number[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values, BigInt).buffer);
}

/** Maps pages of `foreign` into `domid` in one batch. Returns the result, and each page's. */
function batch(caller: TestDomain, domid: number, foreign: number, pages: [idx: number, gpfn: number][]) {
  const idxs = write(caller, LISTS, u64s(pages.map(([idx]) => idx)));
  const gpfns = write(caller, LISTS + 1024, u64s(pages.map(([, gpfn]) => gpfn)));
  const errs = write(caller, LISTS + 2048, new Uint8Array(4 * pages.length).fill(0x55));
  const fields = { domid, space: FOREIGN, size: pages.length, foreign_domid: foreign, idxs, gpfns, errs };
  const bytes = op.xenAddToPhysmapBatch.make(fields).bytes;
  const result = caller.ports.memoryOp(op.XENMEM_add_to_physmap_batch, write(caller, ARGUMENT, bytes));
  const errors = new Int32Array(caller.ports.addressSpace.read(errs, 4 * pages.length).buffer);
  return { result, errors: [...errors] };
}

function acquire(
  caller: TestDomain,
  domid: number,
  fields: { type?: number; id?: number; frame?: number; pad?: number },
  gfns: readonly number[],
): number {
  const list = write(caller, LISTS, u64s(gfns));
  const all = { type: op.XENMEM_resource_grant_table, domid, nr_frames: gfns.length, frame_list: list };
  const bytes = op.xenMemAcquireResource.make({ ...all, ...fields }).bytes;
  return caller.ports.memoryOp(op.XENMEM_acquire_resource, write(caller, ARGUMENT, bytes));
}

function scene(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const toolstack = addDomain(xen, 1, { privileged: true });
  const guest = addDomain(xen, 2, { maxGrantFrames: 4, ...options });
  const machine = new Machine(xen.state);
  const typeAt = (domain: TestDomain, gfn: number) => p2mType(domain.record.physmap.get(gfn));
  const frameAt = (domain: TestDomain, gfn: number) => p2mFrame(domain.record.physmap.get(gfn));
  return { xen, machine, toolstack, guest, typeAt, frameAt };
}

test('x86: shared_info is placed, and placed again it stands only there; over memory it takes its place', () => {
  const { guest, typeAt, frameAt } = scene();
  const frame = guest.record.sharedInfo / XEN_PAGE_SIZE;
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, HOLE), 0);
  assert.equal(frameAt(guest, HOLE), frame);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, HOLE), 0);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, 3), 0);
  assert.deepEqual([typeAt(guest, HOLE), frameAt(guest, 3)], [P2M_NONE, frame]);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 1, HOLE), EINVAL);
  assert.equal(remove(guest, DOMID_SELF, 3), 0);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, HOLE), 0);
  assert.equal(typeAt(guest, HOLE), P2M_RAM);
});

test('Arm: what Xen shares stands in one place until it is taken away there', () => {
  const { guest } = scene({ architecture: 'arm' });
  const hole = 0x3_9100;
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, hole), 0);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, hole + 1), EBUSY);
  assert.equal(remove(guest, DOMID_SELF, hole), 0);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, hole + 1), 0);
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, 1, hole + 2), 0);
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, 1, hole + 3), EBUSY);
  assert.equal(add(guest, DOMID_SELF, GMFN, guest.record.map.ram, hole + 4), ENOSYS);
});

test('frames of the grant table and, by bit 31, of its statuses are placed, which makes the table longer', () => {
  const { guest, machine, frameAt, typeAt } = scene();
  const { record } = guest;
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, 2, HOLE), 0);
  assert.equal(record.grantFrames, 3);
  assert.equal(frameAt(guest, HOLE), record.grantFrame(2));
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, 4, HOLE + 1), EINVAL, 'beyond max_grant_frames');
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, STATUS, HOLE + 1), EINVAL, 'version 1 has no statuses');
  assert.equal(setVersion(machine, record, 2), 0);
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, STATUS, HOLE + 1), 0);
  assert.equal(frameAt(guest, HOLE + 1), record.statusFrame(0));
  // What it displaces stands nowhere any more, and Xen knows.
  assert.equal(add(guest, DOMID_SELF, GRANT_TABLE, 1, HOLE), 0);
  assert.equal(machine.heap[record.grantGfnWord(2)], NO_GFN);
  assert.equal(remove(guest, DOMID_SELF, HOLE + 1), 0);
  assert.equal(machine.heap[record.statusGfnWord(0)], NO_GFN);
  assert.equal(typeAt(guest, HOLE + 1), P2M_NONE);
  assert.equal(add(guest, DOMID_SELF, GMFN, HOLE, HOLE + 2), 0, 'as a page of its own it moves too');
  assert.equal(machine.heap[record.grantGfnWord(1)], HOLE + 2);
});

test('a page of memory moves; a range moves whole even where it overlaps itself', () => {
  const { guest, frameAt, typeAt } = scene();
  const frames = [20, 21, 22, 23].map((gfn) => frameAt(guest, gfn));
  assert.equal(add(guest, DOMID_SELF, GMFN, 20, HOLE), 0);
  assert.deepEqual([typeAt(guest, 20), frameAt(guest, HOLE)], [P2M_NONE, frames[0]]);
  assert.equal(add(guest, DOMID_SELF, GMFN, 20, HOLE + 1), EACCES);
  assert.equal(add(guest, DOMID_SELF, GMFN, HOLE, 20), 0);
  assert.equal(add(guest, DOMID_SELF, RANGE, 20, 22, 4), 0);
  assert.deepEqual(
    [22, 23, 24, 25].map((gfn) => frameAt(guest, gfn)),
    frames,
  );
  assert.equal(add(guest, DOMID_SELF, RANGE, 22, 20, 4), 0);
  assert.deepEqual(
    [20, 21, 22, 23].map((gfn) => frameAt(guest, gfn)),
    frames,
  );
});

test('nothing is placed outside, over what others granted, by strangers, or in a PV guest', () => {
  const { xen, guest, toolstack } = scene();
  const pv = addDomain(xen, 3, { kind: 'pv' });
  const stranger = addDomain(xen, 4);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, 2 ** 21), EINVAL);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, 2 ** 52), EINVAL);
  guest.record.physmap.add(HOLE, 77, P2M_GRANT_WRITABLE);
  assert.equal(add(guest, DOMID_SELF, SHARED_INFO, 0, HOLE), ENXIO);
  assert.equal(remove(guest, DOMID_SELF, HOLE), ENOENT);
  assert.equal(remove(guest, DOMID_SELF, HOLE + 1), ENOENT);
  assert.equal(add(stranger, guest.id, SHARED_INFO, 0, HOLE), EPERM);
  assert.equal(remove(stranger, guest.id, 3), EPERM);
  assert.equal(add(toolstack, pv.id, SHARED_INFO, 0, HOLE), EACCES);
  assert.equal(add(toolstack, 99, SHARED_INFO, 0, HOLE), ESRCH);
  assert.equal(add(guest, DOMID_SELF, FOREIGN, 3, HOLE + 1), ENOSYS, 'by batches only');
  assert.equal(add(guest, DOMID_SELF, 5, 0, HOLE + 1), EACCES);
  assert.equal(add(guest, DOMID_SELF, 6, 0, HOLE + 1), EINVAL);
  assert.equal(guest.ports.memoryOp(op.XENMEM_add_to_physmap, 2 ** 40), EFAULT);
  assert.equal(guest.ports.memoryOp(99, 0), ENOSYS);
  assert.equal(add(toolstack, guest.id, SHARED_INFO, 0, HOLE + 1), 0);
});

test('a toolstack maps pages of a guest, reads and writes them, and lets go; each page has its own result', () => {
  const { xen, machine, guest, toolstack, typeAt } = scene();
  guest.ports.addressSpace.write(5 * XEN_PAGE_SIZE, new Uint8Array([7]));
  const { result, errors } = batch(toolstack, DOMID_SELF, guest.id, [
    [5, HOLE],
    [TEST_PAGES + 100, HOLE + 1],
    [6, 2 ** 30],
    [5, HOLE + 2],
  ]);
  assert.equal(result, 0);
  assert.deepEqual(errors, [0, EINVAL, EINVAL, 0]);
  assert.deepEqual([typeAt(toolstack, HOLE), typeAt(toolstack, HOLE + 1)], [P2M_FOREIGN, P2M_NONE]);
  assert.equal(foreignUses(machine, guest.record.ramFrame + 5), 2);
  toolstack.ports.addressSpace.write(HOLE * XEN_PAGE_SIZE + 1, new Uint8Array([8]));
  assert.deepEqual([...guest.ports.addressSpace.read(5 * XEN_PAGE_SIZE, 2)], [7, 8]);
  for (const gfn of [HOLE, HOLE + 2]) assert.equal(remove(toolstack, DOMID_SELF, gfn), 0);
  assert.equal(foreignUses(machine, guest.record.ramFrame + 5), 0);
  assert.throws(() => toolstack.ports.addressSpace.read(HOLE * XEN_PAGE_SIZE, 1), /page fault/);
  const stranger = addDomain(xen, 5);
  assert.deepEqual(batch(stranger, DOMID_SELF, guest.id, [[5, HOLE]]).errors, [EPERM]);
  assert.deepEqual(batch(toolstack, DOMID_SELF, 99, [[5, HOLE]]).errors, [ESRCH]);
  assert.deepEqual(batch(toolstack, DOMID_SELF, toolstack.id, [[5, HOLE]]).errors, [EPERM]);
  assert.equal(batch(stranger, guest.id, toolstack.id, [[5, HOLE]]).result, EPERM);
});

test('XENMEM_add_to_physmap_batch does not take ranges, and its lists must lie in the caller’s memory', () => {
  const { toolstack, guest } = scene();
  const make = (fields: object) => {
    const bytes = op.xenAddToPhysmapBatch.make({ domid: DOMID_SELF, size: 1, ...fields }).bytes;
    return toolstack.ports.memoryOp(op.XENMEM_add_to_physmap_batch, write(toolstack, ARGUMENT, bytes));
  };
  assert.equal(make({ space: RANGE }), EOPNOTSUPP);
  const foreign = { space: FOREIGN, foreign_domid: guest.id };
  assert.equal(make({ ...foreign, idxs: 2 ** 40, gpfns: LISTS, errs: LISTS }), EFAULT);
  assert.equal(make({ ...foreign, idxs: LISTS, gpfns: LISTS, errs: 2 ** 40 }), EFAULT);
});

test('a guest whose pages are mapped stays dead until they are let go of, and so does its id; then all is free', () => {
  const { xen, guest, toolstack } = scene();
  batch(toolstack, DOMID_SELF, guest.id, [
    [5, HOLE],
    [guest.record.map.console, HOLE + 1],
  ]);
  assert.equal(acquire(toolstack, guest.id, {}, [HOLE + 2]), 0);
  guest.ports.addressSpace.write(5 * XEN_PAGE_SIZE, new Uint8Array([9]));
  for (const _ of xen.destroyDomain(guest.id));
  assert.equal(xen.domain(guest.id).state, DOMAIN_DEAD);
  assert.equal(toolstack.ports.addressSpace.read(HOLE * XEN_PAGE_SIZE, 1)[0], 9, 'it is still that page');
  assert.throws(() => xen.createDomain(guest.id, { memory: 4096 }), /exists already/);
  assert.deepEqual(batch(toolstack, DOMID_SELF, guest.id, [[6, HOLE + 9]]).errors, [EINVAL]);
  for (const gfn of [HOLE, HOLE + 1, HOLE + 2]) assert.equal(remove(toolstack, DOMID_SELF, gfn), 0);
  assert.equal(xen.domains.find(guest.id), undefined);
  for (const _ of xen.destroyDomain(toolstack.id));
  assert.deepEqual(xen.free, bootTestMachine().free);
});

test('a domain that goes lets go of what it has mapped of others', () => {
  const { xen, machine, guest, toolstack } = scene();
  batch(toolstack, DOMID_SELF, guest.id, [[5, HOLE]]);
  for (const _ of xen.destroyDomain(toolstack.id));
  assert.equal(foreignUses(machine, guest.record.ramFrame + 5), 0);
  for (const _ of xen.destroyDomain(guest.id));
  assert.deepEqual(xen.free, bootTestMachine().free);
});

test('acquire_resource: frames of a grant table are mapped where the caller says, and entries written there count', () => {
  const { guest, toolstack, frameAt } = scene();
  assert.equal(acquire(toolstack, guest.id, { frame: 1 }, [HOLE, HOLE + 1]), 0);
  assert.equal(guest.record.grantFrames, 3, 'the table was made long enough');
  assert.equal(frameAt(toolstack, HOLE + 1), guest.record.grantFrame(2));
  assert.equal(acquire(toolstack, guest.id, { frame: 1 }, [HOLE]), 0, 'the same page at the same place');
  assert.equal(acquire(toolstack, guest.id, { frame: 3 }, [HOLE + 2, HOLE + 3]), EINVAL);
  assert.equal(acquire(toolstack, guest.id, { id: 1 }, [HOLE + 2]), EINVAL, 'version 1 has no statuses');
});

test('acquire_resource: a frame of statuses that its domain gives up stays the mapper’s, and free to nobody', () => {
  const { xen, machine, guest, toolstack } = scene();
  assert.equal(setVersion(machine, guest.record, 2), 0);
  assert.equal(acquire(toolstack, guest.id, { id: 1 }, [HOLE]), 0);
  const { frames } = xen.free;
  assert.equal(setVersion(machine, guest.record, 1), 0);
  assert.equal(xen.free.frames, frames);
  assert.equal(remove(toolstack, DOMID_SELF, HOLE), 0);
  assert.equal(xen.free.frames, frames + 1);
});

test('acquire_resource: sizes, wrong kinds, wrong callers, and a PV caller gets numbers of machine frames', () => {
  const { xen, guest, toolstack } = scene();
  const size = (type: number, id: number) => {
    const fields = { domid: guest.id, type, id };
    const address = write(toolstack, ARGUMENT, op.xenMemAcquireResource.make(fields).bytes);
    const result = toolstack.ports.memoryOp(op.XENMEM_acquire_resource, address);
    const bytes = toolstack.ports.addressSpace.read(address, op.xenMemAcquireResource.size);
    return result === 0 ? op.xenMemAcquireResource.over(bytes).nr_frames : result;
  };
  assert.deepEqual([size(0, 0), size(1, 0), size(1, 1)], [2, 4, 1]);
  assert.deepEqual([size(1, 2), size(2, 0), size(3, 0)], [EINVAL, EINVAL, EINVAL]);
  assert.equal(acquire(toolstack, guest.id, { pad: 1 }, [HOLE]), EINVAL);
  assert.equal(acquire(toolstack, guest.id, { frame: 2 ** 32 - 1 }, [HOLE]), EINVAL);
  assert.equal(acquire(toolstack, guest.id, { type: 0, id: 0, frame: 1 }, [HOLE]), ENOENT);
  assert.equal(acquire(toolstack, toolstack.id, {}, [HOLE]), EPERM);
  assert.equal(acquire(guest, toolstack.id, {}, [HOLE]), EPERM);
  assert.equal(acquire(toolstack, 99, {}, [HOLE]), ESRCH);
  const pv = addDomain(xen, 6, { kind: 'pv', privileged: true });
  assert.equal(acquire(pv, guest.id, {}, [0]), 0);
  const list = pv.record.map.ram * XEN_PAGE_SIZE + LISTS;
  assert.equal(pv.ports.addressSpace.read(list, 2)[0], guest.record.grantFrame(0) & 0xff);
});

test('a caller that acquires over what it has mapped is ended, as in Xen, and nothing of it has changed', () => {
  const { machine, guest, toolstack } = scene();
  batch(toolstack, DOMID_SELF, guest.id, [[5, HOLE]]);
  assert.equal(acquire(toolstack, guest.id, {}, [HOLE]), EPERM);
  assert.equal(toolstack.record.shutdownCode, 3);
  assert.equal(foreignUses(machine, guest.record.ramFrame + 5), 1);
  assert.equal(foreignUses(machine, guest.record.grantFrame(0)), 0);
});

test('after any operations every frame is used as often as a recount of all address spaces finds it (10)', () => {
  const gfn = fc.nat(5).map((offset) => HOLE + offset);
  const page = fc.nat(TEST_PAGES + 1);
  const step = fc.oneof(
    fc.tuple(fc.constant('map'), page, gfn),
    fc.tuple(fc.constant('unmap'), page, gfn),
    fc.tuple(fc.constant('acquire'), fc.nat(4), gfn),
    fc.tuple(fc.constant('place'), fc.nat(4), gfn),
    fc.tuple(fc.constant('shared'), fc.nat(1), gfn),
    fc.tuple(fc.constant('move'), page, gfn),
  );
  const property = fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const { xen, machine, guest } = scene();
    const model = addDomain(xen, 7, { maxGrantFrames: 4 });
    xen.nameDeviceModel(guest.id, model.id);
    for (const [does, index, at] of steps) {
      const before = [...model.record.physmap.entries()];
      let result = 0;
      if (does === 'map') [result] = batch(model, DOMID_SELF, guest.id, [[index, at]]).errors;
      if (does === 'unmap') result = remove(model, DOMID_SELF, at);
      if (does === 'acquire' && p2mType(model.record.physmap.get(at)) === P2M_NONE)
        result = acquire(model, guest.id, { frame: index }, [at]);
      if (does === 'place') result = add(model, DOMID_SELF, GRANT_TABLE, index, at);
      if (does === 'shared') result = add(model, DOMID_SELF, SHARED_INFO, index, at);
      if (does === 'move' && index > 16) result = add(model, DOMID_SELF, GMFN, index, at);
      if (result < 0) assert.deepEqual([...model.record.physmap.entries()], before);
      const uses = new Map<number, number>();
      for (const { frame, type } of model.record.physmap.entries())
        if (type === P2M_FOREIGN) uses.set(frame, (uses.get(frame) ?? 0) + 1);
      for (let frame = 0; frame < machine.memory.byteLength / XEN_PAGE_SIZE; frame++)
        assert.equal(foreignUses(machine, frame), uses.get(frame) ?? 0);
      for (let i = 0; i < model.record.grantFrames; i++) {
        const stands = machine.heap[model.record.grantGfnWord(i)];
        if (stands !== NO_GFN)
          assert.equal(p2mFrame(model.record.physmap.get(stands)), model.record.grantFrame(i));
      }
    }
    for (const _ of xen.destroyDomain(guest.id));
    for (const id of [7, 1]) for (const _ of xen.destroyDomain(id));
    assert.deepEqual(xen.free, bootTestMachine().free);
  });
  fc.assert(property, { seed: 20261122, numRuns: 60 });
});
