// Vectors: the backend's domain of a PCI device, from iommu-map of its host bridge.

import { type BackendFault, backendFor, GRANT_DMA } from '../toolstack/device-tree/backend.ts';
import { cells, emptyNode, strings, type TreeNode } from '../toolstack/device-tree/tree.ts';
import type { Refused, Vector, VectorGroup } from './vector.ts';

/** A node that the map may refer to. */
interface Target {
  readonly phandle: number;
  readonly compatible: string;
  /** The property #iommu-cells; null if it is not there. */
  readonly iommuCells: number | null;
}

interface Question {
  /** Of the device: bus << 8 | device << 3 | function. */
  readonly requester: number;
  /** The property iommu-map as its cells: of each entry first requester, phandle, domain, length. */
  readonly iommuMap: readonly number[];
  /** The property iommu-map-mask; null if it is not there. */
  readonly mask: number | null;
  readonly targets: readonly Target[];
}

/** The domain; null if no entry has the requester, so that nothing says that this device uses grants. */
type Backend = { readonly backend: number | null } | Refused<BackendFault>;

export type IommuMapVector = Vector<Question, Backend>;

/** libxl's phandle for the node. */
const G = 65001;
const GRANTS: Target = { phandle: G, compatible: GRANT_DMA, iommuCells: 1 };

function node(name: string, properties: Readonly<Record<string, Uint8Array>>): TreeNode {
  const made = emptyNode(name);
  for (const [property, value] of Object.entries(properties)) made.properties.set(property, { value });
  return made;
}

function answerTo({ requester, iommuMap, mask, targets }: Question): Backend {
  const map = { 'iommu-map': cells(...iommuMap) };
  const bridge = node('pcie', mask === null ? map : { ...map, 'iommu-map-mask': cells(mask) });
  const root = node('', {});
  for (const { phandle, compatible, iommuCells } of targets) {
    const properties = { phandle: cells(phandle), compatible: strings(compatible) };
    const name = `target-${phandle}`;
    root.children.set(
      name,
      node(name, iommuCells === null ? properties : { ...properties, '#iommu-cells': cells(iommuCells) }),
    );
  }
  const answer = backendFor(root, bridge, requester);
  if (answer.kind === 'refused') return { refused: answer.fault };
  return { backend: answer.kind === 'backend' ? answer.domain : null };
}

interface Circumstances {
  readonly mask?: number;
  readonly targets?: readonly Target[];
  readonly wrong?: { readonly by: string; readonly backend: number };
}

function vector(
  id: string,
  source: string,
  requester: number,
  iommuMap: readonly number[],
  { mask, targets = [GRANTS], wrong }: Circumstances = {},
): IommuMapVector {
  const input = { requester, iommuMap, mask: mask ?? null, targets };
  const made = { id, source, input, expected: answerTo(input) };
  return wrong === undefined
    ? made
    : { ...made, wrong: [{ by: wrong.by, answer: { backend: wrong.backend } }] };
}

const RULE = 'Linux, of_map_id(): requester - first + domain, in the first entry that has the requester';
const BINDING =
  'Linux, the binding xen,grant-dma.yaml: #iommu-cells is 1, and the cell is the domain of the backend';
const MASK =
  'Linux, the binding pci-iommu.txt: iommu-map-mask is applied to the requester before the entries';
const LENGTH =
  'of_map_id(), and the patch for virtio-pci in libxl of November 2023: its entry of length 8 gives each function another domain';
const ID = 'Xen, public/xen.h: ids from DOMID_FIRST_RESERVED, 0x7ff0, on name no domain; domid_t is uint16_t';
const ONE_DOMAIN = { by: 'whoever takes the cell for the domain of the whole entry', backend: 5 };
const TAKEN = 'Linux, by its source: the number is taken as it is, cut to 16 bits';

/** The group. */
export const iommuMap: VectorGroup<IommuMapVector> = {
  group: 'iommu-map',
  format: 1,
  about:
    'The backend of a PCI device under Xen, from the properties iommu-map and iommu-map-mask of its host bridge and the nodes that they refer to. backend is a domain id, or null if no entry has the requester. Refused: "property", the map or mask itself is wrong; "node", the node that the entry refers to; "domain", the id.',
  vectors: [
    vector('one-entry', RULE, 8, [8, G, 5, 1]),
    vector('domain-0', BINDING, 8, [8, G, 0, 1]),
    vector('highest-domain', ID, 8, [8, G, 0x7fef, 1]),
    vector('highest-requester', RULE, 0xffff, [0xffff, G, 5, 1]),
    vector('below-the-entry', RULE, 7, [8, G, 5, 1]),
    vector('above-the-entry', RULE, 9, [8, G, 5, 1]),
    vector('second-entry', RULE, 9, [8, G, 5, 1, 9, G, 5, 1]),
    vector('first-of-two-that-have-it', RULE, 9, [8, G, 5, 2, 9, G, 3, 1]),
    vector('empty-entry', RULE, 8, [8, G, 5, 0]),
    vector('length-2-first', LENGTH, 8, [8, G, 5, 2]),
    vector('length-2-second', LENGTH, 9, [8, G, 5, 2], { wrong: ONE_DOMAIN }),
    vector('length-8-last', LENGTH, 15, [8, G, 5, 8], { wrong: ONE_DOMAIN }),
    vector('whole-bus-from-0', LENGTH, 0x18, [0, G, 1, 0x10000], {
      wrong: { by: 'whoever takes the cell for the domain of the whole entry', backend: 1 },
    }),
    vector('mask-of-functions', MASK, 15, [8, G, 5, 1], { mask: 0xfff8 }),
    vector('mask-keeps-requester', MASK, 16, [8, G, 5, 1], { mask: 0xfff8 }),
    vector('mask-of-all', MASK, 0x1234, [0, G, 5, 1], { mask: 0 }),
    vector(
      'mask-clears-bits-of-entry',
      'Linux, of_map_id(): an entry with bits that the mask clears is an error',
      9,
      [9, G, 5, 1],
      { mask: 0xfff8 },
    ),
    vector('reserved-domain', ID, 8, [8, G, 0x7ff0, 1], { wrong: { by: TAKEN, backend: 0x7ff0 } }),
    vector('length-runs-into-reserved', ID, 9, [8, G, 0x7fef, 2], { wrong: { by: TAKEN, backend: 0x7ff0 } }),
    vector('domain-above-16-bits', ID, 8, [8, G, 0x10001, 1], { wrong: { by: TAKEN, backend: 1 } }),
    vector('length-runs-past-16-bits', ID, 9, [8, G, 0xffff, 2], { wrong: { by: TAKEN, backend: 0 } }),
    vector('no-such-node', RULE, 8, [8, 7, 5, 1]),
    vector('node-of-another-kind', BINDING, 8, [8, 9, 5, 1], {
      targets: [{ phandle: 9, compatible: 'arm,smmu-v3', iommuCells: 1 }],
    }),
    vector('node-with-two-cells', BINDING, 8, [8, G, 5, 1], {
      targets: [{ ...GRANTS, iommuCells: 2 }],
    }),
    vector('node-without-cells', BINDING, 8, [8, G, 5, 1], {
      targets: [{ ...GRANTS, iommuCells: null }],
    }),
    vector(
      'entry-of-three-cells',
      'Linux, of_map_id(): a length that is no multiple of four cells is an error',
      8,
      [8, G, 5],
    ),
    vector('no-entries', 'Linux, of_map_id(): an empty map is an error', 8, []),
  ],
};
