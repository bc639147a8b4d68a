// A virtual host: the embedded Xen with a backend domain and a guest, each on a thread of its own. The main
// thread is the toolstack: it creates the domains, announces the disks, keeps xenstore and the accounting.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { Exposure, type TotalExposure } from '../audit/exposure.ts';
import type { TraceConsumer } from '../audit/events.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { traceRings } from '../audit/trace-ring.ts';
import type { BlkDriverOptions } from '../drivers/blk.ts';
import { Xen } from '../hosts/model/xen.ts';
import type { ExposureMode } from '../machine/guest-domain.ts';
import { announceDevice, createHome, type VirtioKind, withdrawDevice } from '../toolstack/virtio-nodes.ts';
import { domainId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { localXenstore } from '../xenstore/local.ts';
import { Store } from '../xenstore/store.ts';
import type { BackendCalls } from './backend-thread.ts';
import type { CopyResult } from './copy-job.ts';
import { DomainThread } from './domain-thread.ts';
import type { CopyProgress, GuestCalls } from './guest-thread.ts';
import type { Glimpse } from './peeping-mapper.ts';

const MIB = 2 ** 20;
const TOOLSTACK = domainId(0);
/** The driver domain: not domain 0, which has no part in the data path. */
export const BACKEND = domainId(1);
export const GUEST = domainId(2);
const BACKEND_MEMORY = 4 * MIB;
const XEN_HEAP = 64 * MIB;
/** Frames beside the domains' memory: grant tables, shared pages. */
const SPARE_MEMORY = 8 * MIB;

/** The window of virtio-mmio devices of an Arm guest (public/arch-arm.h), and its interrupts. */
const MMIO_BASE = 0x0200_0000;
const MMIO_STEP = 0x200;
const FIRST_IRQ = 33;

/** Bytes that an entropy device delivers to show that it works. */
const ENTROPY_PROOF = 64;

/** How often events are fetched from the threads, in milliseconds, and how many at a time. */
const DRAIN_INTERVAL = 5;
const DRAIN_BATCH = 50_000;

const ENDS = { backend: BACKEND, guest: GUEST };

/** Where the registers of device `devid` are, and its interrupt. */
function slot(devid: number) {
  return { base: MMIO_BASE + devid * MMIO_STEP, irq: FIRST_IRQ + devid };
}

/** A disk of the guest. */
export interface HostDisk {
  /** Path of the image. */
  readonly path: string;
  readonly readOnly: boolean;
  /** The guest's name for it: "xvda" and so on. */
  readonly dev: string;
}

/** How a virtual host is made. */
export interface HostOptions {
  readonly disks: readonly HostDisk[];
  /** How many entropy devices the guest gets besides; each must deliver before the host is ready. */
  readonly entropyDevices: number;
  readonly mode: ExposureMode;
  /** Number of the first disk in the trace; the others follow. */
  readonly firstDevice: number;
  /** Bytes of the guest's memory. */
  readonly memory: number;
  readonly maxGrantFrames: number;
  readonly queues: number;
  readonly queueSize: number;
  /** Takes every event of the run besides the accounting. */
  readonly trace?: TraceConsumer;
}

/** What a run has come to. */
export interface HostReport {
  readonly exposure: TotalExposure;
  /** Events that the accounting did not get to see; 0 in an orderly run. */
  readonly eventsLost: number;
  readonly glimpse: Glimpse | undefined;
}

/** One boot of a host, with its disks attached. */
export class VirtualHost {
  readonly #options: HostOptions;
  readonly #store: Xenstore;
  readonly #backend: DomainThread<BackendCalls>;
  readonly #guest: DomainThread<GuestCalls>;
  readonly #exposure = new Exposure();
  readonly #merger: TraceMerger;
  readonly #drain: NodeJS.Timeout;
  readonly #attached: { kind: VirtioKind; backend: number; guest: number; devid: number }[] = [];
  #stopped: Promise<HostReport> | undefined;
  /** Called while disks are copied. */
  onProgress: (progress: CopyProgress) => void = () => undefined;

  private constructor(options: HostOptions, store: Store, toolstack: Xenstore) {
    this.#options = options;
    this.#store = toolstack;
    const xen = Xen.boot(options.memory + BACKEND_MEMORY + SPARE_MEMORY, XEN_HEAP, true);
    xen.createDomain(BACKEND, { memory: BACKEND_MEMORY });
    xen.createDomain(GUEST, {
      memory: options.memory,
      maxGrantFrames: options.maxGrantFrames,
      maxMaptrackFrames: 1,
    });
    xen.nameDeviceModel(GUEST, BACKEND);
    const [backendTrace, guestTrace] = traceRings(2);
    const consumers = options.trace ? [this.#exposure, options.trace] : [this.#exposure];
    this.#merger = new TraceMerger([backendTrace, guestTrace], consumers);
    this.#backend = new DomainThread('backend-thread', xen, store, BACKEND, backendTrace);
    this.#guest = new DomainThread('guest-thread', xen, store, GUEST, guestTrace);
    this.#guest.onNotice = (notice) => this.onProgress(notice as CopyProgress);
    this.#drain = setInterval(() => this.#merger.drain(DRAIN_BATCH), DRAIN_INTERVAL);
  }

  /**
   * Boots the host and attaches its disks.
   *
   * @throws CallFailed when a disk cannot be attached; nothing is left running then
   */
  static async start(options: HostOptions): Promise<VirtualHost> {
    const store = new Store();
    const toolstack = localXenstore(store, TOOLSTACK);
    // Before the domains run: they watch their homes from their first moment on.
    await createHome(toolstack, BACKEND);
    await createHome(toolstack, GUEST);
    const host = new VirtualHost(options, store, toolstack);
    try {
      await host.#attachDisks();
      return host;
    } catch (error) {
      await host.#terminate();
      throw error;
    }
  }

  /** Copies disk `devid` through the guest's driver and compares it with its image. */
  copy(devid: number): Promise<CopyResult> {
    return this.#guest.call('copy', { devid, image: this.#options.disks[devid].path });
  }

  /** Ends copies that are under way. */
  cancel(): Promise<void> {
    return this.#guest.call('cancel', undefined);
  }

  /** Serves all disks over NBD, by their device names; the first is the default too. Returns their URIs. */
  openNbd(address: string): Promise<string[]> {
    const exports = this.#options.disks.map(({ dev }, devid) => ({ name: dev, devid }));
    return this.#guest.call('openNbd', { address, exports });
  }

  /** Stops everything in order: clients, queues, grants, images, threads. Returns what the run has come to. */
  stop(): Promise<HostReport> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #attachDisks(): Promise<void> {
    const { queues, queueSize, mode, disks, entropyDevices } = this.#options;
    await this.#backend.call('configure', { queues, queueSize });
    await this.#guest.call('plantSecrets', undefined);
    for (const [devid, disk] of disks.entries()) {
      const place = { kind: 'virtio_disk' as const, ...ENDS, devid };
      await announceDevice(this.#store, {
        ...place,
        ...slot(devid),
        virtioId: VIRTIO_ID_BLOCK,
        grantUsage: true,
        disk: { params: disk.path, readOnly: disk.readOnly, dev: disk.dev },
      });
      await this.#guest.call('attach', {
        devid,
        device: this.#options.firstDevice + devid,
        mode,
        options: { queues, queueSize } satisfies BlkDriverOptions,
      });
      this.#attached.push(place);
    }
    for (let i = 0; i < entropyDevices; i++) await this.#attachEntropy(disks.length + i);
  }

  async #attachEntropy(devid: number): Promise<void> {
    const place = { kind: 'virtio' as const, ...ENDS, devid };
    await announceDevice(this.#store, {
      ...place,
      ...slot(devid),
      virtioId: VIRTIO_ID_RNG,
      grantUsage: true,
    });
    const { mode, firstDevice } = this.#options;
    await this.#guest.call('attachRng', { devid, device: firstDevice + devid, mode, bytes: ENTROPY_PROOF });
    this.#attached.push(place);
  }

  async #stop(): Promise<HostReport> {
    try {
      await this.#guest.call('cancel', undefined);
      await this.#guest.call('closeNbd', undefined);
      for (const place of this.#attached) {
        await this.#guest.call('detach', { devid: place.devid });
        await withdrawDevice(this.#store, place);
      }
      const glimpse = await this.#backend.call('glimpse', undefined);
      await this.#backend.call('stop', undefined);
      this.#merger.close();
      return { exposure: this.#exposure.total(), eventsLost: this.#merger.undelivered, glimpse };
    } finally {
      await this.#terminate();
    }
  }

  async #terminate(): Promise<void> {
    clearInterval(this.#drain);
    this.#merger.close();
    await Promise.all([this.#guest.terminate(), this.#backend.terminate()]);
  }
}
