// The thread of a guest: uses the devices that xenstore announces as they come and go, copies disks, and serves them
// over NBD as the guest sees them. Started by virtual-host.ts.

import type { DmaDebugLog, DmaDebugOptions, DmaDebugResult } from '../dma/dma-debug-log.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import type { Decision, GuestFacts } from '../dma/policy.ts';
import type { ReferenceUsage } from '../dma/references.ts';
import { BlkDriver } from '../drivers/blk.ts';
import { ConsoleDriver } from '../drivers/console.ts';
import { DiskError } from '../drivers/disk.ts';
import type { Driver } from '../drivers/driver.ts';
import type { DriverOptions } from '../drivers/driver-kinds.ts';
import { RngDriver } from '../drivers/rng.ts';
import { assert } from '../errors.ts';
import { findDevice, type GuestView, type WantedDevice } from '../machine/device-finder.ts';
import { GuestDevices } from '../machine/guest-devices.ts';
import { GuestDomain, type Troubles } from '../machine/guest-domain.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import { NbdServer } from '../nbd/server.ts';
import { readBlob } from '../toolstack/device-tree/blob-reader.ts';
import type { DeviceAddress } from '../toolstack/virtio-nodes.ts';
import { milliseconds } from './clock.ts';
import { CopyJob, type CopyResult } from './copy-job.ts';
import { startDomain } from './domain-loop.ts';
import { ImageContent } from './expected-content.ts';
import { GuestRunner } from './guest-runner.ts';
import { plantSecrets } from './secrets.ts';

/** What a guest's own configuration says of one of its devices. */
export type DeviceWish = Pick<WantedDevice, 'policy' | 'backend'>;

/** How the guest uses its devices. */
export interface DeviceSettings {
  readonly mode: ExposureMode;
  readonly drivers: DriverOptions;
  /** Number in the trace of device 0. */
  readonly firstDevice: number;
  /** By device, those that the guest's configuration knows. */
  readonly wishes: readonly DeviceWish[];
  /** For all others. */
  readonly wish: DeviceWish;
}

/** A disk under the name by which clients know it. */
export interface NamedDisk {
  readonly name: string;
  readonly devid: number;
}

/** What the guest has to tell in the end. */
export interface GuestReport {
  /** How its devices were exposed: as asked for, or `bounce` where `copy` was not to be had. */
  readonly mode: ExposureMode | undefined;
  /** In mode `auto`: bytes from which on whole pages were granted themselves, Infinity for never. */
  readonly directFrom: number | undefined;
  /** What the drivers did wrong, if they were watched. */
  readonly dmaDebug: DmaDebugResult | undefined;
  readonly troubles: Troubles;
  /** How full and how scattered its grant table is. */
  readonly references: ReferenceUsage;
}

/** What the main thread may ask. */
export type GuestCalls = {
  /** Tells the kernel what it runs on: once, before anything else. The tree is a blob, if there is one. */
  boot(argument: { facts: GuestFacts; tree: Uint8Array | undefined }): void;
  /** Fills the kernel's heap as a running guest's is filled. */
  plantSecrets(argument: undefined): void;
  /** Watches what the drivers that are started from now on do with their mappings. */
  debugDma(options: DmaDebugOptions): void;
  /** Begins to use the devices that are announced. */
  useDevices(settings: DeviceSettings): Promise<void>;
  /**
   * While it is so, a device that is taken away is expected back: its driver keeps what is asked of it, and goes on
   * with the next device of the same number.
   */
  expectReplacements(expected: boolean): void;
  /** Has an entropy device deliver `bytes` random bytes. */
  drawEntropy(argument: { devid: number; bytes: number }): Promise<void>;
  /** Has a console with an echo return what is written to its first port; rejects when that is something else. */
  tryConsole(argument: { devid: number; bytes: number }): Promise<void>;
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
  /** What there is to tell of all devices so far. */
  report(argument: undefined): GuestReport;
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

/** A copy that is under way. */
interface Copying {
  readonly devid: number;
  readonly job: CopyJob;
  readonly ended: Promise<unknown>;
  /** Whether that is why it ended early. */
  unplugged: boolean;
}

startDomain(({ ports, xenstore, notify }) => {
  const guest = new GuestDomain(ports, milliseconds);
  const runner = new GuestRunner(guest);
  void runner.run();
  const drivers = new Map<number, Driver>();
  /** Drivers whose device is expected back. */
  const kept = new Map<number, Driver>();
  let expectsReplacements = false;
  const exportNames = new Map<number, string>();
  let view: GuestView | undefined;
  let debugLog: DmaDebugLog | undefined;
  let asked: ExposureMode | undefined;
  let mode: ExposureMode | undefined;
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

  const find = ({ kind, devid }: DeviceAddress, { wishes, wish }: DeviceSettings) => {
    assert(view !== undefined, 'a guest is booted before it looks for devices');
    return findDevice(xenstore, view, { kind, devid, ...(wishes[devid] ?? wish) }, (decision) =>
      notify({ kind: 'decision', devid, decision } satisfies GuestNotice),
    );
  };

  const attach = async (address: DeviceAddress, settings: DeviceSettings) => {
    const { devid } = address;
    const place = { ...(await find(address, settings)), device: settings.firstDevice + devid };
    const driver = kept.get(devid);
    if (driver !== undefined) {
      guest.reattach(driver, place);
      kept.delete(devid);
      return driver;
    }
    const started = guest.attach(place, settings.mode, settings.drivers);
    mode = guest.modeOf(started);
    drivers.set(devid, started);
    return started;
  };

  const detach = (driver: Driver, devid: number, reason: string) => {
    if (expectsReplacements && driver.failure === undefined) {
      driver.suspend(reason);
      kept.set(devid, driver);
      return;
    }
    drivers.delete(devid);
    driver.fail(reason);
    guest.detach(driver);
    // Its clients' requests have failed; what else they want is refused.
    void retire(devid);
  };

  const useOf = (settings: DeviceSettings) =>
    new GuestDevices(xenstore, ports.id, {
      attach: (address) => attach(address, settings),
      async leaving(_driver, { devid }) {
        // It goes, whether it could be flushed or not. Whoever wants to know asks it to retire first.
        await retire(devid).catch((error) => {
          if (!(error instanceof DiskError)) throw error;
        });
      },
      detach: (driver, { devid }, reason) => detach(driver, devid, reason),
    });

  return {
    boot({ facts, tree }) {
      view = { facts, tree: tree && readBlob(tree, 'device tree').tree };
    },
    plantSecrets: () => plantSecrets(guest.heap, ports.memory),
    debugDma(options) {
      debugLog = guest.dma.debug(options);
    },
    useDevices(settings) {
      asked = settings.mode;
      return useOf(settings).start();
    },
    expectReplacements(expected) {
      expectsReplacements = expected;
      if (expected) return;
      for (const [devid, driver] of kept) detach(driver, devid, 'no device has come in its place');
      kept.clear();
    },
    async drawEntropy({ devid, bytes }) {
      await driverOf(devid, RngDriver).read(bytes);
    },
    async tryConsole({ devid, bytes }) {
      const port = await driverOf(devid, ConsoleDriver).port(0);
      port.open();
      const written = crypto.getRandomValues(new Uint8Array(bytes));
      await port.write(written);
      for (let done = 0; done < bytes; ) {
        const piece = await port.read();
        if (piece === undefined || piece.some((byte, at) => byte !== written[done + at]))
          throw new Error(`the console did not return what was written to it, from byte ${done} on`);
        done += piece.length;
      }
      port.close();
    },
    async copy({ devid, image }) {
      const job = new CopyJob(guest, driverOf(devid, BlkDriver));
      const content = new ImageContent(image);
      const progress = (bytes: number) => notify({ kind: 'progress', devid, bytes } satisfies GuestNotice);
      // The job polls by itself, faster than the event loop could.
      const result = runner.pausedWhile(job.run(content, progress)).finally(() => content.close());
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
    report: () => ({
      mode,
      directFrom: asked === 'auto' ? guest.dma.directFrom : undefined,
      dmaDebug: debugLog?.result,
      troubles: guest.troubles,
      references: guest.referenceUsage(),
    }),
  } satisfies GuestCalls;
});
