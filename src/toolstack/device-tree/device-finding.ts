// What a guest's device tree says of who serves a virtio device: the tree is the toolstack's, so it is the source
// that is trusted most. After blob-reader.ts, before dma/policy.ts; the properties are backend.ts's.

import type { Finding } from '../../dma/policy.ts';
import { backendFor, entriesOf } from './backend.ts';
import { cellsOf, type DeviceTree, isCompatible, numberOf, type TreeNode, type Visit, walk } from './tree.ts';

/** Finds the device with registers at guest-physical address `base` behind virtio-mmio. */
export function mmioFinding({ root }: DeviceTree, base: number): Finding {
  const nodes = [...walk(root)].filter((visit) => isDeviceAt(visit, base));
  const at = `registers at 0x${base.toString(16)}`;
  const [found, second] = nodes;
  if (found === undefined) return { kind: 'nothing', says: `has no virtio device with ${at}` };
  if (second !== undefined)
    return { kind: 'fault', says: `has two virtio devices with ${at}: ${found.path} and ${second.path}` };
  return findingOf(root, found, 'iommus');
}

/**
 * Finds the PCI device with this requester id (bus << 8 | device << 3 | function) below the host bridge `bridge`.
 * An entry that counts up over several ids gives each function another domain, which is pointed out, since it is
 * rarely meant.
 */
export function pciFinding({ root }: DeviceTree, bridge: Visit, requester: number): Finding {
  const mask = numberOf(bridge.node, 'iommu-map-mask') ?? 0xffff_ffff;
  const masked = (requester & mask) >>> 0;
  const entries = entriesOf(cellsOf(bridge.node.properties.get('iommu-map')) ?? []);
  const here = entries.filter(([first, , , length]) => masked >= first && masked < first + length);
  const name = `0x${requester.toString(16)}`;
  if (here.length > 1)
    return {
      kind: 'fault',
      says: `${bridge.path} has requester ${name} in ${here.length} entries of iommu-map`,
    };
  const finding = findingOf(root, bridge, 'iommu-map', requester);
  const [entry] = here;
  if (finding.kind !== 'backend' || entry === undefined) return finding;
  const shared = masked === requester ? '' : `; iommu-map-mask makes it requester 0x${masked.toString(16)}`;
  const counted = entry[3] > 1 ? `; its entry gives ${entry[3]} requesters as many different domains` : '';
  return { ...finding, says: `${finding.says} for requester ${name}${shared}${counted}` };
}

function isDeviceAt({ node }: Visit, base: number): boolean {
  // The root of a guest's tree has two cells for an address, and two for a size.
  const [high, low] = cellsOf(node.properties.get('reg')) ?? [];
  if (high === undefined || low === undefined) return false;
  return isCompatible(node, 'virtio,mmio') && high * 0x1_0000_0000 + low === base;
}

function findingOf(root: TreeNode, { node, path }: Visit, property: string, requester?: number): Finding {
  const answer = backendFor(root, node, requester);
  if (answer.kind === 'refused') return { kind: 'fault', says: `${path}: ${answer.reason}` };
  if (answer.kind === 'backend')
    return {
      kind: 'backend',
      domain: answer.domain,
      says: `${path} names domain ${answer.domain} (${property})`,
    };
  const missing = node.properties.has(property) ? `no entry of ${property} for it` : `no ${property}`;
  return { kind: 'no grants', says: `${path} has ${missing}, so the device is to use no grants` };
}
