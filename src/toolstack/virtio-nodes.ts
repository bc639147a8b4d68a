// The xenstore nodes through which toolstack, backend and guest agree on a virtio device, in the places and
// forms that libxl uses. Written by the toolstack, read by machine/device-finder.ts and the backend.
//
// `/local/domain/<backend>/backend/<kind>/<guest>/<devid>` belongs to the backend, and the guest may read it;
// `/local/domain/<guest>/device/<kind>/<devid>` the other way round. Kind `virtio_disk` writes the base address
// in decimal, kind `virtio` in hexadecimal; readers take both.
//
// Beside libxl's nodes there is one of ours, `/local/domain/<guest>/grant-dma/<kind>/<devid>`: the toolstack's word
// on whether the device uses grants, and to whom, where there is no device tree. It belongs to the toolstack.

import type { DomainId } from '../xen/ids.ts';
import { domainId } from '../xen/ids.ts';
import { type Xenstore, XenstoreError, type XenstoreNodes } from '../xen/xenstore.ts';

/** States of a device's two ends (public/io/xenbus.h). */
export const XENBUS_UNKNOWN = 0;
export const XENBUS_INITIALISING = 1;
export const XENBUS_INIT_WAIT = 2;
export const XENBUS_INITIALISED = 3;
export const XENBUS_CONNECTED = 4;
export const XENBUS_CLOSING = 5;
export const XENBUS_CLOSED = 6;

export const VIRTIO_KINDS = ['virtio', 'virtio_disk'] as const;
export type VirtioKind = (typeof VIRTIO_KINDS)[number];

/** What a device is made of, for the backend: an image file behind a disk. */
export interface DiskNodes {
  /** Path of the image. */
  readonly params: string;
  readonly readOnly: boolean;
  /** "xvda" and so on. */
  readonly dev: string;
}

/** A virtio device as the toolstack announces it. */
export interface VirtioNodes {
  readonly kind: VirtioKind;
  readonly backend: DomainId;
  readonly guest: DomainId;
  readonly devid: number;
  /** virtio 1.3 §5: what kind of device it is. */
  readonly virtioId: number;
  /** Guest-physical address of its registers. */
  readonly base: number;
  readonly irq: number;
  /** Whether the guest will grant what the backend may reach: the toolstack's word to the backend. */
  readonly grantUsage: boolean;
  readonly disk?: DiskNodes;
}

/** Whose device it is, and which: where its nodes are. */
export interface DeviceAddress {
  readonly kind: VirtioKind;
  readonly backend: number;
  readonly guest: number;
  readonly devid: number;
}

/** The backend's directory of a device. */
export function backendPath(device: DeviceAddress): string {
  return `/local/domain/${device.backend}/backend/${device.kind}/${device.guest}/${device.devid}`;
}

/** The guest's directory of a device. */
export function frontendPath(device: Omit<DeviceAddress, 'backend'>): string {
  return `/local/domain/${device.guest}/device/${device.kind}/${device.devid}`;
}

/** The value of a device's grant-dma node when it uses no grants; otherwise it is the backend's domain id. */
export const NO_GRANTS = 'none';

/** Where the toolstack says to whom the guest is to grant. */
export function grantPath(device: { guest: number; devid: number; kind: VirtioKind }): string {
  return `/local/domain/${device.guest}/grant-dma/${device.kind}/${device.devid}`;
}

/**
 * Makes a new domain's home: its own to read, and its directories of devices and backends its own altogether.
 * What the toolstack writes below them later inherits that.
 */
export async function createHome(store: Xenstore, id: DomainId): Promise<void> {
  const home = `/local/domain/${id}`;
  await store.transaction(async (nodes) => {
    await nodes.write(`${home}/domid`, `${id}`);
    await nodes.setPermissions(home, [
      { domain: 0, access: 'n' },
      { domain: id, access: 'r' },
    ]);
    for (const name of ['device', 'backend']) {
      await nodes.write(`${home}/${name}`, '');
      await nodes.setPermissions(`${home}/${name}`, [{ domain: id, access: 'n' }]);
    }
  });
}

/** Announces a device to both ends, at once. */
export async function announceDevice(store: Xenstore, device: VirtioNodes): Promise<void> {
  const back = backendPath(device);
  const front = frontendPath(device);
  const { kind, disk } = device;
  await store.transaction(async (nodes) => {
    await writeAll(nodes, back, {
      frontend: front,
      'frontend-id': `${device.guest}`,
      online: '1',
      state: `${XENBUS_INITIALISING}`,
      irq: `${device.irq}`,
      base: kind === 'virtio_disk' ? `${device.base}` : `0x${device.base.toString(16)}`,
      type: kind === 'virtio_disk' ? 'virtio' : `virtio,device${device.virtioId.toString(16)}`,
      transport: 'mmio',
      grant_usage: device.grantUsage ? '1' : '0',
      ...(disk && {
        params: disk.params,
        mode: disk.readOnly ? 'r' : 'w',
        dev: disk.dev,
        specification: 'virtio',
      }),
    });
    await writeAll(nodes, front, {
      backend: back,
      'backend-id': `${device.backend}`,
      state: `${XENBUS_INITIALISING}`,
    });
    await nodes.write(grantPath(device), device.grantUsage ? `${device.backend}` : NO_GRANTS);
    await nodes.setPermissions(grantPath(device), [
      { domain: 0, access: 'n' },
      { domain: device.guest, access: 'r' },
    ]);
    await share(nodes, back, device.backend, device.guest);
    await share(nodes, front, device.guest, device.backend);
  });
}

/** Takes a device's nodes away again, which tells both ends that it is gone, at once; see hot-plug.ts for the gentle way. */
export async function withdrawDevice(store: Xenstore, device: DeviceAddress): Promise<void> {
  await store.transaction(async (nodes) => {
    await removeDirectory(nodes, grantPath(device));
    await removeDirectory(nodes, frontendPath(device));
    await removeDirectory(nodes, backendPath(device));
  });
}

/** Reads what `announceDevice` wrote of the device whose backend directory is `path`. Undefined if it is not there. */
export async function readDevice(
  store: XenstoreNodes,
  kind: VirtioKind,
  backend: DomainId,
  guest: number,
  devid: number,
): Promise<VirtioNodes | undefined> {
  const path = backendPath({ kind, backend, guest, devid });
  const read = (name: string) => store.read(`${path}/${name}`);
  try {
    const type = await read('type');
    return {
      kind,
      backend,
      guest: domainId(guest),
      devid,
      virtioId: kind === 'virtio_disk' ? 2 : Number.parseInt(type.replace(/^virtio,device/, ''), 16),
      // Number() reads decimal and 0x alike.
      base: Number(await read('base')),
      irq: Number(await read('irq')),
      // Anything but a clear no is a yes: a backend maps no more than it was told to.
      grantUsage: (await read('grant_usage')) !== '0',
      ...(kind === 'virtio_disk' && {
        disk: {
          params: await read('params'),
          readOnly: (await read('mode')) === 'r',
          dev: await read('dev'),
        },
      }),
    };
  } catch (error) {
    if (error instanceof XenstoreError && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Names of a node's children; none when it does not exist. */
export async function childrenOf(store: XenstoreNodes, path: string): Promise<string[]> {
  try {
    return await store.directory(path);
  } catch (error) {
    if (error instanceof XenstoreError && error.code === 'ENOENT') return [];
    throw error;
  }
}

async function writeAll(nodes: XenstoreNodes, path: string, values: Record<string, string>): Promise<void> {
  for (const [name, value] of Object.entries(values)) await nodes.write(`${path}/${name}`, value);
}

/**
 * Removes a device's directory, and those above it that hold nothing else then, up to a domain's `device` or `backend`.
 * Some may have gone with their domain.
 */
async function removeDirectory(nodes: XenstoreNodes, path: string): Promise<void> {
  const parent = path.slice(0, path.lastIndexOf('/'));
  try {
    await nodes.remove(path);
  } catch (error) {
    if (!(error instanceof XenstoreError && error.code === 'ENOENT')) throw error;
  }
  const isKept = /\/(device|backend|domain\/[0-9]+)$/.test(parent);
  if (!isKept && (await childrenOf(nodes, parent)).length === 0) await removeDirectory(nodes, parent);
}

/** Gives a directory and all in it to `owner`, readable by `reader`. */
async function share(nodes: XenstoreNodes, path: string, owner: number, reader: number): Promise<void> {
  const permissions = [
    { domain: owner, access: 'n' as const },
    { domain: reader, access: 'r' as const },
  ];
  await nodes.setPermissions(path, permissions);
  for (const name of await nodes.directory(path)) await nodes.setPermissions(`${path}/${name}`, permissions);
}
