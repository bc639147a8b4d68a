// A device tree in memory: nodes with properties whose values are bytes, as the flattened form has them
// (Devicetree Specification v0.4 §2.2). Read and written by blob-reader.ts and blob-writer.ts (.dtb),
// source-reader.ts and source-writer.ts (.dts).

import type { Place } from '../finding.ts';

/** A property of a node. */
export interface TreeProperty {
  /** As in the blob: cells are big endian, strings end in a zero byte. */
  readonly value: Uint8Array;
  /** Where it was read; in a blob line 1 and, as column, the byte offset plus 1. */
  readonly place?: Place;
}

/** A node. Names of properties, and of children with their unit addresses, are unique in it. */
export interface TreeNode {
  /** With the unit address; empty for the root. */
  readonly name: string;
  readonly properties: Map<string, TreeProperty>;
  readonly children: Map<string, TreeNode>;
  /** What the source calls it; a blob has no labels. */
  readonly labels: string[];
  /** Where it was read; in a blob line 1 and, as column, the byte offset plus 1. */
  readonly place?: Place;
}

/** Memory that the guest must leave alone. */
export interface Reservation {
  readonly address: bigint;
  /** Bytes. */
  readonly size: bigint;
}

/** A whole tree. */
export interface DeviceTree {
  readonly root: TreeNode;
  readonly reservations: readonly Reservation[];
  /** Physical id of the processor that boots. */
  readonly bootCpu: number;
}

/** Levels of nodes that are read and written; real trees have fewer than ten. */
export const MAX_TREE_DEPTH = 64;
/** Largest phandle: the two above mean "none" and "not yet known". */
export const MAX_PHANDLE = 0xfffffffd;

/** Characters that names of nodes (with unit address) and properties have: the specification's, and dtc's. */
export const NODE_NAME = /^[0-9a-zA-Z,._+*#?-]+(@[0-9a-zA-Z,._+*#?@-]*)?$/;
export const PROPERTY_NAME = /^[0-9a-zA-Z,._+*#?-]+$/;

/** A node without content. */
export function emptyNode(name: string, place?: Place): TreeNode {
  const node = { name, properties: new Map(), children: new Map(), labels: [] };
  return place === undefined ? node : { ...node, place };
}

/** A node on a walk through a tree. */
export interface Visit {
  readonly node: TreeNode;
  /** From the root: "/virtio@2000000". */
  readonly path: string;
  /** Undefined for the root. */
  readonly parent: TreeNode | undefined;
}

/** `root` and all nodes below it, each before its children, in the order of the tree. */
export function* walk(root: TreeNode): Generator<Visit> {
  const pending: Visit[] = [{ node: root, path: '/', parent: undefined }];
  for (let visit = pending.pop(); visit !== undefined; visit = pending.pop()) {
    yield visit;
    const { node, path } = visit;
    const prefix = path === '/' ? '/' : `${path}/`;
    for (const child of [...node.children.values()].reverse())
      pending.push({ node: child, path: `${prefix}${child.name}`, parent: node });
  }
}

/** The node at `path`, each step with its unit address; undefined if there is none. */
export function nodeAt(root: TreeNode, path: string): TreeNode | undefined {
  if (!path.startsWith('/')) return undefined;
  let node: TreeNode | undefined = root;
  for (const step of path.split('/')) if (step !== '') node = node?.children.get(step);
  return node;
}

/** The nodes by their phandles; the first one keeps a phandle that several claim. */
export function nodesByPhandle(root: TreeNode): Map<number, TreeNode> {
  const nodes = new Map<number, TreeNode>();
  for (const { node } of walk(root)) {
    const phandle = phandleOf(node);
    if (phandle !== undefined && !nodes.has(phandle)) nodes.set(phandle, node);
  }
  return nodes;
}

/** The number by which other nodes refer to `node`, if it has one. */
export function phandleOf(node: TreeNode): number | undefined {
  return numberOf(node, 'phandle') ?? numberOf(node, 'linux,phandle');
}

/** The value as 32-bit cells; undefined if its length is no multiple of 4. */
export function cellsOf(property: TreeProperty | undefined): number[] | undefined {
  if (property === undefined || property.value.length % 4 !== 0) return undefined;
  const { buffer, byteOffset, length } = property.value;
  const view = new DataView(buffer, byteOffset, length);
  return Array.from({ length: length / 4 }, (_, index) => view.getUint32(index * 4));
}

/** A property of exactly one cell, as its number. */
export function numberOf(node: TreeNode, name: string): number | undefined {
  const cells = cellsOf(node.properties.get(name));
  return cells?.length === 1 ? cells[0] : undefined;
}

/** The value as a list of strings; undefined if it does not end in a zero byte. */
export function stringsOf(property: TreeProperty | undefined): string[] | undefined {
  if (property === undefined || property.value.at(-1) !== 0) return undefined;
  return new TextDecoder().decode(property.value.subarray(0, -1)).split('\0');
}

/** Whether `node` is compatible with `model`, as its own property says. */
export function isCompatible(node: TreeNode, model: string): boolean {
  return stringsOf(node.properties.get('compatible'))?.includes(model) ?? false;
}

/** A value of 32-bit cells. */
export function cells(...numbers: number[]): Uint8Array {
  const bytes = new Uint8Array(numbers.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, number] of numbers.entries()) view.setUint32(index * 4, number);
  return bytes;
}

/** A value of strings. */
export function strings(...texts: string[]): Uint8Array {
  return new TextEncoder().encode(texts.map((text) => `${text}\0`).join(''));
}
