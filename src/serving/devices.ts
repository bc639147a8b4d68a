// The devices that can be served to virtual machines: what each is described by, and how a thread makes its own
// instance of it. A new kind is one entry here. Used by vhost-connection.ts (what is offered) and queue-worker.ts.

import { BlkDevice } from '../devices/blk.ts';
import { RngDevice } from '../devices/rng.ts';
import { RawFile } from '../storage/raw-file.ts';
import type { VirtioDevice } from '../virtio/device.ts';

/** A disk. */
export interface BlkSpec {
  readonly kind: 'blk';
  /** The raw image. */
  readonly path: string;
  readonly readOnly: boolean;
  readonly queues: number;
  readonly queueSize: number;
  /** Its serial number, up to 20 bytes. */
  readonly id: string;
}

/** A source of entropy. */
export interface RngSpec {
  readonly kind: 'rng';
}

/** A device to be served; plain data, because each thread makes an instance of its own. */
export type DeviceSpec = BlkSpec | RngSpec;

/** A device, and what it has open. */
export interface ServedDevice {
  readonly device: VirtioDevice;
  close(): void;
}

/** How a kind of device is served. */
interface DeviceKind<Spec> {
  /** Whether queues may be served by several instances, each in a thread of its own. */
  readonly spreads: boolean;
  make(spec: Spec): ServedDevice;
}

const KINDS: { readonly [K in DeviceSpec['kind']]: DeviceKind<Extract<DeviceSpec, { kind: K }>> } = {
  blk: {
    spreads: true,
    make(spec) {
      const store = new RawFile(spec.path, spec.readOnly);
      return { device: new BlkDevice(store, spec), close: () => store.close() };
    },
  },
  rng: {
    spreads: false,
    make: () => ({
      device: new RngDevice((bytes) => crypto.getRandomValues(bytes)),
      close: () => undefined,
    }),
  },
};

/** The kinds that there are. */
export const DEVICE_KINDS = Object.keys(KINDS) as readonly DeviceSpec['kind'][];

/** Makes an instance for this thread. Throws what the device's parts throw, such as ImageError. */
export function makeDevice<S extends DeviceSpec>(spec: S): ServedDevice {
  return (KINDS[spec.kind] as DeviceKind<S>).make(spec);
}

/** Whether the queues of such a device may be spread over threads. */
export function spreads({ kind }: DeviceSpec): boolean {
  return KINDS[kind].spreads;
}
