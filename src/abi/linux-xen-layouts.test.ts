// Layouts and numbers of Linux's Xen devices against their headers (include/uapi/xen/gntdev.h, gntalloc.h, evtchn.h,
// privcmd.h), and of what Xen tells a toolstack about a domain (public/domctl.h), for 64-bit callers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as domctl from './domctl.ts';
import * as evtchn from './evtchn.ts';
import * as gnt from './gntdev.ts';
import * as pc from './privcmd.ts';
import type { FieldLayout } from './struct.ts';

/** Names and offsets of the fields that are no padding, and the size last. */
const layouts: [{ name: string; size: number; fields: readonly FieldLayout[] }, string][] = [
  [gnt.ioctlGntdevMapGrantRef, 'count 0, index 8, domid 16, ref 20, 24'],
  [gnt.ioctlGntdevGrantRef, 'domid 0, ref 4, 8'],
  [gnt.ioctlGntdevUnmapGrantRef, 'index 0, count 8, 16'],
  [gnt.ioctlGntdevGrantCopy, 'count 0, segments 8, 16'],
  [
    gnt.gntdevCopyIn,
    'foreign_ref 0, foreign_offset 4, foreign_domid 6, virt 8, len 16, flags 18, status 20, 24',
  ],
  [
    gnt.gntdevCopyOut,
    'virt 0, foreign_ref 8, foreign_offset 12, foreign_domid 14, len 16, flags 18, status 20, 24',
  ],
  [gnt.ioctlGntallocAllocGref, 'domid 0, flags 2, count 4, index 8, gref_ids 16, 24'],
  [gnt.ioctlGntallocDeallocGref, 'index 0, count 8, 16'],
  [evtchn.ioctlEvtchnBindInterdomain, 'remote_domain 0, remote_port 4, 8'],
  [evtchn.ioctlEvtchnWord, 'value 0, 4'],
  [pc.privcmdHypercall, 'op 0, arg0 8, arg1 16, arg2 24, arg3 32, arg4 40, 48'],
  [pc.privcmdMmapbatchV2, 'num 0, dom 4, addr 8, arr 16, err 24, 32'],
  [pc.privcmdDmOp, 'dom 0, num 2, ubufs 8, 16'],
  [pc.privcmdMmapResource, 'dom 0, type 4, id 8, idx 12, num 16, addr 24, 32'],
  [domctl.xenDomctl, 'cmd 0, interface_version 4, domain 8, 16'],
  [
    domctl.xenDomctlGetdomaininfo,
    'domain 0, flags 4, tot_pages 8, max_pages 16, outstanding_pages 24, shr_pages 32, paged_pages 40, ' +
      'shared_info_frame 48, cpu_time 56, nr_online_vcpus 64, max_vcpu_id 68, ssidref 72, handle 76, cpupool 92, ' +
      'gpaddr_bits 96, emulation_flags 104, 108',
  ],
];

for (const [{ name, size, fields }, expected] of layouts) {
  test(`struct ${name}: ${expected}`, () => {
    const shown = fields.filter((field) => !/^_?pad/.test(field.name));
    assert.equal([...shown.map((field) => `${field.name} ${field.offset}`), size].join(', '), expected);
  });
}

/** A number of these devices: _IOC(_IOC_NONE, group, number, size). */
const ioctl = (group: string, number: number, size: number) =>
  (size << 16) | (group.charCodeAt(0) << 8) | number;

test('an ioctl’s number says how long its argument is', () => {
  const numbers: [number, string, number, { size: number }][] = [
    [gnt.IOCTL_GNTDEV_MAP_GRANT_REF, 'G', 0, gnt.ioctlGntdevMapGrantRef],
    [gnt.IOCTL_GNTDEV_UNMAP_GRANT_REF, 'G', 1, gnt.ioctlGntdevUnmapGrantRef],
    [gnt.IOCTL_GNTDEV_GRANT_COPY, 'G', 8, gnt.ioctlGntdevGrantCopy],
    [gnt.IOCTL_GNTALLOC_ALLOC_GREF, 'G', 5, gnt.ioctlGntallocAllocGref],
    [gnt.IOCTL_GNTALLOC_DEALLOC_GREF, 'G', 6, gnt.ioctlGntallocDeallocGref],
    [evtchn.IOCTL_EVTCHN_BIND_INTERDOMAIN, 'E', 1, evtchn.ioctlEvtchnBindInterdomain],
    [evtchn.IOCTL_EVTCHN_BIND_UNBOUND_PORT, 'E', 2, evtchn.ioctlEvtchnWord],
    [evtchn.IOCTL_EVTCHN_UNBIND, 'E', 3, evtchn.ioctlEvtchnWord],
    [evtchn.IOCTL_EVTCHN_NOTIFY, 'E', 4, evtchn.ioctlEvtchnWord],
    [pc.IOCTL_PRIVCMD_HYPERCALL, 'P', 0, pc.privcmdHypercall],
    [pc.IOCTL_PRIVCMD_MMAPBATCH_V2, 'P', 4, pc.privcmdMmapbatchV2],
    [pc.IOCTL_PRIVCMD_DM_OP, 'P', 5, pc.privcmdDmOp],
    [pc.IOCTL_PRIVCMD_MMAP_RESOURCE, 'P', 7, pc.privcmdMmapResource],
  ];
  for (const [number, group, index, { size }] of numbers) assert.equal(number, ioctl(group, index, size));
});

test('hypercalls, and flags of domains, have the headers’ numbers', () => {
  assert.deepEqual([pc.HYPERVISOR_grant_table_op, pc.HYPERVISOR_domctl], [20, 36]);
  assert.deepEqual([domctl.XEN_DOMCTL_getdomaininfo, gnt.GNTALLOC_FLAG_WRITABLE], [5, 1]);
  assert.deepEqual([domctl.XEN_DOMINF_dying, domctl.XEN_DOMINF_hvm_guest], [1, 2]);
  assert.deepEqual(
    [domctl.XEN_X86_EMU_LAPIC, domctl.XEN_X86_EMU_IOAPIC, domctl.XEN_X86_EMU_PIC],
    [1, 0x10, 0x20],
  );
});
