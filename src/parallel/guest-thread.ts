// The thread of a guest: attaches the devices that xenstore names, copies disks, and serves them over NBD
// as the guest sees them. Started by virtual-host.ts.

import { performance } from 'node:perf_hooks';
import type { DmaDebugLog, DmaDebugOptions, DmaDebugResult } from '../dma/dma-debug-log.ts';
import type { Decision, GuestFacts } from '../dma/policy.ts';
import type { BlkDriver, BlkDriverOptions } from '../drivers/blk.ts';
import type { RngDriver } from '../drivers/rng.ts';
import { assert } from '../errors.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { findDevice, type GuestView, type WantedDevice } from '../machine/device-finder.ts';
import { GuestDomain, type Leftovers } from '../machine/guest-domain.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { NbdServer } from '../nbd/server.ts';
import { readBlob } from '../toolstack/device-tree/blob-reader.ts';
import type { VirtioKind } from '../toolstack/virtio-nodes.ts';
import { CopyJob, type CopyResult } from './copy-job.ts';
import { startDomain } from './domain-loop.ts';
import { GuestRunner } from './guest-runner.ts';
import { plantSecrets } from './secrets.ts';

/** What a guest's own configuration says of one of its devices. */
type DeviceWish = Pick<WantedDevice, 'policy' | 'backend'>;

/** What the main thread may ask. */
export type GuestCalls = {
  /** Tells the kernel what it runs on: once, before anything else. The tree is a blob, if there is one. */
  boot(argument: { facts: GuestFacts; tree: Uint8Array | undefined }): void;
  /** Fills the kernel's heap as a running guest's is filled. */
  plantSecrets(argument: undefined): void;
  /** Watches what the drivers that are started from now on do with their mappings. */
  debugDma(options: DmaDebugOptions): void;
  /** What that has found so far. */
  dmaDebugResult(argument: undefined): DmaDebugResult | undefined;
  /** Starts the driver of a disk; returns the exposure mode in which it works, see GuestDomain.modeOf. */
  attach(argument: {
    devid: number;
    device: number;
    mode: ExposureMode;
    wish: DeviceWish;
    options: BlkDriverOptions;
  }): Promise<ExposureMode>;
  /** The same for an entropy device, which has to deliver `bytes` random bytes. */
  attachRng(argument: {
    devid: number;
    device: number;
    mode: ExposureMode;
    wish: DeviceWish;
    bytes: number;
  }): Promise<ExposureMode>;
  /** Bytes from which on mode `auto` grants whole pages themselves. */
  directFrom(argument: undefined): number;
  /** Copies a disk and compares it with its image. A CopyProgress notice follows each window. */
  copy(argument: { devid: number; image: string }): Promise<CopyResult>;
  /** Ends copies early. */
  cancel(argument: undefined): void;
  /** Serves disks over NBD, the first as the default; returns their URIs. */
  openNbd(argument: {
    address: string;
    exports: readonly { name: string; devid: number }[];
  }): Promise<string[]>;
  /** Finishes what NBD clients have asked for, and flushes the disks. */
  closeNbd(argument: undefined): Promise<void>;
  /** Stops the driver of a device and says what could not be taken back. */
  detach(argument: { devid: number }): Leftovers;
};

/** What the guest tells the main thread by itself. */
export type GuestNotice = CopyProgress | DeviceDecision;

/** What was decided about a device that is to be attached. */
export interface DeviceDecision {
  readonly kind: 'decision';
  readonly devid: number;
  readonly decision: Decision;
}

/** How far a copy is. */
export interface CopyProgress {
  readonly kind: 'progress';
  readonly devid: number;
  readonly bytes: number;
}

startDomain(({ ports, xenstore, notify }) => {
  const guest = new GuestDomain(ports, () => performance.now());
  const runner = new GuestRunner(guest);
  void runner.run();
  const disks = new Map<number, BlkDriver>();
  const sources = new Map<number, RngDriver>();
  let debugLog: DmaDebugLog | undefined;
  let view: GuestView | undefined;
  let job: CopyJob | undefined;
  let server: NbdServer | undefined;

  const diskOf = (devid: number): BlkDriver => {
    const disk = disks.get(devid);
    if (disk === undefined) throw new RangeError(`disk ${devid} is not attached`);
    return disk;
  };
  const find = (kind: VirtioKind, devid: number, wish: DeviceWish) => {
    assert(view !== undefined, 'a guest is booted before it looks for devices');
    return findDevice(xenstore, view, { kind, devid, ...wish }, (decision) =>
      notify({ kind: 'decision', devid, decision } satisfies GuestNotice),
    );
  };

  return {
    boot({ facts, tree }) {
      view = { facts, tree: tree && readBlob(tree, 'device tree').tree };
    },
    plantSecrets: () => plantSecrets(guest.heap, ports.memory),
    debugDma(options) {
      debugLog = guest.dma.debug(options);
    },
    dmaDebugResult: () => debugLog?.result,
    async attach({ devid, device, mode, wish, options }) {
      const place = await find('virtio_disk', devid, wish);
      const disk = guest.attachBlk({ ...place, device }, mode, options);
      disks.set(devid, disk);
      return guest.modeOf(disk);
    },
    async attachRng({ devid, device, mode, wish, bytes }) {
      const place = await find('virtio', devid, wish);
      const rng = guest.attachRng({ ...place, device }, mode);
      sources.set(devid, rng);
      await rng.read(bytes);
      return guest.modeOf(rng);
    },
    directFrom: () => guest.dma.directFrom,
    async copy({ devid, image }) {
      job = new CopyJob(guest, diskOf(devid));
      // The job polls by itself, faster than the event loop could.
      const progress = (bytes: number) => notify({ kind: 'progress', devid, bytes } satisfies GuestNotice);
      return runner.pausedWhile(job.run(image, progress));
    },
    cancel() {
      if (job) job.cancelled = true;
    },
    async openNbd({ address, exports }) {
      server = new NbdServer(exports.map(({ name, devid }) => ({ name, disk: diskOf(devid) })));
      return server.listen(parseNbdAddress(address));
    },
    async closeNbd() {
      await server?.close();
      for (const disk of disks.values()) if (disk.failure === undefined && !disk.readOnly) await disk.flush();
    },
    detach({ devid }) {
      const driver = sources.get(devid) ?? diskOf(devid);
      sources.delete(devid);
      disks.delete(devid);
      return guest.detach(driver);
    },
  } satisfies GuestCalls;
});
