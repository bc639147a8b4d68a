// What else a guest's device tree needs for virtio over grants: the hypervisor node, coherent devices, the
// interrupt's form, and phandles that mean one node.

import {
  GUEST_EVTCHN_PPI,
  GUEST_GNTTAB_BASE,
  GUEST_GNTTAB_SIZE,
  GUEST_PHANDLE_GIC,
  GUEST_PHANDLE_IOMMU,
} from '../../abi/xen-arm.ts';
import {
  cellsOf,
  isCompatible,
  MAX_PHANDLE,
  nodeAt,
  numberOf,
  phandleOf,
  type TreeNode,
} from '../../toolstack/device-tree/tree.ts';
import type { Place } from '../../toolstack/finding.ts';
import { regOf } from '../devices.ts';
import type { TreeFile } from '../files.ts';
import type { Project } from '../project.ts';
import type { Breach, Rule } from '../rule.ts';

const NOWHERE: Place = { line: 1, column: 1 };

function placeOfProperty(node: TreeNode, name: string): Place {
  return node.properties.get(name)?.place ?? node.place ?? NOWHERE;
}

/** Each node "virtio,mmio". */
function* virtioNodes({ trees }: Project): Generator<{ file: string; node: TreeNode; path: string }> {
  for (const { file, visits } of trees)
    for (const { node, path } of visits) if (isCompatible(node, 'virtio,mmio')) yield { file, node, path };
}

const hypervisor: Rule = {
  id: 'hypervisor-node',
  severity: 'error',
  summary:
    'A guest with virtio devices has a node "xen,xen" with the grant table\'s region and the event channel interrupt',
  why: 'Without the node Linux does not know that it runs under Xen, and without the region it cannot set up a grant table: no device that needs grants works.',
  *check({ trees }) {
    for (const tree of trees)
      if (tree.visits.some(({ node }) => isCompatible(node, 'virtio,mmio') && node.properties.has('iommus')))
        yield* hypervisorFaults(tree);
  },
};

function* hypervisorFaults({ file, tree }: TreeFile): Generator<Breach> {
  const node = nodeAt(tree.root, '/hypervisor');
  if (node === undefined || !isCompatible(node, 'xen,xen')) {
    const place = node === undefined ? (tree.root.place ?? NOWHERE) : placeOfProperty(node, 'compatible');
    yield {
      file,
      place,
      message: 'there is no node /hypervisor compatible with "xen,xen", but devices use grants',
    };
    return;
  }
  const region = regOf(node, tree.root);
  if (region === undefined || region.size === 0)
    yield {
      file,
      place: placeOfProperty(node, 'reg'),
      message: 'reg of /hypervisor gives no region for the grant table',
    };
  else if (
    isCompatible(tree.root, 'xen,xenvm') &&
    (region.base !== GUEST_GNTTAB_BASE || region.size !== GUEST_GNTTAB_SIZE)
  )
    yield {
      file,
      place: placeOfProperty(node, 'reg'),
      message: `the grant table's region is 0x${region.size.toString(16)} bytes at 0x${region.base.toString(16)}; Xen sets 0x${GUEST_GNTTAB_SIZE.toString(16)} at 0x${GUEST_GNTTAB_BASE.toString(16)} aside`,
    };
  const interrupts = cellsOf(node.properties.get('interrupts'));
  if (interrupts?.length !== 3 || interrupts[0] !== 1)
    yield {
      file,
      place: placeOfProperty(node, 'interrupts'),
      message: `interrupts of /hypervisor is not a private interrupt; expected <1 ${GUEST_EVTCHN_PPI - 16} 0xf08>`,
    };
}

const coherent: Rule = {
  id: 'dma-coherent',
  severity: 'warning',
  summary: 'A virtio device is dma-coherent',
  why: 'The backend is software on the same caches. Without dma-coherent Linux on Arm takes the device for one that does not snoop, and cleans and invalidates caches around each request.',
  *check(project) {
    for (const { file, node, path } of virtioNodes(project))
      if (!node.properties.has('dma-coherent'))
        yield {
          file,
          place: node.place ?? NOWHERE,
          message: `${path} is not dma-coherent`,
          help: 'add dma-coherent;',
        };
  },
};

/** The flag of an interrupt that is raised by a rising edge. */
const EDGE_RISING = 1;

const interrupt: Rule = {
  id: 'virtio-mmio-interrupt',
  severity: 'warning',
  summary: 'The interrupt of a virtio-mmio device is one shared interrupt, edge rising',
  why: 'Xen raises it as an edge. A guest that waits for a level sees it twice or not at all, and one with another number of cells reads the wrong interrupt.',
  *check(project) {
    for (const { file, node, path } of virtioNodes(project)) {
      const cells = cellsOf(node.properties.get('interrupts'));
      const place = placeOfProperty(node, 'interrupts');
      const help = 'write interrupts = <0 N 0xf01>, N counted from 32';
      if (cells === undefined) yield { file, place, message: `${path} has no interrupts`, help };
      else if (cells.length !== 3)
        yield { file, place, message: `interrupts of ${path} has ${cells.length} cells; expected 3`, help };
      else if (cells[0] !== 0) yield { file, place, message: `${path} has a private interrupt`, help };
      else if ((cells[2]! & 0xf) !== EDGE_RISING)
        yield { file, place, message: `the interrupt of ${path} is not edge rising`, help };
    }
  },
};

const phandleTwice: Rule = {
  id: 'phandle',
  severity: 'error',
  summary: 'A phandle is a number that means one node',
  why: 'Which of the nodes a reference reaches depends on the reader: a device gets another interrupt controller, or another backend.',
  *check({ trees }) {
    for (const { file, visits } of trees) {
      const owners = new Map<number, string>();
      for (const { node, path } of visits) {
        const phandle = phandleOf(node);
        if (phandle === undefined) continue;
        const owner = owners.get(phandle);
        const place = placeOfProperty(node, 'phandle');
        if (phandle === 0 || phandle > MAX_PHANDLE)
          yield { file, place, message: `${path} has the phandle ${phandle}; expected 1 to ${MAX_PHANDLE}` };
        if (owner !== undefined)
          yield { file, place, message: `${path} has the phandle ${phandle}, as ${owner} has` };
        else owners.set(phandle, path);
        const old = numberOf(node, 'linux,phandle');
        if (old !== undefined && old !== phandle)
          yield { file, place, message: `${path} has the phandle ${phandle}, and ${old} as linux,phandle` };
      }
    }
  },
};

const partial: Rule = {
  id: 'partial-tree-phandle',
  severity: 'error',
  summary: 'A partial device tree leaves the phandles of libxl alone',
  why: `libxl copies /passthrough into the tree that it builds, where ${GUEST_PHANDLE_GIC} is the interrupt controller and ${GUEST_PHANDLE_IOMMU} the node for grants, and does not look for collisions.`,
  *check({ trees }) {
    for (const { file, tree, visits } of trees) {
      if (isCompatible(tree.root, 'xen,xenvm') || nodeAt(tree.root, '/passthrough') === undefined) continue;
      for (const { node, path } of visits) {
        const phandle = phandleOf(node);
        if (phandle === GUEST_PHANDLE_GIC || phandle === GUEST_PHANDLE_IOMMU)
          yield {
            file,
            place: placeOfProperty(node, 'phandle'),
            message: `${path} has the phandle ${phandle}, which libxl uses itself`,
            ...(phandle === GUEST_PHANDLE_IOMMU && {
              help: 'refer to it, but leave the node out: libxl writes it',
            }),
          };
      }
    }
  },
};

/** The rules of this file. */
export const TREE_RULES: readonly Rule[] = [hypervisor, coherent, interrupt, phandleTwice, partial];
