// The devices that can be served to virtual machines: what each is described by, and how a worker makes its own
// instance of it. A new kind is one entry here. Used by control.ts and queue-worker.ts.

import { BlkDevice } from '../devices/blk.ts';
import { RngDevice } from '../devices/rng.ts';
import { type IoUring, IoUringUnavailable } from '../hosts/linux/io-uring.ts';
import { lockImage } from '../hosts/linux/image-lock.ts';
import { MappedImage } from '../hosts/linux/mapped-image.ts';
import { type ImageHost, VectoredImage } from '../hosts/linux/vectored-image.ts';
import { UringImage } from '../hosts/linux/uring-image.ts';
import type { Watches } from '../hosts/linux/watches.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { type ConsoleSpec, makeConsole } from './console-device.ts';

/** How an image is read and written: `auto` chooses between system calls and io_uring. */
export type ImageEngine = 'auto' | 'sync' | 'io_uring' | 'mapped';

/** A disk. */
export interface BlkSpec {
  readonly kind: 'blk';
  /** The raw image, or a block device. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Past the host's page cache (O_DIRECT). */
  readonly direct: boolean;
  readonly engine: ImageEngine;
  readonly queues: number;
  readonly queueSize: number;
  /** Its serial number, up to 20 bytes. */
  readonly id: string;
}

/** A source of entropy. */
export interface RngSpec {
  readonly kind: 'rng';
}

/** A device to be served; plain data, because each worker makes an instance of its own. */
export type DeviceSpec = BlkSpec | ConsoleSpec | RngSpec;

/** What a worker has for its devices. */
export interface DeviceHosting extends ImageHost {
  /** Its rings of io_uring, made when they are asked for first. Throws IoUringUnavailable. */
  uring(): IoUring;
  /** The descriptors that it watches for them. */
  readonly watches: Watches;
}

/** A device, and what it has open. */
export interface ServedDevice {
  readonly device: VirtioDevice;
  /** Makes what was written survive a power cut, by whichever instance. Returns whether it does. */
  flush(): boolean;
  close(): void;
}

/** How a kind of device is served. */
interface DeviceKind<Spec> {
  /** Whether queues may be served by several instances, each in a thread of its own. */
  readonly spreads: boolean;
  /** @param first whether it is the first of several instances */
  make(spec: Spec, hosting: DeviceHosting, first: boolean): ServedDevice;
}

const KINDS: { readonly [K in DeviceSpec['kind']]: DeviceKind<Extract<DeviceSpec, { kind: K }>> } = {
  blk: { spreads: true, make: makeDisk },
  console: { spreads: false, make: makeConsole },
  rng: { spreads: false, make: makeEntropySource },
};

/** Makes an instance for this worker. Throws what the device's parts throw, such as ImageError. */
export function makeDevice<S extends DeviceSpec>(
  spec: S,
  hosting: DeviceHosting,
  first: boolean,
): ServedDevice {
  return (KINDS[spec.kind] as DeviceKind<S>).make(spec, hosting, first);
}

/** Whether the queues of such a device may be spread over threads. */
export function spreads({ kind }: DeviceSpec): boolean {
  return KINDS[kind].spreads;
}

function makeDisk(spec: BlkSpec, hosting: DeviceHosting, first: boolean): ServedDevice {
  const store = makeStore(spec, hosting);
  if (first) lockImage(hosting.libc, hosting.arena, store.image);
  return {
    device: new BlkDevice(store, spec),
    flush: () => (store instanceof UringImage ? store.flushNow() : store.flush()) === 'ok',
    close: () => store.close(),
  };
}

function makeStore({ path, readOnly, direct, engine }: BlkSpec, hosting: DeviceHosting) {
  if (engine === 'mapped') return new MappedImage(hosting, path, readOnly);
  const ring = engine === 'sync' || (engine === 'auto' && !direct) ? undefined : ringFor(engine, hosting);
  return ring === undefined
    ? new VectoredImage(hosting, path, { readOnly, direct })
    : new UringImage(hosting, ring, path, { readOnly, direct });
}

/** What is in the page cache needs no waiting; past it, a disk takes many requests at once. */
function ringFor(engine: ImageEngine, hosting: DeviceHosting): IoUring | undefined {
  try {
    return hosting.uring();
  } catch (error) {
    if (engine === 'auto' && error instanceof IoUringUnavailable) return undefined;
    throw error;
  }
}

function makeEntropySource(): ServedDevice {
  const device = new RngDevice((bytes) => crypto.getRandomValues(bytes));
  return { device, flush: () => true, close: () => undefined };
}
