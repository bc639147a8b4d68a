// How a device tree leads from a device to its backend: `iommus`, `iommu-map` and the node "xen,grant-dma"
// (Linux: the binding xen,grant-dma.yaml, drivers/xen/grant-dma-ops.c).

import {
  type BackendFault,
  backendFor,
  entriesOf,
  GRANT_DMA,
  grantBackend,
} from '../../toolstack/device-tree/backend.ts';
import { cellsOf, isCompatible, type TreeProperty, type Visit } from '../../toolstack/device-tree/tree.ts';
import type { Place } from '../../toolstack/finding.ts';
import type { TreeFile } from '../files.ts';
import type { Project } from '../project.ts';
import type { Breach, Rule } from '../rule.ts';

const NOWHERE: Place = { line: 1, column: 1 };

/** Whether `iommus` or `iommu-map` of a node is about grants: the node is virtio, or one of its phandles leads there. */
function isAboutGrants({ phandles }: TreeFile, { node }: Visit, property: TreeProperty): boolean {
  if (isCompatible(node, 'virtio,mmio')) return true;
  return (cellsOf(property) ?? []).some((cell) => {
    const target = phandles.get(cell);
    return target !== undefined && isCompatible(target, GRANT_DMA);
  });
}

/** The property `name` of each node that has it for the sake of grants. */
function* grantProperties(
  project: Project,
  name: string,
): Generator<{ tree: TreeFile; visit: Visit; property: TreeProperty }> {
  for (const tree of project.trees)
    for (const visit of tree.visits) {
      const property = visit.node.properties.get(name);
      if (property !== undefined && isAboutGrants(tree, visit, property)) yield { tree, visit, property };
    }
}

interface MapEntry {
  readonly file: string;
  readonly tree: TreeFile;
  readonly path: string;
  readonly place: Place;
  readonly first: number;
  readonly phandle: number;
  readonly domain: number;
  readonly length: number;
}

/** Each entry of each iommu-map that is about grants. */
function* mapEntries(project: Project): Generator<MapEntry> {
  for (const { tree, visit, property } of grantProperties(project, 'iommu-map')) {
    const place = property.place ?? NOWHERE;
    for (const [first, phandle, domain, length] of entriesOf(cellsOf(property) ?? []))
      yield { file: tree.file, tree, path: visit.path, place, first, phandle, domain, length };
  }
}

/** What backendFor refuses for a fault of one kind. */
function* refusals(project: Project, fault: BackendFault): Generator<Breach> {
  for (const { tree, visit, property } of grantProperties(project, 'iommus')) {
    const answer = backendFor(tree.tree.root, visit.node, undefined, tree.phandles);
    if (answer.kind === 'refused' && answer.fault === fault)
      yield { file: tree.file, place: property.place ?? NOWHERE, message: `${visit.path}: ${answer.reason}` };
  }
  for (const { file, tree, path, place, phandle, domain, length } of mapEntries(project)) {
    const last = grantBackend(tree.phandles, 'iommu-map', phandle, domain + Math.max(length, 1) - 1);
    if (last.kind === 'refused' && last.fault === fault)
      yield { file, place, message: `${path}: ${last.reason}` };
  }
}

const form: Rule = {
  id: 'iommus-form',
  severity: 'error',
  summary: 'iommus has one phandle and one cell, iommu-map entries of four cells',
  why: "Linux looks for exactly one cell, the backend's domain id, and otherwise leaves the device without grants, on plain addresses.",
  *check(project) {
    yield* refusals(project, 'property');
    for (const { tree, visit, property } of grantProperties(project, 'iommu-map')) {
      const answer = backendFor(tree.tree.root, visit.node, 0, tree.phandles);
      if (answer.kind === 'refused' && answer.fault === 'property')
        yield {
          file: tree.file,
          place: property.place ?? NOWHERE,
          message: `${visit.path}: ${answer.reason}`,
        };
    }
  },
};

const target: Rule = {
  id: 'iommus-target',
  severity: 'error',
  summary: `iommus and iommu-map lead to a node "${GRANT_DMA}" with #iommu-cells 1`,
  why: 'A phandle that leads nowhere, or to a node of another kind, leaves the device without a backend; by its source, Linux since 6.2 then uses plain addresses even where grants are forced.',
  *check(project) {
    yield* refusals(project, 'node');
  },
};

const domain: Rule = {
  id: 'iommus-domain',
  severity: 'error',
  summary: 'The cell behind the phandle is the id of an ordinary domain',
  why: 'By its source, Linux cuts the cell to 16 bits without a word, so that 0x10001 grants to domain 1, and takes ids from 0x7ff0 on, which name no domain.',
  *check(project) {
    yield* refusals(project, 'domain');
  },
};

const mapLength: Rule = {
  id: 'iommu-map-length',
  severity: 'error',
  summary: 'Each entry of an iommu-map for grants has length 1',
  why: 'Requester ids of an entry count up together with domain ids. An entry for the eight functions of a PCI device with length 8 sends function 1 to the domain after the backend, function 2 to the next, and so on.',
  *check(project) {
    for (const { file, path, place, first, domain: base, length } of mapEntries(project))
      if (length > 1)
        yield {
          file,
          place,
          message: `${path}: requester 0x${(first + 1).toString(16)} goes to domain ${base + 1}${length > 2 ? `, and so on to domain ${base + length - 1}` : ''}`,
          help: `write an entry for each function: <0x${first.toString(16)} &xen_iommu ${base} 1>, <0x${(first + 1).toString(16)} &xen_iommu ${base} 1>, …`,
        };
  },
};

const mapOverlap: Rule = {
  id: 'iommu-map-overlap',
  severity: 'error',
  summary: 'No requester id is in two entries of an iommu-map, and each fits in 16 bits',
  why: 'Linux takes the first entry that has the id; a device would be served by another domain than the later entry says.',
  *check(project) {
    for (const { tree, visit, property } of grantProperties(project, 'iommu-map')) {
      const place = property.place ?? NOWHERE;
      const entries = entriesOf(cellsOf(property) ?? []).filter(([, , , length]) => length > 0);
      let end = 0;
      for (const [first, , , length] of entries.sort(([a], [b]) => a - b)) {
        const message = `${visit.path}: requester 0x${first.toString(16)} `;
        if (first < end) yield { file: tree.file, place, message: `${message}is in two entries` };
        end = Math.max(end, first + length);
        if (end > 0x1_0000)
          yield { file: tree.file, place, message: `${message}starts an entry that ends above 16 bits` };
      }
    }
  },
};

const doubled: Rule = {
  id: 'grant-dma-doubled',
  severity: 'warning',
  summary: `There is one node "${GRANT_DMA}"`,
  why: 'libxl writes it once for all devices. A second one usually comes from a partial device tree and takes the phandle of the first.',
  *check({ trees }) {
    for (const { file, visits } of trees) {
      const [first, ...more] = visits.filter(({ node }) => isCompatible(node, GRANT_DMA));
      for (const { node, path } of more)
        yield {
          file,
          place: node.place ?? NOWHERE,
          message: `${path} is a second node "${GRANT_DMA}" beside ${first!.path}`,
        };
    }
  },
};

const unused: Rule = {
  id: 'grant-dma-unused',
  severity: 'warning',
  summary: `The node "${GRANT_DMA}" is there for a device`,
  why: 'The node alone does nothing: a device uses grants if its iommus (or the iommu-map of its host bridge) leads to it.',
  *check(project) {
    const used = new Set(
      [...grantProperties(project, 'iommus'), ...grantProperties(project, 'iommu-map')].map(
        ({ tree }) => tree.file,
      ),
    );
    for (const { file, visits } of project.trees)
      for (const { node, path } of visits)
        if (isCompatible(node, GRANT_DMA) && !used.has(file))
          yield {
            file,
            place: node.place ?? NOWHERE,
            message: `no device refers to ${path}`,
            help: 'add iommus = <&xen_iommu DOMAIN> to the devices',
          };
  },
};

/** The rules of this file. */
export const IOMMU_RULES: readonly Rule[] = [form, target, domain, mapLength, mapOverlap, doubled, unused];
