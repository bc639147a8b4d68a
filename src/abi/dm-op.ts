// Operations of a device model on its guest: commands and layouts of their arguments (public/hvm/dm_op.h).

import { struct } from './struct.ts';

export const XEN_DMOP_create_ioreq_server = 1;
export const XEN_DMOP_get_ioreq_server_info = 2;
export const XEN_DMOP_map_io_range_to_ioreq_server = 3;
export const XEN_DMOP_unmap_io_range_from_ioreq_server = 4;
export const XEN_DMOP_set_ioreq_server_state = 5;
export const XEN_DMOP_destroy_ioreq_server = 6;
export const XEN_DMOP_track_dirty_vram = 7;
export const XEN_DMOP_set_pci_intx_level = 8;
export const XEN_DMOP_set_isa_irq_level = 9;
export const XEN_DMOP_set_pci_link_route = 10;
export const XEN_DMOP_modified_memory = 11;
export const XEN_DMOP_inject_msi = 14;
export const XEN_DMOP_remote_shutdown = 16;
export const XEN_DMOP_set_irq_level = 19;
export const XEN_DMOP_nr_vcpus = 20;

/** Kinds of ranges. */
export const XEN_DMOP_IO_RANGE_PORT = 0;
export const XEN_DMOP_IO_RANGE_MEMORY = 1;
export const XEN_DMOP_IO_RANGE_PCI = 2;

/** How a server takes buffered requests. */
export const HVM_IOREQSRV_BUFIOREQ_OFF = 0;
export const HVM_IOREQSRV_BUFIOREQ_LEGACY = 1;
export const HVM_IOREQSRV_BUFIOREQ_ATOMIC = 2;

/** In the flags of get_ioreq_server_info: the pages are not wanted in the guest's address space. */
export const XEN_DMOP_no_gfns = 1;

/** Where one buffer of the hypercall lies, and its bytes. */
export const xenDmOpBuf = struct('xen_dm_op_buf', { h: 'u64', size: 'u64' });

/** What every operation begins with; its own arguments follow. */
export const xenDmOp = struct('xen_dm_op', { op: 'u32', pad: 'u32' });

export const xenDmOpCreateIoreqServer = struct('xen_dm_op_create_ioreq_server', {
  handle_bufioreq: 'u8',
  pad0: 'u8',
  pad1: 'u8',
  pad2: 'u8',
  id: 'u16',
});
export const xenDmOpGetIoreqServerInfo = struct('xen_dm_op_get_ioreq_server_info', {
  id: 'u16',
  flags: 'u16',
  bufioreq_port: 'u32',
  ioreq_gfn: 'u64',
  bufioreq_gfn: 'u64',
});
/** For map and unmap; `end` belongs to the range. */
export const xenDmOpIoreqServerRange = struct('xen_dm_op_ioreq_server_range', {
  id: 'u16',
  pad: 'u16',
  type: 'u32',
  start: 'bits64',
  end: 'bits64',
});
export const xenDmOpSetIoreqServerState = struct('xen_dm_op_set_ioreq_server_state', {
  id: 'u16',
  enabled: 'u8',
  pad: 'u8',
});
export const xenDmOpDestroyIoreqServer = struct('xen_dm_op_destroy_ioreq_server', { id: 'u16', pad: 'u16' });
export const xenDmOpTrackDirtyVram = struct('xen_dm_op_track_dirty_vram', {
  nr: 'u32',
  pad: 'u32',
  first_pfn: 'u64',
});
export const xenDmOpSetPciIntxLevel = struct('xen_dm_op_set_pci_intx_level', {
  domain: 'u16',
  bus: 'u8',
  device: 'u8',
  intx: 'u8',
  level: 'u8',
});
export const xenDmOpSetIsaIrqLevel = struct('xen_dm_op_set_isa_irq_level', { isa_irq: 'u8', level: 'u8' });
export const xenDmOpSetPciLinkRoute = struct('xen_dm_op_set_pci_link_route', { link: 'u8', isa_irq: 'u8' });
export const xenDmOpModifiedMemory = struct('xen_dm_op_modified_memory', {
  nr_extents: 'u32',
  opaque: 'u32',
});
export const xenDmOpInjectMsi = struct('xen_dm_op_inject_msi', { data: 'u32', pad: 'u32', addr: 'addr64' });
export const xenDmOpRemoteShutdown = struct('xen_dm_op_remote_shutdown', { reason: 'u32' });
export const xenDmOpSetIrqLevel = struct('xen_dm_op_set_irq_level', {
  irq: 'u32',
  level: 'u8',
  pad0: 'u8',
  pad1: 'u8',
  pad2: 'u8',
});
export const xenDmOpNrVcpus = struct('xen_dm_op_nr_vcpus', { vcpus: 'u32' });
