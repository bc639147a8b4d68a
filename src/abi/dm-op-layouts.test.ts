// Layouts and numbers of device models, HVM parameters and address spaces against Xen's public headers: hvm/dm_op.h,
// hvm/ioreq.h, hvm/hvm_op.h, hvm/params.h, memory.h, for 64-bit callers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as dm from './dm-op.ts';
import * as hvm from './hvm-params.ts';
import * as io from './ioreq.ts';
import * as mem from './memory-op.ts';
import type { FieldLayout } from './struct.ts';

/** Names and offsets of the fields that are no padding, and the size last. */
const layouts: [{ name: string; size: number; fields: readonly FieldLayout[] }, string][] = [
  [dm.xenDmOpBuf, 'h 0, size 8, 16'],
  [dm.xenDmOp, 'op 0, 8'],
  [dm.xenDmOpCreateIoreqServer, 'handle_bufioreq 0, id 4, 6'],
  [dm.xenDmOpGetIoreqServerInfo, 'id 0, flags 2, bufioreq_port 4, ioreq_gfn 8, bufioreq_gfn 16, 24'],
  [dm.xenDmOpIoreqServerRange, 'id 0, type 4, start 8, end 16, 24'],
  [dm.xenDmOpSetIoreqServerState, 'id 0, enabled 2, 4'],
  [dm.xenDmOpDestroyIoreqServer, 'id 0, 4'],
  [dm.xenDmOpTrackDirtyVram, 'nr 0, first_pfn 8, 16'],
  [dm.xenDmOpSetPciIntxLevel, 'domain 0, bus 2, device 3, intx 4, level 5, 6'],
  [dm.xenDmOpSetIsaIrqLevel, 'isa_irq 0, level 1, 2'],
  [dm.xenDmOpSetPciLinkRoute, 'link 0, isa_irq 1, 2'],
  [dm.xenDmOpModifiedMemory, 'nr_extents 0, opaque 4, 8'],
  [dm.xenDmOpInjectMsi, 'data 0, addr 8, 16'],
  [dm.xenDmOpRemoteShutdown, 'reason 0, 4'],
  [dm.xenDmOpSetIrqLevel, 'irq 0, level 4, 8'],
  [dm.xenDmOpNrVcpus, 'vcpus 0, 4'],
  [hvm.xenHvmParam, 'domid 0, index 4, value 8, 16'],
  [mem.xenAddToPhysmap, 'domid 0, size 2, space 4, idx 8, gpfn 16, 24'],
  [mem.xenAddToPhysmapBatch, 'domid 0, space 2, size 4, foreign_domid 6, idxs 8, gpfns 16, errs 24, 32'],
  [mem.xenRemoveFromPhysmap, 'domid 0, gpfn 8, 16'],
  [mem.xenMemAcquireResource, 'domid 0, type 2, id 4, nr_frames 8, frame 16, frame_list 24, 32'],
];

for (const [{ name, size, fields }, expected] of layouts) {
  test(`struct ${name}: ${expected}`, () => {
    const shown = fields.filter((field) => !/^_?pad/.test(field.name));
    assert.equal([...shown.map((field) => `${field.name} ${field.offset}`), size].join(', '), expected);
  });
}

test('operations of device models, ranges and kinds of buffering have the header’s numbers', () => {
  const operations = [
    dm.XEN_DMOP_create_ioreq_server,
    dm.XEN_DMOP_get_ioreq_server_info,
    dm.XEN_DMOP_map_io_range_to_ioreq_server,
    dm.XEN_DMOP_unmap_io_range_from_ioreq_server,
    dm.XEN_DMOP_set_ioreq_server_state,
    dm.XEN_DMOP_destroy_ioreq_server,
    dm.XEN_DMOP_track_dirty_vram,
    dm.XEN_DMOP_set_pci_intx_level,
    dm.XEN_DMOP_set_isa_irq_level,
    dm.XEN_DMOP_set_pci_link_route,
    dm.XEN_DMOP_modified_memory,
  ];
  assert.deepEqual(operations, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  assert.deepEqual([dm.XEN_DMOP_inject_msi, dm.XEN_DMOP_remote_shutdown], [14, 16]);
  assert.deepEqual([dm.XEN_DMOP_set_irq_level, dm.XEN_DMOP_nr_vcpus], [19, 20]);
  assert.deepEqual(
    [dm.XEN_DMOP_IO_RANGE_PORT, dm.XEN_DMOP_IO_RANGE_MEMORY, dm.XEN_DMOP_IO_RANGE_PCI],
    [0, 1, 2],
  );
  const buffering = [
    dm.HVM_IOREQSRV_BUFIOREQ_OFF,
    dm.HVM_IOREQSRV_BUFIOREQ_LEGACY,
    dm.HVM_IOREQSRV_BUFIOREQ_ATOMIC,
  ];
  assert.deepEqual(buffering, [0, 1, 2]);
});

test('an ioreq’s flags and types, and a page of buffered ones: two indices, 511 slots of 8 bytes', () => {
  assert.deepEqual([io.IOREQ_DATA_IS_PTR, io.IOREQ_READ, io.IOREQ_DF], [0x10, 0x20, 0x40]);
  assert.deepEqual([io.IOREQ_TYPE_PIO, io.IOREQ_TYPE_COPY, io.IOREQ_TYPE_PCI_CONFIG], [0, 1, 2]);
  assert.deepEqual([io.BUFFERED_READ_POINTER, io.BUFFERED_WRITE_POINTER, io.BUFFERED_SLOTS], [0, 4, 8]);
  assert.equal(io.BUFFERED_SLOTS + io.IOREQ_BUFFER_SLOT_NUM * io.BUFFERED_SLOT_SIZE, 4096);
  assert.deepEqual([io.BUFFERED_SIZE_SHIFT, io.BUFFERED_ADDRESS_SHIFT], [10, 12]);
});

test('parameters and operations on memory have the headers’ numbers', () => {
  assert.deepEqual([hvm.HVMOP_set_param, hvm.HVMOP_get_param, hvm.HVM_NR_PARAMS], [0, 1, 39]);
  assert.deepEqual([hvm.HVM_PARAM_STORE_PFN, hvm.HVM_PARAM_STORE_EVTCHN], [1, 2]);
  assert.deepEqual([hvm.HVM_PARAM_CONSOLE_PFN, hvm.HVM_PARAM_CONSOLE_EVTCHN], [17, 18]);
  assert.deepEqual([hvm.HVM_PARAM_IOREQ_PFN, hvm.HVM_PARAM_BUFIOREQ_PFN], [5, 6]);
  assert.deepEqual([hvm.HVM_PARAM_IOREQ_SERVER_PFN, hvm.HVM_PARAM_NR_IOREQ_SERVER_PAGES], [32, 33]);
  const operations = [
    mem.XENMEM_add_to_physmap,
    mem.XENMEM_remove_from_physmap,
    mem.XENMEM_add_to_physmap_batch,
    mem.XENMEM_acquire_resource,
  ];
  assert.deepEqual(operations, [7, 15, 23, 28]);
  const spaces = [
    mem.XENMAPSPACE_shared_info,
    mem.XENMAPSPACE_grant_table,
    mem.XENMAPSPACE_gmfn,
    mem.XENMAPSPACE_gmfn_range,
    mem.XENMAPSPACE_gmfn_foreign,
    mem.XENMAPSPACE_dev_mmio,
  ];
  assert.deepEqual(spaces, [0, 1, 2, 3, 4, 5]);
  assert.deepEqual([mem.XENMEM_resource_ioreq_server, mem.XENMEM_resource_grant_table], [0, 1]);
});
