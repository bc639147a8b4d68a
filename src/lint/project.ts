// The files that are linted together, read: what the rules look at. Before it: files.ts and devices.ts.

import { readBlob } from '../toolstack/device-tree/blob-reader.ts';
import { readSource } from '../toolstack/device-tree/source-reader.ts';
import { type DeviceTree, nodesByPhandle, walk } from '../toolstack/device-tree/tree.ts';
import type { Finding } from '../toolstack/finding.ts';
import { storeDevices } from '../toolstack/store-devices.ts';
import { readXenstoreDump } from '../toolstack/xenstore-dump.ts';
import { surveyXlConfig } from '../toolstack/xl-cfg.ts';
import { allStoreDevices, type GuestDevices, guestDevices, treeDevices } from './devices.ts';
import {
  type FileKind,
  type GuestFile,
  type InputFile,
  isBlob,
  kindOf,
  type StoreFile,
  type TreeFile,
  textOf,
} from './files.ts';

/** What the rules look at. */
export interface Project {
  readonly guests: readonly GuestFile[];
  readonly trees: readonly TreeFile[];
  readonly stores: readonly StoreFile[];
  /** The virtio devices of every guest in every file. */
  readonly devices: readonly GuestDevices[];
  /** Whether every device is to use grants (a guest kernel with XEN_VIRTIO_FORCE_GRANT). */
  readonly forceGrants: boolean;
}

/** What reading one file gave, beside its place in the project. */
interface FileReading {
  readonly kind: FileKind;
  readonly findings: readonly Finding[];
}

/** Reads `files`; the readings are in their order. */
export function readProject(
  files: readonly InputFile[],
  forceGrants: boolean,
): { readonly project: Project; readonly readings: readonly FileReading[] } {
  const guests: GuestFile[] = [];
  const trees: TreeFile[] = [];
  const stores: StoreFile[] = [];
  const readings = files.map((input) => {
    const kind = kindOf(input);
    const { path: file, bytes } = input;
    if (kind === 'xl-cfg') {
      const { config, findings } = surveyXlConfig(textOf(bytes), file);
      guests.push({ file, config });
      return { kind, findings };
    }
    if (kind === 'xenstore') {
      const { entries, findings } = readXenstoreDump(textOf(bytes), file);
      stores.push({ file, entries, devices: storeDevices(entries) });
      return { kind, findings };
    }
    const { tree, findings } = isBlob(bytes) ? readBlob(bytes, file) : readSource(textOf(bytes), file);
    if (tree !== undefined) trees.push(treeFile(file, tree));
    return { kind, findings };
  });
  const devices = [
    ...guests.map(guestDevices),
    ...trees.map(treeDevices),
    ...stores.flatMap(allStoreDevices),
  ];
  return { project: { guests, trees, stores, devices, forceGrants }, readings };
}

function treeFile(file: string, tree: DeviceTree): TreeFile {
  return { file, tree, visits: [...walk(tree.root)], phandles: nodesByPhandle(tree.root) };
}
