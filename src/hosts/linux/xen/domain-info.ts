// What kind of guest a domain is, as Xen itself says (XEN_DOMCTL_getdomaininfo). The toolstack's notes in xenstore would
// say it too, but a wrong answer can end the host (see interrupt-line.ts). After privcmd.ts.

import { constants } from 'node:os';
import {
  XEN_DOMCTL_getdomaininfo,
  XEN_DOMCTL_INTERFACE_VERSIONS,
  XEN_DOMCTL_SIZE,
  XEN_DOMINF_dying,
  XEN_DOMINF_hvm_guest,
  xenDomctl,
  xenDomctlGetdomaininfo,
} from '../../../abi/domctl.ts';
import { HYPERVISOR_domctl } from '../../../abi/privcmd.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainId } from '../../../xen/ids.ts';
import { checked, type Libc } from '../libc.ts';
import { openXenDevice } from './device-files.ts';
import type { Privcmd } from './privcmd.ts';

const { EACCES, EPERM, ESRCH } = constants.errno;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** A domain. */
export interface DomainInfo {
  /** Whether its machine is emulated or has its own address space (HVM, PVH, every guest on Arm), which PV has not. */
  readonly translated: boolean;
  /** XEN_X86_EMU_: what Xen emulates for it; of no meaning elsewhere. */
  readonly emulation: number;
  /** 4 KiB pages that it may have at most. */
  readonly maxPages: number;
}

/**
 * Asks Xen about a domain, which only a privileged domain may.
 *
 * @throws RangeError when there is no such domain, this one may not ask, or Xen is of a version that is not known
 */
export function domainInfo(libc: Libc, privcmd: Privcmd, guest: DomainId): DomainInfo {
  // Memory of a program may move while Xen reads it; that of this device does not.
  const fd = openXenDevice(libc, '/dev/xen/hypercall');
  const address = libc.mmap(0, XEN_PAGE_SIZE, PROT_READ_WRITE, MAP_SHARED, fd, 0);
  libc.close(fd);
  checked(libc, 'mmap', address, '/dev/xen/hypercall');
  try {
    return ask(privcmd, new Uint8Array(libc.view(address, XEN_PAGE_SIZE)), address, guest);
  } finally {
    libc.munmap(address, XEN_PAGE_SIZE);
  }
}

function ask(privcmd: Privcmd, page: Uint8Array, address: number, guest: DomainId): DomainInfo {
  const head = xenDomctl.over(page);
  for (const version of XEN_DOMCTL_INTERFACE_VERSIONS) {
    page.fill(0, 0, XEN_DOMCTL_SIZE);
    head.cmd = XEN_DOMCTL_getdomaininfo;
    head.interface_version = version;
    head.domain = guest;
    const result = privcmd.hypercall(HYPERVISOR_domctl, address);
    // Which is how Xen says that its version is another one.
    if (result === -EACCES) continue;
    if (result < 0) throw new RangeError(`domain ${guest}: ${whyRefused(result)}`);
    return read(page, guest);
  }
  const known = XEN_DOMCTL_INTERFACE_VERSIONS.map((version) => `0x${version.toString(16)}`).join(', ');
  throw new RangeError(
    `domain ${guest}: this Xen does not say what kind of guest it is to a program that knows its domctl versions ` +
      `${known} only (Xen 4.16 to 4.22)`,
  );
}

function read(page: Uint8Array, guest: DomainId): DomainInfo {
  const info = xenDomctlGetdomaininfo.over(page).at(xenDomctl.size);
  // Xen before 4.18 answers for the next domain where there is no such one.
  if (info.domain !== guest || (info.flags & XEN_DOMINF_dying) !== 0)
    throw new RangeError(`domain ${guest}: ${whyRefused(-ESRCH)}`);
  return {
    translated: (info.flags & XEN_DOMINF_hvm_guest) !== 0,
    emulation: info.emulation_flags,
    maxPages: info.max_pages,
  };
}

function whyRefused(result: number): string {
  if (result === -ESRCH) return 'there is none, or it is going';
  if (result === -EPERM)
    return 'this domain may not ask Xen what kind of guest it is, and without that no device is served to it';
  return `Xen does not say what kind of guest it is (error ${result})`;
}
