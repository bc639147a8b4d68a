// Which domain serves a device, as the guest's device tree says: the cell of `iommus`, or for a PCI device
// `iommu-map` of its host bridge, leads to a node "xen,grant-dma" and is the backend's domain id (the
// binding xen,grant-dma.yaml). Fails closed: what is not exactly right is refused with its reason.

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import { type DomainId, domainId } from '../../xen/ids.ts';
import { cellsOf, isCompatible, nodesByPhandle, numberOf, type TreeNode, type TreeProperty } from './tree.ts';

/** The answer: a backend; no property that says anything, so no grants; or a property that is wrong. */
type BackendAnswer =
  | { readonly kind: 'backend'; readonly domain: DomainId }
  | { readonly kind: 'none' }
  | { readonly kind: 'refused'; readonly fault: BackendFault; readonly reason: string };

/** What is wrong: the property's own form, the node that it leads to, or the domain id that it gives. */
export type BackendFault = 'property' | 'node' | 'domain';

/** The compatible string of the node that stands for "these DMA addresses are grants". */
export const GRANT_DMA = 'xen,grant-dma';

/** Cells of one entry of `iommu-map`: first requester id, phandle, domain id of it, length. */
const MAP_ENTRY_CELLS = 4;

/**
 * Finds the backend of `device`.
 *
 * @param root the tree that `device` is in
 * @param device the device's node, or for a PCI device the node of its host bridge
 * @param requester of a PCI device: bus << 8 | device << 3 | function
 * @param phandles of the tree, for whoever asks for many devices
 */
export function backendFor(
  root: TreeNode,
  device: TreeNode,
  requester?: number,
  phandles: ReadonlyMap<number, TreeNode> = nodesByPhandle(root),
): BackendAnswer {
  if (requester !== undefined) return backendOfRequester(phandles, device, requester);
  const property = device.properties.get('iommus');
  if (property === undefined) return { kind: 'none' };
  const cells = cellsOf(property);
  if (cells?.length !== 2)
    return refused(
      'property',
      `iommus has ${sizeOf(property)}; expected one phandle and one cell, the backend's domain id`,
    );
  return grantBackend(phandles, 'iommus', cells[0]!, cells[1]!);
}

function backendOfRequester(
  phandles: ReadonlyMap<number, TreeNode>,
  bridge: TreeNode,
  requester: number,
): BackendAnswer {
  const property = bridge.properties.get('iommu-map');
  if (property === undefined) return { kind: 'none' };
  if (!Number.isInteger(requester) || requester < 0 || requester > 0xffff)
    return refused('property', `the requester id ${requester} is not a number of 16 bits`);
  const cells = cellsOf(property);
  if (cells === undefined || cells.length === 0 || cells.length % MAP_ENTRY_CELLS !== 0)
    return refused(
      'property',
      `iommu-map has ${sizeOf(property)}; expected entries of ${MAP_ENTRY_CELLS} cells`,
    );
  const mask = numberOf(bridge, 'iommu-map-mask') ?? 0xffff_ffff;
  const masked = (requester & mask) >>> 0;
  for (const [first, phandle, domain, length] of entriesOf(cells)) {
    if ((first & ~mask) !== 0)
      return refused(
        'property',
        `iommu-map-mask 0x${mask.toString(16)} clears bits of 0x${first.toString(16)}, where an entry of iommu-map starts`,
      );
    if (masked >= first && masked < first + length)
      return grantBackend(phandles, 'iommu-map', phandle, masked - first + domain);
  }
  return { kind: 'none' };
}

/** The entries of an `iommu-map`: first requester id, phandle, domain id of the first, number of ids. */
export function entriesOf(
  cells: readonly number[],
): [first: number, phandle: number, domain: number, length: number][] {
  return Array.from({ length: Math.floor(cells.length / MAP_ENTRY_CELLS) }, (_, index) => {
    const at = index * MAP_ENTRY_CELLS;
    return [cells[at]!, cells[at + 1]!, cells[at + 2]!, cells[at + 3]!];
  });
}

/** The backend that a property names by the phandle of a grant node and a domain id, both checked. */
export function grantBackend(
  phandles: ReadonlyMap<number, TreeNode>,
  property: string,
  phandle: number,
  domain: number,
): BackendAnswer {
  const node = phandles.get(phandle);
  if (node === undefined)
    return refused('node', `${property} refers to phandle ${phandle}, which no node has`);
  if (!isCompatible(node, GRANT_DMA))
    return refused(
      'node',
      `${property} refers to node ${node.name}, which is not compatible with "${GRANT_DMA}"`,
    );
  const count = numberOf(node, '#iommu-cells');
  if (count !== 1)
    return refused('node', `#iommu-cells of node ${node.name} is ${count ?? 'not given'}; it has to be 1`);
  const given = `${property} gives 0x${domain.toString(16)}`;
  if (domain > 0xffff) return refused('domain', `${given}, more than the 16 bits of a domain id`);
  if (domain >= DOMID_FIRST_RESERVED)
    return refused('domain', `${given}, one of the ids that name no ordinary domain`);
  return { kind: 'backend', domain: domainId(domain) };
}

function refused(fault: BackendFault, reason: string): BackendAnswer {
  return { kind: 'refused', fault, reason };
}

function sizeOf({ value }: TreeProperty): string {
  return value.length % 4 === 0 ? `${value.length / 4} cells` : `${value.length} bytes`;
}
