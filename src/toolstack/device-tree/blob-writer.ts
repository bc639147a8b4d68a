// Writes device tree blobs, .dtb, version 17 (Devicetree Specification v0.4 §5); blob-reader.ts reads them.

import {
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_HEADER_SIZE,
  FDT_LAST_COMP_VERSION,
  FDT_MAGIC,
  FDT_PROP,
  FDT_RESERVATION_SIZE,
  FDT_VERSION,
  fdtAlign,
  writeFdtHeader,
} from '../../abi/fdt.ts';
import { cells, type DeviceTree, type TreeNode } from './tree.ts';

/** The blob of a tree: header, reservations, structure, strings, in this order. */
export function writeBlob(tree: DeviceTree): Uint8Array {
  const strings = new StringTable();
  const structure = writeStructure(tree.root, strings);
  const reservations = tree.reservations.length + 1;
  const off_dt_struct = FDT_HEADER_SIZE + reservations * FDT_RESERVATION_SIZE;
  const off_dt_strings = off_dt_struct + structure.length;
  const bytes = new Uint8Array(off_dt_strings + strings.size);
  const view = new DataView(bytes.buffer);
  writeFdtHeader(view, {
    magic: FDT_MAGIC,
    totalsize: bytes.length,
    off_dt_struct,
    off_dt_strings,
    off_mem_rsvmap: FDT_HEADER_SIZE,
    version: FDT_VERSION,
    last_comp_version: FDT_LAST_COMP_VERSION,
    boot_cpuid_phys: tree.bootCpu,
    size_dt_strings: strings.size,
    size_dt_struct: structure.length,
  });
  for (const [index, { address, size }] of tree.reservations.entries()) {
    view.setBigUint64(FDT_HEADER_SIZE + index * FDT_RESERVATION_SIZE, address);
    view.setBigUint64(FDT_HEADER_SIZE + index * FDT_RESERVATION_SIZE + 8, size);
  }
  bytes.set(structure, off_dt_struct);
  bytes.set(strings.bytes(), off_dt_strings);
  return bytes;
}

/** Names of properties, each once. */
class StringTable {
  private readonly offsets = new Map<string, number>();
  size = 0;

  offsetOf(name: string): number {
    const known = this.offsets.get(name);
    if (known !== undefined) return known;
    const offset = this.size;
    this.offsets.set(name, offset);
    this.size += name.length + 1;
    return offset;
  }

  bytes(): Uint8Array {
    return new TextEncoder().encode([...this.offsets.keys()].map((name) => `${name}\0`).join(''));
  }
}

function writeStructure(root: TreeNode, strings: StringTable): Uint8Array {
  const pieces: Uint8Array[] = [];
  const word = (...words: number[]) => pieces.push(cells(...words));
  const padded = (bytes: Uint8Array) => {
    const piece = new Uint8Array(fdtAlign(bytes.length));
    piece.set(bytes);
    pieces.push(piece);
  };
  const open: Iterator<TreeNode>[] = [];
  const begin = (node: TreeNode) => {
    word(FDT_BEGIN_NODE);
    padded(new TextEncoder().encode(`${node.name}\0`));
    for (const [name, { value }] of node.properties) {
      word(FDT_PROP, value.length, strings.offsetOf(name));
      padded(value);
    }
    open.push(node.children.values());
  };
  begin(root);
  for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
    const child = last.next();
    if (!child.done) begin(child.value);
    else {
      word(FDT_END_NODE);
      open.pop();
    }
  }
  word(FDT_END);
  return concatenated(pieces);
}

function concatenated(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}
