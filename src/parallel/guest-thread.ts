// The thread of a guest: uses the devices that xenstore announces as they come and go, copies disks, and serves them
// over NBD as the guest sees them. Started by virtual-host.ts.

import type { ExposureMode } from '../dma/exposure-modes.ts';
import { BlkDriver } from '../drivers/blk.ts';
import { DiskError } from '../drivers/disk.ts';
import type { Driver, DriverOptions } from '../drivers/driver.ts';
import { RngDriver } from '../drivers/rng.ts';
import { findDevice } from '../machine/device-finder.ts';
import { GuestDevices } from '../machine/guest-devices.ts';
import { GuestDomain } from '../machine/guest-domain.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { NbdServer } from '../nbd/server.ts';
import { CopyJob, type CopyResult } from './copy-job.ts';
import { startDomain } from './domain-loop.ts';
import { GuestRunner } from './guest-runner.ts';
import { plantSecrets } from './secrets.ts';

/** How the guest uses its devices. */
export interface DeviceSettings {
  readonly mode: ExposureMode;
  readonly drivers: DriverOptions;
  /** Number in the trace of device 0. */
  readonly firstDevice: number;
}

/** A disk under the name by which clients know it. */
export interface NamedDisk {
  readonly name: string;
  readonly devid: number;
}

/** What the main thread may ask. */
export type GuestCalls = {
  /** Fills the kernel's heap as a running guest's is filled. */
  plantSecrets(argument: undefined): void;
  /** Begins to use the devices that are announced. */
  useDevices(settings: DeviceSettings): Promise<void>;
  /** Has an entropy device deliver `bytes` random bytes. */
  drawEntropy(argument: { devid: number; bytes: number }): Promise<void>;
  /** Copies a disk and compares it with its image. A CopyProgress notice follows each window. */
  copy(argument: { devid: number; image: string }): Promise<CopyResult>;
  /** Ends copies early. */
  cancel(argument: undefined): void;
  /** Serves disks over NBD, the first as the default; returns their URIs. */
  openNbd(argument: { address: string; exports: readonly NamedDisk[] }): Promise<string[]>;
  /** Serves one more disk; returns its URIs, none where NBD is not served. */
  addExport(argument: NamedDisk): string[];
  /** Finishes what NBD clients have asked for, and flushes the disks. */
  closeNbd(argument: undefined): Promise<void>;
  /** Finishes what is asked of a device, and flushes it: nobody uses it any more. */
  retire(argument: { devid: number }): Promise<void>;
};

/** How far a copy is. */
export interface CopyProgress {
  readonly devid: number;
  readonly bytes: number;
}

/** A copy that is under way. */
interface Copying {
  readonly devid: number;
  readonly job: CopyJob;
  readonly ended: Promise<unknown>;
  /** Whether that is why it ended early. */
  unplugged: boolean;
}

startDomain(({ ports, xenstore, notify }) => {
  const guest = new GuestDomain(ports);
  const runner = new GuestRunner(guest);
  void runner.run();
  const drivers = new Map<number, Driver>();
  const exportNames = new Map<number, string>();
  let copying: Copying | undefined;
  let server: NbdServer | undefined;

  const driverOf = <Kind extends Driver>(devid: number, kind: new (...of: never[]) => Kind): Kind => {
    const driver = drivers.get(devid);
    if (!(driver instanceof kind)) throw new RangeError(`device ${devid}: no ${kind.name} is attached`);
    return driver;
  };

  const addExport = ({ name, devid }: NamedDisk) => {
    exportNames.set(devid, name);
    return { name, disk: driverOf(devid, BlkDriver) };
  };

  /** Sees to it that nobody uses a device any more, and that nothing is lost when it goes. */
  const retire = async (devid: number) => {
    const name = exportNames.get(devid);
    exportNames.delete(devid);
    if (copying?.devid === devid) {
      copying.unplugged = copying.job.cancelled = true;
      await copying.ended;
    }
    if (name !== undefined) await server?.remove(name);
    const driver = drivers.get(devid);
    if (driver instanceof BlkDriver && driver.failure === undefined && !driver.readOnly) await driver.flush();
  };

  const useOf = ({ mode, drivers: options, firstDevice }: DeviceSettings) =>
    new GuestDevices(xenstore, ports.id, {
      async attach({ kind, devid }) {
        const place = await findDevice(xenstore, kind, ports.id, devid);
        const driver = guest.attach({ ...place, device: firstDevice + devid }, mode, options);
        drivers.set(devid, driver);
        return driver;
      },
      async leaving(_driver, { devid }) {
        // It goes, whether it could be flushed or not. Whoever wants to know asks it to retire first.
        await retire(devid).catch((error) => {
          if (!(error instanceof DiskError)) throw error;
        });
      },
      detach(driver, { devid }) {
        drivers.delete(devid);
        guest.detach(driver);
        // Its clients' requests have failed; what else they want is refused.
        void retire(devid);
      },
    });

  return {
    plantSecrets: () => plantSecrets(guest.heap, ports.memory),
    useDevices: (settings) => useOf(settings).start(),
    async drawEntropy({ devid, bytes }) {
      await driverOf(devid, RngDriver).read(bytes);
    },
    async copy({ devid, image }) {
      const job = new CopyJob(guest, driverOf(devid, BlkDriver));
      const progress = (bytes: number) => notify({ devid, bytes } satisfies CopyProgress);
      // The job polls by itself, faster than the event loop could.
      const result = runner.pausedWhile(job.run(image, progress));
      const own: Copying = { devid, job, ended: result.catch(() => undefined), unplugged: false };
      copying = own;
      const copied = await result;
      if (own.unplugged) throw new Error('the disk was unplugged while it was copied');
      return copied;
    },
    cancel() {
      if (copying) copying.job.cancelled = true;
    },
    async openNbd({ address, exports }) {
      server = new NbdServer(exports.map(addExport));
      return server.listen(parseNbdAddress(address));
    },
    addExport: (named) => (server === undefined ? [] : server.add(addExport(named))),
    async closeNbd() {
      await server?.close();
      for (const disk of drivers.values())
        if (disk instanceof BlkDriver && disk.failure === undefined && !disk.readOnly) await disk.flush();
    },
    retire: ({ devid }) => retire(devid),
  } satisfies GuestCalls;
});
