// What Xen tells a toolstack about a domain (public/domctl.h, public/arch-x86/xen.h). These structures are no stable
// interface: each release may change them, and refuses callers who know another version with EACCES.

import { struct } from './struct.ts';

export const XEN_DOMCTL_getdomaininfo = 5;

/** What every operation begins with; its own arguments follow. */
export const xenDomctl = struct('xen_domctl', {
  cmd: 'u32',
  interface_version: 'u32',
  domain: 'u16',
  _pad: { bytes: 6 },
});
/** Bytes of an operation with the longest arguments: nothing that Xen writes back goes past them. */
export const XEN_DOMCTL_SIZE = 144;

/** As it is in all of XEN_DOMCTL_INTERFACE_VERSIONS; `emulation_flags` are of x86, and elsewhere mean something else. */
export const xenDomctlGetdomaininfo = struct('xen_domctl_getdomaininfo', {
  domain: 'u16',
  pad1: 'u16',
  flags: 'u32',
  tot_pages: 'u64',
  max_pages: 'u64',
  outstanding_pages: 'u64',
  shr_pages: 'u64',
  paged_pages: 'u64',
  shared_info_frame: 'u64',
  cpu_time: 'u64',
  nr_online_vcpus: 'u32',
  max_vcpu_id: 'u32',
  ssidref: 'u32',
  handle: { bytes: 16 },
  cpupool: 'u32',
  gpaddr_bits: 'u8',
  pad2: { bytes: 7 },
  emulation_flags: 'u32',
});

/** Of Xen 4.16, 4.17, 4.18, 4.19 to 4.21, and 4.22: those that lay the structures above out alike. */
export const XEN_DOMCTL_INTERFACE_VERSIONS = [0x14, 0x15, 0x16, 0x17, 0x18] as const;

/** Flags of a domain. */
export const XEN_DOMINF_dying = 1 << 0;
export const XEN_DOMINF_hvm_guest = 1 << 1;

/** Devices that Xen emulates for a guest on x86. */
export const XEN_X86_EMU_LAPIC = 1 << 0;
export const XEN_X86_EMU_IOAPIC = 1 << 4;
export const XEN_X86_EMU_PIC = 1 << 5;
