// Devices as a toolstack announces them, made of the same parts as those of `grantio serve`: which of them, and with
// what, the nodes say; what they cannot say, such as where a console leads, the command line does.
// After xen-loop.ts, before devices.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import type { MadeDevice } from '../machine/backend-device.ts';
import type { MemoryAccess } from '../machine/backend-domain.ts';
import type { VirtioNodes } from '../toolstack/virtio-nodes.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper } from '../virtio/device-keeper.ts';
import type { ConsoleConnection } from './console-device.ts';
import { type BlkSpec, type DeviceHosting, type DeviceSpec, makeDevice } from './devices.ts';

/** What all disks of a backend have in common. */
export type DiskOptions = Pick<BlkSpec, 'direct' | 'engine' | 'queues' | 'queueSize'>;

/** What the nodes of a device do not say. */
export interface XenDeviceOptions {
  readonly disk: DiskOptions;
  /** Where consoles lead; `{domain}` and `{device}` in its path stand for the guest's id and the device's number. */
  readonly console: ConsoleConnection | undefined;
  /** How grants are reached. */
  readonly access: Exclude<MemoryAccess, 'plain'>;
}

/** A kind of device, of what its nodes say; a new kind is one line in SPECS. */
type SpecOf = (nodes: VirtioNodes, options: XenDeviceOptions) => DeviceSpec;

const SPECS = new Map<number, SpecOf>([
  [VIRTIO_ID_BLOCK, diskSpec],
  [VIRTIO_ID_CONSOLE, consoleSpec],
  [VIRTIO_ID_RNG, () => ({ kind: 'rng' })],
]);

/** What is to be made of the nodes. Throws an error whose message says why nothing can be. */
export function specOf(nodes: VirtioNodes, options: XenDeviceOptions): DeviceSpec {
  const spec = SPECS.get(nodes.virtioId);
  if (spec !== undefined) return spec(nodes, options);
  throw new Error(
    `virtio device type ${nodes.virtioId}: this backend serves types ${[...SPECS.keys()].sort((a, b) => a - b).join(', ')}`,
  );
}

/** What a device is made with besides. */
export interface MakingParts {
  readonly hosting: DeviceHosting;
  /** Makes what keeps the device for a successor, if anything does. */
  readonly keep: (device: VirtioDevice) => DeviceKeeper | undefined;
  /** What was written last may not survive a power cut. */
  readonly onLoss: () => void;
}

/** Makes a device in this thread. Throws what its parts throw, such as ImageError. */
export function madeDevice(spec: DeviceSpec, parts: MakingParts): Omit<MadeDevice, 'access'> {
  const { device, flush, close } = makeDevice(spec, parts.hosting, true);
  try {
    const keeper = parts.keep(device);
    const end = (): void => {
      if (!flush()) parts.onLoss();
      close();
      keeper?.close();
    };
    return { device, keeper, close: end };
  } catch (error) {
    close();
    throw error;
  }
}

/** A disk, by its image. */
export function diskSpec(
  { guest, devid, disk }: Pick<VirtioNodes, 'guest' | 'devid' | 'disk'>,
  options: Pick<XenDeviceOptions, 'disk'>,
): BlkSpec {
  if (disk === undefined)
    throw new Error('a block device that is announced without an image; use disk = [...] in xl.cfg');
  const { params: path, readOnly } = disk;
  return { kind: 'blk', path, readOnly, ...options.disk, id: `grantio-${guest}-${devid}` };
}

function consoleSpec({ guest, devid }: VirtioNodes, { console }: XenDeviceOptions): DeviceSpec {
  if (console === undefined)
    throw new Error('a console, and nothing says where it leads; start the backend with --console');
  return {
    kind: 'console',
    ports: [{ name: '', isConsole: true, connection: connectionOf(console, guest, devid) }],
  };
}

function connectionOf(connection: ConsoleConnection, guest: number, devid: number): ConsoleConnection {
  if (!('path' in connection)) return connection;
  const path = connection.path.replaceAll('{domain}', `${guest}`).replaceAll('{device}', `${devid}`);
  return { ...connection, path };
}
