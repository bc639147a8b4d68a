// The thread of a guest: attaches the devices that xenstore names, copies disks, and serves them over NBD
// as the guest sees them. Started by virtual-host.ts.

import type { BlkDriver, BlkDriverOptions } from '../drivers/blk.ts';
import type { RngDriver } from '../drivers/rng.ts';
import { findDevice } from '../machine/device-finder.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import { GuestDomain, type Leftovers, type Troubles } from '../machine/guest-domain.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { NbdServer } from '../nbd/server.ts';
import { CopyJob, type CopyResult } from './copy-job.ts';
import { startDomain } from './domain-loop.ts';
import { GuestRunner } from './guest-runner.ts';
import { plantSecrets } from './secrets.ts';

/** What the main thread may ask. */
export type GuestCalls = {
  /** Fills the kernel's heap as a running guest's is filled. */
  plantSecrets(argument: undefined): void;
  /** Starts the driver of a disk; returns its capacity in bytes. */
  attach(argument: {
    devid: number;
    device: number;
    mode: ExposureMode;
    options: BlkDriverOptions;
  }): Promise<number>;
  /** Starts the driver of an entropy device and has it deliver `bytes` random bytes. */
  attachRng(argument: { devid: number; device: number; mode: ExposureMode; bytes: number }): Promise<void>;
  /** Puts the driver of a device on the backend that xenstore names now, when that is ready. */
  reattach(argument: { devid: number; device: number }): Promise<void>;
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
  /** What has gone wrong with the devices so far. */
  troubles(argument: undefined): Troubles;
  /** Stops the driver of a device and says what could not be taken back. */
  detach(argument: { devid: number }): Leftovers;
};

/** How far a copy is. */
export interface CopyProgress {
  readonly devid: number;
  readonly bytes: number;
}

startDomain(({ ports, xenstore, notify }) => {
  const guest = new GuestDomain(ports);
  const runner = new GuestRunner(guest);
  void runner.run();
  const disks = new Map<number, BlkDriver>();
  const sources = new Map<number, RngDriver>();
  let job: CopyJob | undefined;
  let server: NbdServer | undefined;

  const diskOf = (devid: number): BlkDriver => {
    const disk = disks.get(devid);
    if (disk === undefined) throw new RangeError(`disk ${devid} is not attached`);
    return disk;
  };

  return {
    plantSecrets: () => plantSecrets(guest.heap, ports.memory),
    async attach({ devid, device, mode, options }) {
      const place = await findDevice(xenstore, 'virtio_disk', ports.id, devid);
      const disk = guest.attachBlk({ ...place, device }, mode, options);
      disks.set(devid, disk);
      return disk.capacity;
    },
    async reattach({ devid, device }) {
      const source = sources.get(devid);
      const driver = source ?? diskOf(devid);
      driver.suspend('its backend is being replaced');
      const kind = source === undefined ? 'virtio_disk' : 'virtio';
      guest.reattach(driver, { ...(await findDevice(xenstore, kind, ports.id, devid)), device });
    },
    async attachRng({ devid, device, mode, bytes }) {
      const place = await findDevice(xenstore, 'virtio', ports.id, devid);
      const rng = guest.attachRng({ ...place, device }, mode);
      sources.set(devid, rng);
      await rng.read(bytes);
    },
    async copy({ devid, image }) {
      job = new CopyJob(guest, diskOf(devid));
      // The job polls by itself, faster than the event loop could.
      return runner.pausedWhile(job.run(image, (bytes) => notify({ devid, bytes } satisfies CopyProgress)));
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
    troubles: () => guest.troubles,
    detach({ devid }) {
      const driver = sources.get(devid) ?? diskOf(devid);
      sources.delete(devid);
      disks.delete(devid);
      return guest.detach(driver);
    },
  } satisfies GuestCalls;
});
