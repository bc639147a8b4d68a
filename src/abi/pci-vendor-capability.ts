// A capability of ours in the PCI configuration space of a virtio device, which says to which domain the guest has
// to grant: virtio's vendor data capability (§4.1.4.8) with the vendor id of XenSource, behind the list of
// capabilities of PCI 3.0 §6.7. Walked by toolstack/pci-finding.ts.

import { struct } from './struct.ts';

/** Bytes of the configuration space that the list of capabilities lies in. */
export const PCI_CONFIG_SIZE = 256;
/** The status register, whose bit says that there is a list, and the pointer to its first capability. */
export const PCI_STATUS = 0x06;
export const PCI_STATUS_CAPABILITIES = 0x10;
export const PCI_CAPABILITY_POINTER = 0x34;
/** Capabilities stand behind the header, each on a multiple of four bytes. */
export const PCI_CAPABILITIES_START = 0x40;
export const PCI_CAPABILITY_ALIGN = 4;

/** Kind of a capability whose meaning the vendor decides: all of virtio's are of it. */
export const PCI_CAP_ID_VNDR = 0x09;
/** virtio's kind of a capability that is a vendor's own. */
export const VIRTIO_PCI_CAP_VENDOR_CFG = 9;
/** PCI vendor id of XenSource. */
export const PCI_VENDOR_XENSOURCE = 0x5853;
/** "GDMA" as bytes: tells ours from what else that vendor may have. */
export const GRANT_CAPABILITY_MAGIC = 0x414d_4447;

/** struct virtio_pci_vndr_data, and behind it what is ours: 12 bytes, little endian, without effect when read. */
export const grantCapability = struct('virtio_pci_vndr_data with a backend', {
  cap_vndr: 'u8',
  /** Offset of the next capability; 0 in the last. */
  cap_next: 'u8',
  /** Bytes of this one. */
  cap_len: 'u8',
  cfg_type: 'u8',
  vendor_id: 'u16',
  /** The domain that serves the device. */
  domid: 'u16',
  magic: 'u32',
});
