// The virtio devices of a guest, in one form whether a configuration, a device tree or Xenstore tells of
// them, so that a rule about devices is written once.

import type { DomainName } from '../toolstack/device-spec.ts';
import { backendFor } from '../toolstack/device-tree/backend.ts';
import { virtioMmioSlot } from '../toolstack/device-tree/guest-tree.ts';
import { cellsOf, isCompatible, numberOf, type TreeNode, type Visit } from '../toolstack/device-tree/tree.ts';
import type { Place } from '../toolstack/finding.ts';
import { backendOfDevice, type StoreDevice } from '../toolstack/store-devices.ts';
import { usesGrants } from '../toolstack/virtio-spec.ts';
import type { GuestFile, StoreFile, TreeFile } from './files.ts';

/** The parts of a device that findings point to. */
export type DevicePart = 'base' | 'irq' | 'grants' | 'backend' | 'type';

/** A virtio device as one file tells of it. What the file does not say, or not in a form that counts, is undefined. */
export interface Device {
  /** How messages call it. */
  readonly label: string;
  /** Guest-physical address of its registers. */
  readonly base: number | undefined;
  /** Bytes of its registers. */
  readonly size: number | undefined;
  /** Counted from 0 as the interrupt controller does; SPIs start at 32. */
  readonly irq: number | undefined;
  /** Whether it reaches memory through grants. */
  readonly grants: boolean | undefined;
  readonly backend: DomainName | undefined;
  /** "virtio,device<id>". */
  readonly type: string | undefined;
  readonly place: Place;
  /** Where the parts stand that are written. */
  readonly at: { readonly [Part in DevicePart]?: Place };
}

/** The devices of one guest in one file. */
export interface GuestDevices {
  readonly file: string;
  readonly source: 'configuration' | 'device tree' | 'xenstore';
  /** The guest's name or id, where the file knows it. */
  readonly guest: DomainName | undefined;
  readonly devices: readonly Device[];
}

/** The place of a part, or of the device if the part is not written. */
export function placeOf(device: Device, part: DevicePart): Place {
  return device.at[part] ?? device.place;
}

/** Disks come first, then what `virtio = [ … ]` lists: the order in which libxl gives out registers. */
export function guestDevices({ file, config }: GuestFile): GuestDevices {
  const disks = config.disks.filter(({ specification }) => specification === 'virtio');
  const specs = [
    ...disks.map((disk) => ({ ...disk, label: `the virtio disk ${disk.vdev}`, type: undefined })),
    ...config.virtio.map((device) => ({ ...device, label: `the virtio device ${device.type}` })),
  ];
  const devices = specs.map((spec, index): Device => {
    const slot = virtioMmioSlot(index);
    const { spec: place, backend, grant_usage } = spec.at;
    return {
      label: spec.label,
      base: slot?.base,
      size: undefined,
      irq: slot?.irq,
      grants: usesGrants(spec),
      backend: spec.backend,
      type: spec.type,
      place,
      at: placed({ backend, grants: grant_usage, type: 'type' in spec.at ? spec.at.type : undefined }),
    };
  });
  return { file, source: 'configuration', guest: config.name || undefined, devices };
}

function placed(places: { readonly [Part in DevicePart]?: Place | undefined }): Device['at'] {
  // What is left has no undefined in it.
  return Object.fromEntries(
    Object.entries(places).filter(([, place]) => place !== undefined),
  ) as Device['at'];
}

const NOWHERE: Place = { line: 1, column: 1 };

/** The nodes "virtio,mmio" of a tree. */
export function treeDevices(tree: TreeFile): GuestDevices {
  const devices = tree.visits
    .filter(({ node }) => isCompatible(node, 'virtio,mmio'))
    .map((visit) => treeDevice(tree, visit));
  return { file: tree.file, source: 'device tree', guest: undefined, devices };
}

function treeDevice({ tree, phandles }: TreeFile, { node, path, parent }: Visit): Device {
  const reg = regOf(node, parent);
  const answer = backendFor(tree.root, node, undefined, phandles);
  const property = (name: string) => node.properties.get(name)?.place;
  return {
    label: path,
    base: reg?.base,
    size: reg?.size,
    irq: irqOf(node),
    grants: node.properties.has('iommus'),
    backend: answer.kind === 'backend' ? answer.domain : undefined,
    type: undefined,
    place: node.place ?? NOWHERE,
    at: placed({
      base: property('reg'),
      irq: property('interrupts'),
      grants: property('iommus'),
      backend: property('iommus'),
    }),
  };
}

/** The first entry of `reg`, by the cells that the parent says addresses and sizes have. */
export function regOf(
  node: TreeNode,
  parent: TreeNode | undefined,
): { base: number; size: number } | undefined {
  const cells = cellsOf(node.properties.get('reg'));
  const addressCells = (parent && numberOf(parent, '#address-cells')) ?? 2;
  const sizeCells = (parent && numberOf(parent, '#size-cells')) ?? 1;
  if (cells === undefined || addressCells > 2 || sizeCells > 2 || cells.length < addressCells + sizeCells)
    return undefined;
  return {
    base: joined(cells.slice(0, addressCells)),
    size: joined(cells.slice(addressCells, addressCells + sizeCells)),
  };
}

function joined(cells: readonly number[]): number {
  return cells.reduce((value, cell) => value * 0x1_0000_0000 + cell, 0);
}

/** The interrupt of a node in the GIC's three cells: kind (0 shared, 1 private), number, flags. */
function irqOf(node: TreeNode): number | undefined {
  const cells = cellsOf(node.properties.get('interrupts'));
  if (cells?.length !== 3) return undefined;
  return cells[1]! + (cells[0] === 0 ? 32 : 16);
}

/** The devices of a dump, by the guests that they are for. */
export function allStoreDevices({ file, devices }: StoreFile): GuestDevices[] {
  const guests = new Map<number, Device[]>();
  for (const device of devices) {
    const list = guests.get(device.frontend) ?? [];
    list.push(storeDevice(device));
    guests.set(device.frontend, list);
  }
  return [...guests].map(([guest, list]) => ({ file, source: 'xenstore', guest, devices: list }));
}

function storeDevice(device: StoreDevice): Device {
  const backend = backendOfDevice(device);
  const directory = (backend === undefined ? undefined : device.backends.get(backend)) ?? device.libxl;
  const number = (name: string) => {
    const value = directory.get(name)?.value;
    return value !== undefined && /^(?:0x[0-9a-f]{1,16}|[0-9]{1,16})$/.test(value)
      ? Number(value)
      : undefined;
  };
  const grants = directory.get('grant_usage')?.value;
  const place = (name: string) => directory.get(name)?.valuePlace;
  return {
    label: `${device.kind} device ${device.id} of domain ${device.frontend}`,
    base: number('base'),
    size: undefined,
    irq: number('irq'),
    grants: grants === '0' || grants === '1' ? grants === '1' : undefined,
    backend,
    type: device.kind === 'virtio' ? directory.get('type')?.value : undefined,
    place: firstPlace(device),
    at: placed({ base: place('base'), irq: place('irq'), grants: place('grant_usage'), type: place('type') }),
  };
}

/** The place of the first line about `device`. */
export function firstPlace({ backends, front, libxl }: StoreDevice): Place {
  for (const directory of [...backends.values(), libxl, front])
    for (const { line, column } of directory.values()) return { line, column };
  return NOWHERE;
}
