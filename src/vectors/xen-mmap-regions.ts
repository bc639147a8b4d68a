// Vectors: vhost-user's description of a memory region where VHOST_USER_PROTOCOL_F_XEN_MMAP is negotiated.

import {
  vhostUserXenRegion,
  XEN_MMAP_BIT_8,
  XEN_MMAP_FOREIGN,
  XEN_MMAP_GRANT,
  XEN_MMAP_NO_ADVANCE_MAP,
  type XenMapping,
  type XenMappingRefusal,
  xenMapping,
} from '../abi/vhost-user-xen.ts';
import { hex64, type Refused, type Vector, type VectorGroup } from './vector.ts';

interface Region {
  readonly guestAddress: string;
  readonly size: string;
  readonly userAddress: string;
  readonly mmapOffset: string;
  readonly xenMmapFlags: number;
  readonly domid: number;
}

/** The region's bytes in hexadecimal, and how it is to be mapped. */
type Described = { readonly bytes: string } & (
  | XenMapping
  | (Refused<XenMappingRefusal['fault']> & { readonly diagnosis: string })
);

export type RegionVector = Vector<Region, Described, XenMapping>;

/** A guest's memory, and the window of addresses that stand for grants. */
const MEMORY = { guestAddress: 0x4000_0000n, size: 0x1000_0000n, userAddress: 0x4000_0000n };
const WINDOW = { guestAddress: 1n << 63n, size: 1n << 44n, userAddress: 1n << 63n };

function bytesOf({ guestAddress, size, userAddress }: typeof MEMORY, flags: number, domid: number): string {
  const { bytes } = vhostUserXenRegion.make({
    guest_addressLow: Number(guestAddress & 0xffff_ffffn),
    guest_addressHigh: Number(guestAddress >> 32n),
    size: Number(size),
    user_addressLow: Number(userAddress & 0xffff_ffffn),
    user_addressHigh: Number(userAddress >> 32n),
    mmap_offset: 0,
    xen_mmap_flags: flags,
    domid,
  });
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function vector(
  id: string,
  source: string,
  region: typeof MEMORY,
  flags: number,
  domid: number,
  wrong?: { readonly by: string; readonly answer: XenMapping },
): RegionVector {
  const mapping = xenMapping(flags);
  const bytes = bytesOf(region, flags, domid);
  const made: RegionVector = {
    id,
    source,
    input: {
      guestAddress: hex64(region.guestAddress),
      size: hex64(region.size),
      userAddress: hex64(region.userAddress),
      mmapOffset: hex64(0n),
      xenMmapFlags: flags,
      domid,
    },
    expected:
      'fault' in mapping
        ? { bytes, refused: mapping.fault, diagnosis: mapping.reason }
        : { bytes, ...mapping },
  };
  return wrong === undefined ? made : { ...made, wrong: [wrong] };
}

const TEXT = 'QEMU, docs/interop/vhost-user.rst, "Memory region description"';
const CODE = 'vm-memory, src/mmap/xen.rs: MmapXenFlags and its is_valid()';
const BIT_8 = `${TEXT}, says "Bit 8"; ${CODE}, has the value 0x8`;
const IN_ADVANCE = { kind: 'grant', inAdvance: true } as const;
const UNHEARD = { by: 'whoever ignores flags that it does not know', answer: IN_ADVANCE };
const DEAF = {
  by: 'whoever takes "Bit 8" at its word, and ignores flags that it does not know',
  answer: IN_ADVANCE,
};

/** The group. */
export const xenMmapRegions: VectorGroup<RegionVector> = {
  group: 'xen-mmap-regions',
  format: 1,
  about:
    'A memory region of vhost-user with VHOST_USER_PROTOCOL_F_XEN_MMAP (bit 17): 40 bytes, little endian. Flags: 0x1 foreign, 0x2 grant, 0x8 not mapped in advance, with grant only; none of the first two: by its file descriptor. bytes is the region as it is sent. kind and inAdvance say how it is mapped. 0x100 is what the text of the specification calls "Bit 8": it is refused, with a diagnosis for people.',
  vectors: [
    vector('foreign', TEXT, MEMORY, XEN_MMAP_FOREIGN, 2),
    vector('grant-in-advance', TEXT, WINDOW, XEN_MMAP_GRANT, 2),
    vector('grant-when-used', BIT_8, WINDOW, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP, 2, DEAF),
    vector('file', CODE, MEMORY, 0, 0),
    vector('highest-domain', TEXT, WINDOW, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP, 0x7fef),
    vector('grant-with-bit-8', BIT_8, WINDOW, XEN_MMAP_GRANT | XEN_MMAP_BIT_8, 2, UNHEARD),
    vector('grant-with-both', BIT_8, WINDOW, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP | XEN_MMAP_BIT_8, 2),
    vector('foreign-and-grant', CODE, MEMORY, XEN_MMAP_FOREIGN | XEN_MMAP_GRANT, 2),
    vector('foreign-when-used', CODE, MEMORY, XEN_MMAP_FOREIGN | XEN_MMAP_NO_ADVANCE_MAP, 2),
    vector('file-when-used', CODE, MEMORY, XEN_MMAP_NO_ADVANCE_MAP, 0),
    vector('unknown-flag', CODE, WINDOW, XEN_MMAP_GRANT | 0x4, 2, UNHEARD),
    vector('unknown-high-flag', CODE, WINDOW, (XEN_MMAP_GRANT | (1 << 31)) >>> 0, 2, UNHEARD),
  ],
};
