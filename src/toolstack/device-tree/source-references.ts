// Puts the references of a device tree source in place once the whole tree is known: phandles into cells,
// giving one to a node that has none, and paths into strings (Devicetree Specification v0.4 §6.3).

import { type Findings, type Place, quoted } from '../finding.ts';
import { joined, type Piece, type Reference } from './source-values.ts';
import {
  cells,
  nodeAt,
  nodesByPhandle,
  phandleOf,
  strings,
  type TreeNode,
  type TreeProperty,
  walk,
} from './tree.ts';

/** Bytes that the values of a tree may have together: a path is longer than the label that stands for it. */
const MAX_VALUES = 16 << 20;

/** The values of properties that still are in pieces. */
type PendingValues = ReadonlyMap<TreeProperty, readonly Piece[]>;

/** Replaces the values in `pending` by their bytes. Labels that name no node are reported. */
export function resolveReferences(root: TreeNode, pending: PendingValues, findings: Findings): void {
  const resolver = new Resolver(root, findings);
  for (const { node } of walk(root))
    for (const [name, property] of node.properties) {
      const pieces = pending.get(property);
      // Setting a key that is there keeps its position, and a phandle added on the way comes behind it.
      if (pieces !== undefined)
        node.properties.set(name, { ...property, value: resolver.bytes(pieces, property.place!) });
    }
}

class Resolver {
  private readonly root: TreeNode;
  private readonly findings: Findings;
  private readonly labelled = new Map<string, TreeNode>();
  private readonly paths = new Map<TreeNode, string>();
  private readonly phandles: Map<number, TreeNode>;
  private nextPhandle = 1;
  private size = 0;
  private isTooLarge = false;

  constructor(root: TreeNode, findings: Findings) {
    this.root = root;
    this.findings = findings;
    this.phandles = nodesByPhandle(root);
    for (const { node, path } of walk(root)) {
      this.paths.set(node, path);
      for (const label of node.labels) this.labelled.set(label, node);
    }
  }

  /** The bytes of a value; none any more once the values are too many, which is reported at `place`. */
  bytes(pieces: readonly Piece[], place: Place): Uint8Array {
    const parts: Uint8Array[] = [];
    for (const piece of pieces) {
      if (this.isTooLarge) return new Uint8Array();
      const part = piece instanceof Uint8Array ? piece : this.resolved(piece);
      this.size += part.length;
      this.isTooLarge = this.size > MAX_VALUES;
      if (this.isTooLarge)
        this.findings.error(place, `the values of the tree have more than ${MAX_VALUES} bytes`);
      parts.push(part);
    }
    return joined(parts)!;
  }

  private resolved({ kind, target, place }: Reference): Uint8Array {
    const node = target.startsWith('/') ? nodeAt(this.root, target) : this.labelled.get(target);
    if (node !== undefined)
      return kind === 'path' ? strings(this.paths.get(node)!) : cells(this.phandle(node));
    this.findings.error(place, `${quoted(`&${target}`)} refers to no node`);
    return new Uint8Array();
  }

  private phandle(node: TreeNode): number {
    const known = phandleOf(node);
    if (known !== undefined) return known;
    while (this.phandles.has(this.nextPhandle)) this.nextPhandle++;
    this.phandles.set(this.nextPhandle, node);
    node.properties.set('phandle', { value: cells(this.nextPhandle) });
    return this.nextPhandle;
  }
}
