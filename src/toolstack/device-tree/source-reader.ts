// Reads device tree sources, .dts (Devicetree Specification v0.4 §6), into the tree that their blob holds,
// with labels and places. Words come from source-scanner.ts, values from source-values.ts; a syntax error
// ends the reading, what else is wrong is collected.

import { Findings, hasErrors, type Place, quoted, sortFindings } from '../finding.ts';
import type { TreeReading } from './blob-reader.ts';
import { readInteger } from './source-expression.ts';
import { resolveReferences } from './source-references.ts';
import { Scanner, SourceStop } from './source-scanner.ts';
import { joined, LABEL, type Piece, readReference, readValue } from './source-values.ts';
import {
  emptyNode,
  MAX_TREE_DEPTH,
  NODE_NAME,
  nodeAt,
  PROPERTY_NAME,
  type Reservation,
  type TreeNode,
  type TreeProperty,
  walk,
} from './tree.ts';

/** Characters; the largest sources of boards have a few hundred thousand. */
const MAX_TEXT = 1 << 20;

/** Characters of the names of nodes, which also have all those of properties. */
const NAME = /[a-zA-Z0-9,._+*#?@-]{1,255}(?![a-zA-Z0-9,._+*#?@-])/y;

/** Reads a source. Never throws: what is wrong is in the findings, and then there is no tree. */
export function readSource(text: string, file: string): TreeReading {
  const findings = new Findings(file);
  const reader = new SourceReader(text.slice(0, MAX_TEXT), findings);
  if (text.length > MAX_TEXT)
    findings.error(
      { line: 1, column: 1 },
      `the file has ${text.length} characters; at most ${MAX_TEXT} are read`,
    );
  else
    try {
      reader.read();
    } catch (error) {
      if (!(error instanceof SourceStop)) throw error;
    }
  const tree = { root: reader.root, reservations: reader.reservations, bootCpu: 0 };
  if (!hasErrors(findings.list)) resolveReferences(tree.root, reader.values, findings);
  return { tree: hasErrors(findings.list) ? undefined : tree, findings: sortFindings(findings.list) };
}

/** Between the braces of a node: one node can be written in several bodies, which are merged. */
interface Body {
  readonly node: TreeNode;
  readonly depth: number;
  /** What this body has given so far. */
  readonly properties: Set<string>;
  readonly children: Set<string>;
  /** Whether a child was mentioned: no property may follow. */
  hadChild: boolean;
}

class SourceReader {
  readonly root: TreeNode = emptyNode('', { line: 1, column: 1 });
  readonly reservations: Reservation[] = [];
  readonly values = new Map<TreeProperty, Piece[]>();
  private readonly labelled = new Map<string, TreeNode>();
  private readonly parents = new Map<TreeNode, TreeNode>();
  private readonly scanner: Scanner;
  private readonly findings: Findings;

  constructor(text: string, findings: Findings) {
    this.scanner = new Scanner(text, findings);
    this.findings = findings;
  }

  read(): void {
    const { scanner } = this;
    if (!scanner.takeWord('/dts-v1/')) scanner.stop('`/dts-v1/;` at the start');
    scanner.expect(';', 'after /dts-v1/');
    this.refuseUnsupported();
    let roots = 0;
    while (!scanner.atEnd()) if (this.statement()) roots++;
    if (roots === 0) scanner.stop('`/ { … };`, the root node');
  }

  private refuseUnsupported(): void {
    const { scanner } = this;
    const place = scanner.place();
    if (scanner.sees('/include/'))
      scanner.fail(
        place,
        '/include/ is not supported',
        'put the files together first, for example with `dtc -O dts`',
      );
    if (scanner.sees('/plugin/')) scanner.fail(place, 'overlays (/plugin/) are not supported');
  }

  /** One statement outside of the nodes; whether it was a node. */
  private statement(): boolean {
    const { scanner } = this;
    this.refuseUnsupported();
    const labels = this.labels();
    if (scanner.takeWord('/memreserve/')) {
      this.reservations.push({ address: this.integer(), size: this.integer() });
      scanner.expect(';', 'after the reservation');
      return false;
    }
    if (scanner.takeWord('/delete-node/')) {
      this.remove(this.referred());
      scanner.expect(';', 'after the deleted node');
      return false;
    }
    if (labels.length > 0 && scanner.sees('/')) scanner.fail(scanner.place(), 'the root node has no labels');
    const node = scanner.takeWord('/') ? this.root : this.referred();
    this.label(node, labels);
    this.body(node, 1);
    return true;
  }

  private integer(): bigint {
    return readInteger(this.scanner) ?? this.scanner.stop('a number');
  }

  /** The node of the reference that stands next; nodes can be changed only after they were made. */
  private referred(): TreeNode {
    const { scanner } = this;
    const place = scanner.place();
    const target = readReference(scanner) ?? scanner.stop('`/`, `&label` or the end of the file');
    const node = target.startsWith('/') ? nodeAt(this.root, target) : this.labelled.get(target);
    return node ?? scanner.fail(place, `${quoted(`&${target}`)} refers to no node that was made above`);
  }

  private labels(): string[] {
    const labels: string[] = [];
    for (let label = this.scanner.take(LABEL); label !== ''; label = this.scanner.take(LABEL))
      labels.push(label.slice(0, -1));
    return labels;
  }

  private label(node: TreeNode, labels: readonly string[]): void {
    for (const label of labels) {
      const before = this.labelled.get(label);
      if (before === node) continue;
      if (before !== undefined)
        this.findings.error(
          this.scanner.place(),
          `the label ${quoted(label)} is taken by node ${quoted(before.name)}`,
        );
      this.labelled.set(label, node);
      node.labels.push(label);
    }
  }

  /** `{ properties, children };` behind the name of `node`. */
  private body(node: TreeNode, depth: number): void {
    const { scanner } = this;
    if (depth > MAX_TREE_DEPTH)
      scanner.fail(scanner.place(), `nodes are nested more than ${MAX_TREE_DEPTH} deep`);
    scanner.expect('{', `after ${node.name === '' ? '`/`' : quoted(node.name)}`);
    const body: Body = { node, depth, properties: new Set(), children: new Set(), hadChild: false };
    while (!scanner.takeWord('}')) this.member(body);
    scanner.expect(';', 'after `}`');
  }

  /** One property or child, or the deletion of one. */
  private member(body: Body): void {
    const { scanner } = this;
    if (scanner.takeWord('/delete-node/')) this.deleteChild(body);
    else if (scanner.takeWord('/delete-property/')) this.deleteProperty(body);
    else {
      if (scanner.sees('/omit-if-no-ref/'))
        scanner.fail(scanner.place(), '/omit-if-no-ref/ is not supported');
      this.refuseUnsupported();
      const labels = this.labels();
      const place = scanner.place();
      const name = scanner.take(NAME) || scanner.stop('a property, a node or `}`');
      if (scanner.sees('{')) this.child(body, name, place, labels);
      else this.property(body, name, place);
    }
  }

  private child(body: Body, name: string, place: Place, labels: readonly string[]): void {
    if (body.children.has(name)) this.findings.error(place, `a second node ${quoted(name)} in one node`);
    body.children.add(name);
    body.hadChild = true;
    const child = body.node.children.get(name) ?? this.newNode(body.node, name, place);
    this.label(child, labels);
    this.body(child, body.depth + 1);
  }

  private property(body: Body, name: string, place: Place): void {
    const { scanner, findings } = this;
    if (body.hadChild)
      findings.error(
        place,
        `the property ${quoted(name)} stands behind a child node`,
        'properties come first',
      );
    if (body.properties.has(name)) findings.error(place, `a second property ${quoted(name)} in one node`);
    if (!PROPERTY_NAME.test(name)) findings.error(place, `${quoted(name)} is not the name of a property`);
    body.properties.add(name);
    const pieces = scanner.takeWord('=') ? readValue(scanner, findings) : [];
    scanner.expect(';', `after the property ${quoted(name)}`);
    const value = joined(pieces);
    const property: TreeProperty = { value: value ?? new Uint8Array(), place };
    if (value === undefined) this.values.set(property, pieces);
    body.node.properties.set(name, property);
  }

  private newNode(parent: TreeNode, name: string, place: Place): TreeNode {
    if (!NODE_NAME.test(name)) this.findings.error(place, `${quoted(name)} is not the name of a node`);
    const node = emptyNode(name, place);
    parent.children.set(name, node);
    this.parents.set(node, parent);
    return node;
  }

  private deleteProperty({ node, properties }: Body): void {
    const name = this.scanner.take(NAME) || this.scanner.stop('the name of a property');
    node.properties.delete(name);
    properties.delete(name);
    this.scanner.expect(';', 'after the deleted property');
  }

  private deleteChild(body: Body): void {
    const name = this.scanner.take(NAME) || this.scanner.stop('the name of a node');
    const child = body.node.children.get(name);
    if (child !== undefined) this.remove(child, body.node);
    body.children.delete(name);
    body.hadChild = true;
    this.scanner.expect(';', 'after the deleted node');
  }

  /** Takes `node` out of the tree, and its labels and those below it out of use. */
  private remove(node: TreeNode, parent = this.parents.get(node)): void {
    parent?.children.delete(node.name);
    for (const { node: gone } of walk(node)) for (const label of gone.labels) this.labelled.delete(label);
  }
}
