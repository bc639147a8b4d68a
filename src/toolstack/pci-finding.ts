// What a virtio device's own PCI configuration space says of who serves it. Whoever emulates the device writes it,
// and that may be the backend: it is asked only where the guest's configuration says so, no other source gives way
// to it, and the list of capabilities may be anything. After abi/pci-vendor-capability.ts, before dma/policy.ts.

import {
  GRANT_CAPABILITY_MAGIC,
  grantCapability,
  PCI_CAP_ID_VNDR,
  PCI_CAPABILITIES_START,
  PCI_CAPABILITY_ALIGN,
  PCI_CAPABILITY_POINTER,
  PCI_CONFIG_SIZE,
  PCI_STATUS,
  PCI_STATUS_CAPABILITIES,
  PCI_VENDOR_XENSOURCE,
  VIRTIO_PCI_CAP_VENDOR_CFG,
} from '../abi/pci-vendor-capability.ts';
import type { Finding } from '../dma/policy.ts';

/** Capabilities that find room: a list with more steps runs in a circle. */
const MOST_CAPABILITIES = (PCI_CONFIG_SIZE - PCI_CAPABILITIES_START) / PCI_CAPABILITY_ALIGN;

/** Looks through a copy of the first 256 bytes of the configuration space. */
export function pciCapabilityFinding(config: Uint8Array): Finding {
  if (config.length !== PCI_CONFIG_SIZE)
    return fault(`configuration space has ${config.length} bytes; expected ${PCI_CONFIG_SIZE}`);
  const offsets = capabilityOffsets(config);
  if (typeof offsets === 'string') return fault(offsets);
  const domains: number[] = [];
  for (const offset of offsets) {
    const domain = backendAt(config, offset);
    if (typeof domain === 'string') return fault(domain);
    if (domain !== undefined) domains.push(domain);
  }
  const [domain, ...more] = domains;
  if (domain === undefined) return { kind: 'nothing', says: 'is not among those of the device' };
  if (more.length > 0) return fault(`it is there ${domains.length} times`);
  return { kind: 'backend', domain, says: `names domain ${domain}` };
}

/** Where the capabilities stand, or what is wrong with their list. */
function capabilityOffsets(config: Uint8Array): number[] | string {
  const offsets: number[] = [];
  if ((config[PCI_STATUS]! & PCI_STATUS_CAPABILITIES) === 0) return offsets;
  let offset = config[PCI_CAPABILITY_POINTER]!;
  while (offset !== 0) {
    const at = `the list of capabilities leads to 0x${offset.toString(16)}`;
    if (offset < PCI_CAPABILITIES_START) return `${at}, inside the header`;
    if (offset % PCI_CAPABILITY_ALIGN !== 0) return `${at}, which is no multiple of ${PCI_CAPABILITY_ALIGN}`;
    if (offsets.length === MOST_CAPABILITIES) return 'the list of capabilities runs in a circle';
    offsets.push(offset);
    offset = config[offset + 1]!;
  }
  return offsets;
}

/** The domain that the capability at `offset` names; undefined if it is another one; or what is wrong with it. */
function backendAt(config: Uint8Array, offset: number): number | string | undefined {
  const room = PCI_CONFIG_SIZE - offset;
  const prefix = grantCapability.offsetOf('domid');
  if (config[offset] !== PCI_CAP_ID_VNDR || room < prefix) return undefined;
  // What lies behind the end of configuration space reads as zero, and so has no magic number.
  const bytes = new Uint8Array(grantCapability.size);
  bytes.set(config.subarray(offset, offset + grantCapability.size));
  const { cap_len, cfg_type, vendor_id, domid, magic } = grantCapability.over(bytes);
  if (cfg_type !== VIRTIO_PCI_CAP_VENDOR_CFG || vendor_id !== PCI_VENDOR_XENSOURCE) return undefined;
  if (magic !== GRANT_CAPABILITY_MAGIC) return undefined;
  if (cap_len === grantCapability.size) return domid;
  return `it has ${cap_len} bytes at 0x${offset.toString(16)}; expected ${grantCapability.size}`;
}

function fault(says: string): Finding {
  return { kind: 'fault', says };
}
