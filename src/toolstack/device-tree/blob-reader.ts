// Reads device tree blobs, .dtb (Devicetree Specification v0.4 §5). A blob is believed nothing:
// every offset and length is checked before use, the walk keeps no stack of calls, and depth and size are
// bounded. The first thing wrong ends the reading, because nothing after it can be trusted.

import {
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_HEADER_SIZE,
  FDT_MAGIC,
  FDT_NOP,
  FDT_PROP,
  FDT_RESERVATION_SIZE,
  FDT_VERSION,
  type FdtHeader,
  fdtAlign,
  readFdtHeader,
} from '../../abi/fdt.ts';
import { type Finding, Findings, type Place, quoted } from '../finding.ts';
import {
  type DeviceTree,
  emptyNode,
  MAX_TREE_DEPTH,
  NODE_NAME,
  PROPERTY_NAME,
  type Reservation,
  type TreeNode,
} from './tree.ts';

/** Bytes; libxl builds at most 1 MiB, boards come with a few hundred KiB. */
const MAX_BLOB = 16 << 20;

/** Characters of a name; the specification allows 31. */
const MAX_NAME = 255;

/** What reading a tree gave. */
export interface TreeReading {
  /** Undefined if one of the findings is an error. */
  readonly tree: DeviceTree | undefined;
  readonly findings: readonly Finding[];
}

/** Reads a blob. Never throws; the column of a finding is the byte offset plus 1, its line 1. */
export function readBlob(bytes: Uint8Array, file: string): TreeReading {
  const findings = new Findings(file);
  try {
    return { tree: new BlobReader(bytes).read(), findings: [] };
  } catch (error) {
    if (!(error instanceof BadBlob)) throw error;
    findings.error(error.place, error.message);
    return { tree: undefined, findings: findings.list };
  }
}

/** What is wrong with a blob; leaves this file as a finding only. */
class BadBlob extends Error {
  readonly place: Place;

  constructor(offset: number, message: string) {
    super(message);
    this.place = { line: 1, column: offset + 1 };
  }
}

function hex(number: number): string {
  return `0x${number.toString(16)}`;
}

class BlobReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly header: FdtHeader;
  /** The next token, and the end of the structure block. */
  private offset: number;
  private readonly end: number;

  constructor(bytes: Uint8Array) {
    if (bytes.length < FDT_HEADER_SIZE)
      throw new BadBlob(bytes.length, `${bytes.length} bytes hold no header, which has ${FDT_HEADER_SIZE}`);
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.header = readFdtHeader(this.view);
    this.checkHeader();
    this.offset = this.header.off_dt_struct;
    this.end = this.offset + this.header.size_dt_struct;
  }

  read(): DeviceTree {
    const reservations = this.reservations();
    return { root: this.structure(), reservations, bootCpu: this.header.boot_cpuid_phys };
  }

  private checkHeader(): void {
    const { magic, totalsize, version, last_comp_version } = this.header;
    if (magic !== FDT_MAGIC)
      throw new BadBlob(0, `a device tree blob starts with ${hex(FDT_MAGIC)}, this file with ${hex(magic)}`);
    if (version < FDT_VERSION || last_comp_version > FDT_VERSION)
      throw new BadBlob(
        20,
        `version ${version}, readable from ${last_comp_version} on: only 17 is known here`,
      );
    if (totalsize > this.bytes.length || totalsize < FDT_HEADER_SIZE)
      throw new BadBlob(4, `the blob says that it has ${totalsize} bytes; the file has ${this.bytes.length}`);
    if (totalsize > MAX_BLOB)
      throw new BadBlob(4, `the blob has ${totalsize} bytes; at most ${MAX_BLOB} are read`);
    this.checkBlock('structure', 8, this.header.off_dt_struct, this.header.size_dt_struct, 4);
    this.checkBlock('strings', 12, this.header.off_dt_strings, this.header.size_dt_strings, 1);
    this.checkBlock('reservations', 16, this.header.off_mem_rsvmap, FDT_RESERVATION_SIZE, 8);
  }

  private checkBlock(name: string, field: number, offset: number, size: number, alignment: number): void {
    if (offset < FDT_HEADER_SIZE || offset + size > this.header.totalsize)
      throw new BadBlob(
        field,
        `the block of ${name} (${size} bytes at ${hex(offset)}) is not inside the blob's ${this.header.totalsize} bytes`,
      );
    if (offset % alignment !== 0)
      throw new BadBlob(field, `the block of ${name} starts at ${hex(offset)}, no multiple of ${alignment}`);
  }

  private reservations(): Reservation[] {
    const reservations: Reservation[] = [];
    for (let at = this.header.off_mem_rsvmap; ; at += FDT_RESERVATION_SIZE) {
      if (at + FDT_RESERVATION_SIZE > this.header.totalsize)
        throw new BadBlob(at, 'the list of memory reservations has no end');
      const address = this.view.getBigUint64(at);
      const size = this.view.getBigUint64(at + 8);
      if (address === 0n && size === 0n) return reservations;
      reservations.push({ address, size });
    }
  }

  private structure(): TreeNode {
    const open: TreeNode[] = [];
    let root: TreeNode | undefined;
    while (true) {
      const at = this.offset;
      const token = this.word('a token');
      const node = open.at(-1);
      if (token === FDT_NOP) continue;
      if (token === FDT_END) break;
      if (token === FDT_BEGIN_NODE) {
        if (node === undefined && root !== undefined) throw new BadBlob(at, 'a second root node');
        if (open.length === MAX_TREE_DEPTH)
          throw new BadBlob(at, `nodes are nested more than ${MAX_TREE_DEPTH} deep`);
        const child = this.beginNode(at, node);
        root ??= child;
        open.push(child);
      } else if (node === undefined) throw new BadBlob(at, `token ${hex(token)} outside of the root node`);
      else if (token === FDT_END_NODE) open.pop();
      else if (token === FDT_PROP) this.property(at, node);
      else throw new BadBlob(at, `${hex(token)} is no token`);
    }
    if (root === undefined) throw new BadBlob(this.offset - 4, 'the tree has no root node');
    if (open.length > 0)
      throw new BadBlob(this.offset - 4, `the node ${quoted(open.at(-1)!.name)} has no end`);
    return root;
  }

  private word(what: string): number {
    if (this.offset + 4 > this.end)
      throw new BadBlob(this.offset, `expected ${what}, found the end of the structure`);
    const word = this.view.getUint32(this.offset);
    this.offset += 4;
    return word;
  }

  private beginNode(at: number, parent: TreeNode | undefined): TreeNode {
    const name = this.text(this.offset, this.end);
    this.offset = fdtAlign(this.offset + name.length + 1);
    if (parent === undefined ? name !== '' : !NODE_NAME.test(name))
      throw new BadBlob(at, `${quoted(name)} is not the name of a node`);
    if (parent?.children.has(name)) throw new BadBlob(at, `a second node ${quoted(name)} beside the first`);
    const node = emptyNode(name, { line: 1, column: at + 1 });
    parent?.children.set(name, node);
    return node;
  }

  private property(at: number, node: TreeNode): void {
    if (node.children.size > 0)
      throw new BadBlob(at, `a property after the children of node ${quoted(node.name)}`);
    const length = this.word('the length of a property');
    const nameOffset = this.word('the name of a property');
    const { off_dt_strings, size_dt_strings } = this.header;
    if (nameOffset >= size_dt_strings)
      throw new BadBlob(
        at + 8,
        `the name at ${hex(nameOffset)} is outside of the ${size_dt_strings} bytes of strings`,
      );
    const name = this.text(off_dt_strings + nameOffset, off_dt_strings + size_dt_strings);
    if (!PROPERTY_NAME.test(name)) throw new BadBlob(at + 8, `${quoted(name)} is not the name of a property`);
    if (node.properties.has(name))
      throw new BadBlob(at, `a second property ${quoted(name)} in node ${quoted(node.name)}`);
    if (this.offset + length > this.end)
      throw new BadBlob(
        at + 4,
        `the property ${quoted(name)} has ${length} bytes, past the end of the structure`,
      );
    const value = this.bytes.slice(this.offset, this.offset + length);
    node.properties.set(name, { value, place: { line: 1, column: at + 1 } });
    this.offset = fdtAlign(this.offset + length);
  }

  /** The characters from `start` to the zero byte before `end`; one character a byte. */
  private text(start: number, end: number): string {
    const near = this.bytes.subarray(start, Math.min(end, start + MAX_NAME + 1));
    const length = near.indexOf(0);
    if (length === -1) throw new BadBlob(start, `a name has no end within ${MAX_NAME} characters`);
    return String.fromCharCode(...near.subarray(0, length));
  }
}
