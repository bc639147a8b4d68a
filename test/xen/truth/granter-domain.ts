// A domain that does nothing but own a few pages and a grant table (Xen 4.17, public/domctl.h). It is made by
// hypercalls alone, without a toolstack: it has no processor. After hypercalls.ts.

import { struct } from '../../../src/abi/struct.ts';
import type { Hypercalls, Memory } from './hypercalls.ts';

const XEN_DOMCTL_INTERFACE_VERSION = 0x15;
const XEN_DOMCTL_CREATEDOMAIN = 1;
const XEN_DOMCTL_DESTROYDOMAIN = 2;
const XEN_DOMCTL_MAX_MEM = 11;
const XEN_DOMCTL_CDF_HVM = 1;
const XEN_DOMCTL_CDF_HAP = 2;
const XEN_X86_EMU_LAPIC = 1;
const XENMEM_POPULATE_PHYSMAP = 6;
const XENMEM_RESOURCE_GRANT_TABLE = 1;

/** struct xen_domctl with the members of its union that are used; 128 bytes of union in all. */
const header = { cmd: 'u32', interface_version: 'u32', domain: 'u16', _pad0: 'u16', _pad1: 'u32' } as const;
const createDomain = struct('xen_domctl createdomain', {
  ...header,
  ssidref: 'u32',
  handle: { bytes: 16 },
  flags: 'u32',
  iommu_opts: 'u32',
  max_vcpus: 'u32',
  max_evtchn_port: 'u32',
  max_grant_frames: 'i32',
  max_maptrack_frames: 'i32',
  grant_opts: 'u32',
  vmtrace_size: 'u32',
  cpupool_id: 'u32',
  emulation_flags: 'u32',
  misc_flags: 'u32',
  _pad2: { bytes: 64 },
});
const maxMem = struct('xen_domctl max_mem', { ...header, max_memkb: 'u64', _pad2: { bytes: 120 } });

/** Where the pages of a domain with an address space of its own stand. */
const FIRST_GFN = 0x100;
const KIB_PER_PAGE = 4;

/** What a domain is made with. */
interface GranterOptions {
  readonly isHvm: boolean;
  readonly pages: number;
  /** Frames of its table, which is mapped, and the most that it may have. */
  readonly tableFrames: number;
  readonly maxTableFrames: number;
}

export class GranterDomain {
  readonly #xen: Hypercalls;
  readonly #id: number;
  /** Numbers by which the domain grants its pages: of the machine for a PV domain, its own otherwise. */
  readonly frames: readonly number[];
  readonly pages: Memory;
  readonly table: Memory;

  constructor(xen: Hypercalls, id: number, { isHvm, pages, tableFrames, maxTableFrames }: GranterOptions) {
    this.#xen = xen;
    this.#id = id;
    const options = {
      flags: isHvm ? XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP : 0,
      emulation_flags: isHvm ? XEN_X86_EMU_LAPIC : 0,
      max_vcpus: 1,
      max_evtchn_port: 1023,
      max_grant_frames: maxTableFrames,
      max_maptrack_frames: 1,
      grant_opts: 2,
    };
    this.#control(createDomain.make({ ...this.#header(XEN_DOMCTL_CREATEDOMAIN), ...options }).bytes);
    const limit = { max_memkb: (pages + 64) * KIB_PER_PAGE };
    this.#control(maxMem.make({ ...this.#header(XEN_DOMCTL_MAX_MEM), ...limit }).bytes);
    const places = Array.from({ length: pages }, (_, index) => FIRST_GFN + index);
    const filled = xen.reserve(XENMEM_POPULATE_PHYSMAP, id, places);
    this.frames = isHvm ? places : filled;
    this.pages = xen.mapFrames(id, this.frames);
    for (const page of this.pages.pages) page.fill(0);
    this.table = xen.mapResource(id, XENMEM_RESOURCE_GRANT_TABLE, tableFrames);
  }

  destroy(): void {
    this.pages.close();
    this.table.close();
    this.#control(createDomain.make(this.#header(XEN_DOMCTL_DESTROYDOMAIN)).bytes);
  }

  #header(cmd: number) {
    return { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain: this.#id };
  }

  #control(bytes: Uint8Array): void {
    const result = this.#xen.domctl(bytes);
    const [command] = new Uint32Array(bytes.buffer, bytes.byteOffset, 1);
    if (result !== 0) throw new Error(`domain ${this.#id}: domctl ${command} gave ${result}`);
  }
}
