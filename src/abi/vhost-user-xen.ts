// What Xen adds to vhost-user's description of a memory region: how it is to be mapped, and whose it is. Sent
// where VHOST_USER_PROTOCOL_F_XEN_MMAP is negotiated (QEMU, docs/interop/vhost-user.rst, "Memory region
// description").
//
// The text calls the third flag "Bit 8". The implementations, first of them vm-memory's MmapXenFlags, use the
// value 0x8, which is bit 3. So 0x8 is what counts here, and 0x100 is refused with this explanation.

import { struct } from './struct.ts';

/** Bit of the protocol features, as a number: 17. */
export const VHOST_USER_PROTOCOL_F_XEN_MMAP = 17;

/** One region, 40 bytes, little endian. */
export const vhostUserXenRegion = struct('vhost_user_memory_region with XEN_MMAP', {
  guest_address: 'addr64',
  size: 'u64',
  user_address: 'addr64',
  mmap_offset: 'u64',
  xen_mmap_flags: 'u32',
  domid: 'u32',
});

/** Memory of the domain `domid`, by its frame numbers (privcmd). */
export const XEN_MMAP_FOREIGN = 0x1;
/** Memory that the domain `domid` granted (gntdev). */
export const XEN_MMAP_GRANT = 0x2;
/** Each piece is mapped when it is used, and unmapped after. */
export const XEN_MMAP_NO_ADVANCE_MAP = 0x8;
/** The same as someone writes it who takes the specification's text at its word. */
export const XEN_MMAP_BIT_8 = 0x100;

/** How a region is mapped; `file` is a region as without Xen, by its file descriptor. */
export interface XenMapping {
  readonly kind: 'file' | 'foreign' | 'grant';
  /** As a whole, when the region is announced; if not, piece by piece, when it is used. */
  readonly inAdvance: boolean;
}

/** Why flags mean nothing. */
export interface XenMappingRefusal {
  readonly fault: 'bit-8' | 'unknown-bits' | 'foreign-and-grant' | 'no-advance-without-grant';
  readonly reason: string;
}

/** What `xen_mmap_flags` say, a u32. */
export function xenMapping(flags: number): XenMapping | XenMappingRefusal {
  if (flags & XEN_MMAP_BIT_8)
    return {
      fault: 'bit-8',
      reason:
        'flag 0x100 is "Bit 8" of the text; implementations use the value 0x8 for "not mapped in advance"',
    };
  const unknown = (flags & ~(XEN_MMAP_FOREIGN | XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP)) >>> 0;
  if (unknown !== 0)
    return { fault: 'unknown-bits', reason: `flags 0x${unknown.toString(16)} have no meaning` };
  const isForeign = (flags & XEN_MMAP_FOREIGN) !== 0;
  const isGrant = (flags & XEN_MMAP_GRANT) !== 0;
  if (isForeign && isGrant)
    return { fault: 'foreign-and-grant', reason: 'memory is either foreign or granted, not both' };
  const inAdvance = (flags & XEN_MMAP_NO_ADVANCE_MAP) === 0;
  if (!inAdvance && !isGrant)
    return { fault: 'no-advance-without-grant', reason: 'only granted memory can be mapped when it is used' };
  return { kind: isGrant ? 'grant' : isForeign ? 'foreign' : 'file', inAdvance };
}
