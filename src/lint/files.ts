// The kinds of files that are linted, before and after reading. A kind is told by its content, so that names
// do not matter.

import { FDT_MAGIC } from '../abi/fdt.ts';
import type { DeviceTree, TreeNode, Visit } from '../toolstack/device-tree/tree.ts';
import type { GuestConfig } from '../toolstack/guest-config.ts';
import type { StoreDevice } from '../toolstack/store-devices.ts';
import type { StoreEntries } from '../toolstack/xenstore-dump.ts';

/** A file to lint. */
export interface InputFile {
  /** For the findings only. */
  readonly path: string;
  readonly bytes: Uint8Array;
}

/** A guest configuration; what could be understood of it if it has errors. */
export interface GuestFile {
  readonly file: string;
  readonly config: GuestConfig;
}

/** A device tree without errors of form. */
export interface TreeFile {
  readonly file: string;
  readonly tree: DeviceTree;
  /** All nodes, in order. */
  readonly visits: readonly Visit[];
  readonly phandles: ReadonlyMap<number, TreeNode>;
}

/** A dump of Xenstore. */
export interface StoreFile {
  readonly file: string;
  readonly entries: StoreEntries;
  readonly devices: readonly StoreDevice[];
}

/** The kinds of files, by which the findings of their readers are named. */
export type FileKind = 'xl-cfg' | 'device-tree' | 'xenstore';

/** The kind of a file: a blob by its magic number, the others by what their first line looks like. */
export function kindOf({ bytes }: InputFile): FileKind {
  if (isBlob(bytes)) return 'device-tree';
  const start = textOf(bytes.subarray(0, 65536));
  if (/\/dts-v1\/\s*;/.test(start)) return 'device-tree';
  return /^\s*\/[-A-Za-z0-9/_@]*(?: = "|:)/.test(start) ? 'xenstore' : 'xl-cfg';
}

/** Whether `bytes` starts as a device tree blob does; all other kinds of files are text. */
export function isBlob(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0) === FDT_MAGIC;
}

/** The text of a file; a byte order mark stays, because xl refuses it. */
export function textOf(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}
