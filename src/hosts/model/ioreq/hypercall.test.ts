// dm_op as a device model makes it: who may, on which guest, with which arguments, and what a refusal leaves behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as dm from '../../../abi/dm-op.ts';
import { HVMOP_set_param, xenHvmParam } from '../../../abi/hvm-params.ts';
import type { DomainOptions } from '../domain-options.ts';
import { addDomain, bootTestMachine } from '../domains.test.helper.ts';
import {
  E2BIG,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODATA,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EPERM,
  ESRCH,
} from '../errno.ts';
import { MAX_IOREQ_SERVERS } from './machine-page.ts';
import { RawModel } from './raw-model.test.helper.ts';

const { XEN_DMOP_IO_RANGE_MEMORY: MEMORY, XEN_DMOP_IO_RANGE_PORT: PORT, XEN_DMOP_IO_RANGE_PCI: PCI } = dm;

function scene(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 2, options);
  return { xen, guest, model: RawModel.of(xen, guest) };
}

test('H28 XSA-506: without buffers -ENODATA, with three -E2BIG, and where two are needed one is -EINVAL', () => {
  const { model, guest } = scene();
  const one = { address: 0, size: 64 };
  assert.equal(model.domain.ports.dmOp(guest.id, []), ENODATA);
  assert.equal(model.domain.ports.dmOp(guest.id, [one, one, one]), E2BIG);
  const modified = dm.xenDmOpModifiedMemory.make({ nr_extents: 1 }).bytes;
  assert.equal(model.call(dm.XEN_DMOP_modified_memory, modified).result, EINVAL);
  assert.equal(model.call(dm.XEN_DMOP_modified_memory, modified, 16, [0]).result, 0);
  const tracked = dm.xenDmOpTrackDirtyVram.make({ nr: 64 }).bytes;
  assert.equal(model.call(dm.XEN_DMOP_track_dirty_vram, tracked).result, EINVAL);
  assert.equal(model.call(dm.XEN_DMOP_track_dirty_vram, tracked, 24, [7]).result, EINVAL);
});

test('a buffer that is too short or lies nowhere is -EFAULT, an operation that does not exist -EOPNOTSUPP', () => {
  const { model, guest } = scene();
  const argument = dm.xenDmOpCreateIoreqServer.make().bytes;
  for (const size of [0, 7, 8, 13])
    assert.equal(model.call(dm.XEN_DMOP_create_ioreq_server, argument, size).result, EFAULT);
  assert.equal(model.domain.ports.dmOp(guest.id, [{ address: 2 ** 40, size: 64 }]), EFAULT);
  for (const op of [0, 21, 2 ** 32 - 1]) assert.equal(model.call(op, argument).result, EOPNOTSUPP);
  assert.equal(model.call(dm.XEN_DMOP_set_irq_level, argument).result, EOPNOTSUPP, 'a line of Arm on x86');
  assert.equal(model.create(), 0, 'none of them has made a server');
});

test('the guest must be another domain, with an emulated machine, and the caller privileged or named', () => {
  const { xen, model, guest } = scene();
  const pv = addDomain(xen, 3, { kind: 'pv' });
  const stranger = addDomain(xen, 4);
  const buffer = [{ address: 0, size: 64 }];
  assert.equal(model.domain.ports.dmOp(77, buffer), ESRCH);
  assert.equal(model.domain.ports.dmOp(model.domain.id, buffer), EPERM);
  assert.equal(model.domain.ports.dmOp(pv.id, buffer), EINVAL);
  assert.equal(stranger.ports.dmOp(guest.id, buffer), EPERM);
  assert.equal(guest.ports.dmOp(model.domain.id, buffer), EPERM);
  xen.nameDeviceModel(guest.id, stranger.id);
  assert.equal(new RawModel(stranger, guest).create(), 0);
  assert.equal(new RawModel(stranger, addDomain(xen, 5)).create(), EPERM);
});

test('eight servers a guest; the lowest free id is the next; only its maker may touch one', () => {
  const { xen, guest, model } = scene();
  for (let id = 0; id < MAX_IOREQ_SERVERS; id++) assert.equal(model.create(), id);
  const { free } = xen;
  assert.equal(model.create(), ENOSPC);
  assert.equal(model.destroy(3), 0);
  assert.equal(model.destroy(3), ENOENT);
  assert.equal(model.create(), 3);
  const other = new RawModel(addDomain(xen, 6, { privileged: true }), guest);
  assert.deepEqual(
    [other.destroy(3), other.map(3, MEMORY, 0, 1), other.unmap(3, MEMORY, 0, 1), other.enable(3)],
    [EPERM, EPERM, EPERM, EPERM],
  );
  assert.equal(other.info(3).result, EPERM);
  for (const id of [8, 0xffff]) assert.equal(other.destroy(id), ENOENT);
  for (const _ of xen.destroyDomain(6));
  assert.equal(xen.free.frames, free.frames);
});

test('H28 XSA-238: ranges have an end that is not before their start, of a kind that exists, and do not overlap', () => {
  const { model } = scene();
  const id = model.create();
  assert.equal(model.map(id, MEMORY, 0x1000, 0x0fff), EINVAL);
  assert.equal(model.range(dm.XEN_DMOP_map_io_range_to_ioreq_server, id, MEMORY, 1n, 0n), EINVAL);
  assert.equal(model.unmap(id, MEMORY, 0x1000, 0x0fff), EINVAL);
  for (const type of [3, 2 ** 32 - 1]) assert.equal(model.map(id, type, 0, 1), EINVAL);
  assert.equal(model.map(9, MEMORY, 0, 1), ENOENT);
  assert.equal(model.map(9, MEMORY, 1, 0), EINVAL, 'the ends are looked at first, as in Xen');
  assert.equal(model.map(id, MEMORY, 0x1000, 0x1000), 0, 'one byte: both ends belong to it');
  for (const [start, end] of [
    [0x1000, 0x1000],
    [0, 0x1000],
    [0x1000, 0x2000],
    [0, 2 ** 40],
  ])
    assert.equal(model.map(id, MEMORY, start, end), EEXIST);
  assert.equal(model.map(id, PORT, 0x1000, 0x1000), 0, 'another kind');
  assert.equal(model.map(model.create(), MEMORY, 0, 0x2000), 0, 'another server');
  assert.equal(model.unmap(id, MEMORY, 0x1000, 0x1001), ENOENT);
  assert.equal(model.unmap(id, PCI, 0x1000, 0x1000), ENOENT);
  const max = 2n ** 64n - 1n;
  assert.equal(model.range(dm.XEN_DMOP_map_io_range_to_ioreq_server, id, MEMORY, max, max), 0);
});

test('256 ranges of each kind, -ENOMEM for one more', () => {
  const { model } = scene();
  const id = model.create();
  for (const type of [MEMORY, PORT, PCI]) {
    for (let i = 0; i < 256; i++) assert.equal(model.map(id, type, i * 4, i * 4 + 1), 0);
    assert.equal(model.map(id, type, 4096, 4097), ENOMEM);
  }
});

test('padding must be 0, flags must be known, and buffering of a kind that the architecture has', () => {
  const { model, xen } = scene();
  const id = model.create(dm.HVM_IOREQSRV_BUFIOREQ_ATOMIC);
  const create = (fields: object) =>
    model.call(dm.XEN_DMOP_create_ioreq_server, dm.xenDmOpCreateIoreqServer.make(fields).bytes).result;
  for (const pad of ['pad0', 'pad1', 'pad2']) assert.equal(create({ [pad]: 1 }), EINVAL);
  assert.equal(create({ handle_bufioreq: 3 }), EINVAL);
  const range = dm.xenDmOpIoreqServerRange.make({ id, pad: 1, type: MEMORY });
  assert.equal(model.call(dm.XEN_DMOP_map_io_range_to_ioreq_server, range.bytes).result, EINVAL);
  const state = dm.xenDmOpSetIoreqServerState.make({ id, pad: 1 });
  assert.equal(model.call(dm.XEN_DMOP_set_ioreq_server_state, state.bytes).result, EINVAL);
  const end = dm.xenDmOpDestroyIoreqServer.make({ id, pad: 1 });
  assert.equal(model.call(dm.XEN_DMOP_destroy_ioreq_server, end.bytes).result, EINVAL);
  assert.equal(model.info(id, 2).result, EINVAL);
  const arm = new RawModel(model.domain, addDomain(xen, 3, { architecture: 'arm' }));
  assert.equal(arm.create(dm.HVM_IOREQSRV_BUFIOREQ_LEGACY), EINVAL);
  assert.equal(arm.create(), 0);
});

test('a device model learns the number of processors, and the event channel of buffered requests if there is one', () => {
  const { model } = scene({ vcpus: 3 });
  const counted = model.call(dm.XEN_DMOP_nr_vcpus, dm.xenDmOpNrVcpus.make().bytes);
  assert.equal(dm.xenDmOpNrVcpus.over(counted.bytes).vcpus, 3);
  const [off, legacy] = [model.create(), model.create(dm.HVM_IOREQSRV_BUFIOREQ_LEGACY)];
  assert.equal(model.info(off).info.bufioreq_port, 0);
  assert.ok(model.info(legacy).info.bufioreq_port > 0);
  assert.equal(model.info(off, 0).result, ENOMEM, 'no pages were set aside in the guest');
});

test('pages that a toolstack set aside are the guest’s while its server is off, and out of its sight while it is on', () => {
  const { model, guest, xen } = scene({ kind: 'hvm' });
  const [first, second] = [16, 17];
  assert.deepEqual([setParam(model, 32, BigInt(first)), setParam(model, 33, 2n)], [0, 0]);
  const id = model.create(dm.HVM_IOREQSRV_BUFIOREQ_ATOMIC);
  const { result, info } = model.info(id, 0);
  assert.equal(result, 0);
  assert.deepEqual([info.ioreq_gfn, info.bufioreq_gfn], [first, second]);
  assert.equal(model.info(id, 0).result, 0, 'it has them already');
  assert.equal(model.acquire(0, id, 1, 0xf1000), EPERM, 'they are no pages of Xen’s own');
  guest.ports.addressSpace.write(first * 4096, new Uint8Array([1, 2, 3]));
  assert.equal(model.enable(id), 0);
  assert.throws(() => guest.ports.addressSpace.read(first * 4096, 1), /page fault/);
  assert.equal(model.enable(id, 0), 0);
  assert.deepEqual([...guest.ports.addressSpace.read(first * 4096, 3)], [0, 0, 0]);
  const another = model.create(dm.HVM_IOREQSRV_BUFIOREQ_ATOMIC);
  assert.equal(model.info(another, 0).result, ENOMEM);
  assert.equal(model.info(another).info.ioreq_gfn, 0, 'nothing was taken for it');
  assert.equal(model.destroy(id), 0);
  assert.equal(model.info(another, 0).info.ioreq_gfn, first);
  assert.equal(xen.domain(guest.id).shutdownCode, -1);
});

test('a guest that moved such a page away is ended when its server is switched on, as in Xen', () => {
  const { model, guest } = scene({ kind: 'hvm' });
  assert.deepEqual([setParam(model, 32, 16n), setParam(model, 33, 1n)], [0, 0]);
  const id = model.create();
  assert.equal(model.info(id, 0).result, 0);
  guest.record.physmap.remove(16);
  assert.equal(model.enable(id), 0);
  assert.equal(guest.record.shutdownCode, 3);
});

test('remote_shutdown ends the guest for the reason given, and the first reason stays', () => {
  const { model, guest } = scene();
  const end = (reason: number) =>
    model.call(dm.XEN_DMOP_remote_shutdown, dm.xenDmOpRemoteShutdown.make({ reason }).bytes).result;
  assert.equal(end(1), 0);
  assert.equal(end(3), 0);
  assert.equal(guest.record.shutdownCode, 1);
});

function setParam(model: RawModel, index: number, value: bigint): number {
  const { addressSpace } = model.domain.ports;
  addressSpace.write(0x5000, xenHvmParam.make({ domid: model.guest.id, index, value }).bytes);
  return model.domain.ports.hvmOp(HVMOP_set_param, 0x5000);
}
