// The virtio devices of a Xenstore dump: what the toolstack wrote for backend and frontend, and its own copy
// below /libxl (libxl_virtio.c, libxl_disk.c). Before it: xenstore-dump.ts.

import type { StoreEntries, StoreEntry } from './xenstore-dump.ts';

/** Kinds of devices, as paths spell them: what `virtio = [ … ]` lists, and disks with specification=virtio. */
export type StoreDeviceKind = 'virtio' | 'virtio_disk';

/** One of a device's directories: its nodes by name. */
export type StoreDirectory = ReadonlyMap<string, StoreEntry>;

/** A device by its frontend, kind and number. Directories that the dump does not have are empty. */
export interface StoreDevice {
  readonly frontend: number;
  readonly kind: StoreDeviceKind;
  readonly id: number;
  /** /local/domain/<backend>/backend/<kind>/<frontend>/<id>, owned by the backend, by the backend's id. */
  readonly backends: ReadonlyMap<number, StoreDirectory>;
  /** /local/domain/<frontend>/device/<kind>/<id>, owned by the frontend. */
  readonly front: StoreDirectory;
  /** /libxl/<frontend>/device/<kind>/<id>, which no guest may write. */
  readonly libxl: StoreDirectory;
}

const KIND = '(virtio|virtio_disk)';
const BACK = new RegExp(`^/local/domain/([0-9]+)/backend/${KIND}/([0-9]+)/([0-9]+)/([^/]+)$`);
const FRONT = new RegExp(`^/local/domain/([0-9]+)/device/${KIND}/([0-9]+)/([^/]+)$`);
const LIBXL = new RegExp(`^/libxl/([0-9]+)/device/${KIND}/([0-9]+)/([^/]+)$`);

interface GrowingDevice extends StoreDevice {
  readonly backends: Map<number, Map<string, StoreEntry>>;
  readonly front: Map<string, StoreEntry>;
  readonly libxl: Map<string, StoreEntry>;
}

/** The devices of `entries`, in the order of the dump. */
export function storeDevices(entries: StoreEntries): StoreDevice[] {
  const devices = new Map<string, GrowingDevice>();
  for (const [path, entry] of entries) {
    const back = BACK.exec(path);
    const front = back === null ? FRONT.exec(path) : null;
    const libxl = back === null && front === null ? LIBXL.exec(path) : null;
    if (back !== null) directoryOf(devices, back[3]!, back[2]!, back[4]!, back[1]!).set(back[5]!, entry);
    if (front !== null) deviceOf(devices, front[1]!, front[2]!, front[3]!).front.set(front[4]!, entry);
    if (libxl !== null) deviceOf(devices, libxl[1]!, libxl[2]!, libxl[3]!).libxl.set(libxl[4]!, entry);
  }
  return [...devices.values()];
}

function deviceOf(
  devices: Map<string, GrowingDevice>,
  frontend: string,
  kind: string,
  id: string,
): GrowingDevice {
  const key = `${frontend}/${kind}/${id}`;
  const known = devices.get(key);
  if (known !== undefined) return known;
  const device: GrowingDevice = {
    frontend: Number(frontend),
    kind: kind === 'virtio' ? 'virtio' : 'virtio_disk',
    id: Number(id),
    backends: new Map(),
    front: new Map(),
    libxl: new Map(),
  };
  devices.set(key, device);
  return device;
}

function directoryOf(
  devices: Map<string, GrowingDevice>,
  frontend: string,
  kind: string,
  id: string,
  backend: string,
): Map<string, StoreEntry> {
  const { backends } = deviceOf(devices, frontend, kind, id);
  const directory = backends.get(Number(backend)) ?? new Map<string, StoreEntry>();
  backends.set(Number(backend), directory);
  return directory;
}

/**
 * The domain that serves `device`, by the first source of: the toolstack's own copy, the only backend
 * directory. The frontend's directory is not asked, because the frontend may write it (XSA-175).
 */
export function backendOfDevice(device: StoreDevice): number | undefined {
  const path = device.libxl.get('backend')?.value;
  const named = path === undefined ? null : /^\/local\/domain\/([0-9]+)\/backend\//.exec(path);
  if (named !== null) return Number(named[1]);
  const [only, ...more] = device.backends.keys();
  return more.length === 0 ? only : undefined;
}
