// Where things stand in the address spaces of guests: memory, the pages of console and xenstore, the grant
// table, and the place where a domain maps what others granted (public/arch-arm.h, public/arch-x86, libxc).

import { GUEST_GNTTAB_BASE, GUEST_RAM_BANKS, GUEST_VIRTIO_MMIO_BASE } from '../../abi/xen-arm.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';

/** How a guest is virtualised: its page tables are Xen's business (PV), or its machine is emulated. */
export type DomainKind = 'pv' | 'hvm' | 'pvh';
/** What a machine, and every domain on it, is made of. */
export const ARCHITECTURES = ['arm', 'x86'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** Frame numbers (gfn) of a guest's address space. */
export interface AddressMap {
  /** First frame of memory, and the most bytes that fit there. */
  readonly ram: number;
  readonly ramBytes: number;
  /** The pages through which the guest talks to its console and to xenstore. */
  readonly console: number;
  readonly xenstore: number;
  /** Where a guest of ours puts the frames of its grant table, and behind them those with statuses. */
  readonly grantTable: number;
  readonly grantStatus: number;
  /** Where a backend of ours maps the pages of its ioreq servers, one for each guest. */
  readonly deviceModel: number;
  /** Address (not frame) of the first virtio-mmio device. */
  readonly virtioMmio: number;
}

const page = (address: number) => address / XEN_PAGE_SIZE;

/** Frames of grant table that any map has room for, before its status frames. */
export const GRANT_TABLE_ROOM = 0x8000;

const arm: AddressMap = {
  ram: page(GUEST_RAM_BANKS[0].base),
  ramBytes: GUEST_RAM_BANKS[0].size,
  console: page(0x3900_0000),
  xenstore: page(0x3900_1000),
  grantTable: page(GUEST_GNTTAB_BASE),
  grantStatus: page(0x3a00_0000),
  deviceModel: page(0x3c00_0000),
  virtioMmio: GUEST_VIRTIO_MMIO_BASE,
};

/** Memory up to the hole for devices; the eight special pages below 0xff000 as libxc lays them out. */
const x86: AddressMap = {
  ram: 0,
  ramBytes: 0xd000_0000,
  console: 0xfefff,
  xenstore: 0xfeffc,
  grantTable: page(0xe000_0000),
  grantStatus: page(0xe800_0000),
  deviceModel: page(0xf000_0000),
  virtioMmio: 0xd000_0000,
};

/** First frame of the window in which a domain maps grants; above everything else in any map. */
export const GRANT_WINDOW = page(0x1_0000_0000);

/** The address map of a guest. */
export function addressMap(architecture: Architecture): AddressMap {
  return architecture === 'arm' ? arm : x86;
}
