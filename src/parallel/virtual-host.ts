// A virtual host: the embedded Xen with a backend domain and a guest, each on a thread of its own. The main
// thread is the toolstack: it creates the domains, announces the disks, keeps xenstore and the accounting.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { GUEST_VIRTIO_MMIO_SPI_FIRST, VIRTIO_MMIO_DEV_SIZE } from '../abi/xen-arm.ts';
import { Exposure, type TotalExposure } from '../audit/exposure.ts';
import type { TraceConsumer } from '../audit/events.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { LiveMappings } from '../audit/live-mappings.ts';
import { RingTracer, type TraceRing, traceRings } from '../audit/trace-ring.ts';
import type { DmaDebugOptions, DmaDebugResult } from '../dma/dma-debug-log.ts';
import type { GrantPolicy } from '../dma/policy.ts';
import type { BlkDriverOptions } from '../drivers/blk.ts';
import type { Architecture, DomainKind } from '../hosts/model/address-map.ts';
import { Xen } from '../hosts/model/xen.ts';
import { sleepWhile } from '../hosts/model/waiting.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import type { Troubles } from '../machine/guest-domain.ts';
import { StoreDomain } from '../machine/store-domain.ts';
import { writeBlob } from '../toolstack/device-tree/blob-writer.ts';
import { guestTree } from '../toolstack/device-tree/guest-tree.ts';
import { announceDevice, createHome, type VirtioNodes, withdrawDevice } from '../toolstack/virtio-nodes.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import { Store } from '../xenstore/store.ts';
import type { BackendCalls } from './backend-thread.ts';
import { nanoseconds } from './clock.ts';
import type { CopyResult } from './copy-job.ts';
import { DomainThread } from './domain-thread.ts';
import type { CopyProgress, DeviceDecision, GuestCalls, GuestNotice } from './guest-thread.ts';
import type { Glimpse } from './peeping-mapper.ts';
import { StoreLoop } from './store-loop.ts';

const MIB = 2 ** 20;
/** The driver domain: not domain 0, which has no part in the data path. */
export const BACKEND = domainId(1);
export const GUEST = domainId(2);
const BACKEND_MEMORY = 8 * MIB;
const XEN_HEAP = 64 * MIB;
/** Frames beside the domains' memory: grant tables, shared pages. */
const SPARE_MEMORY = 8 * MIB;

/** Bytes that an entropy device delivers to show that it works. */
const ENTROPY_PROOF = 64;

/** Milliseconds that a domain's thread is given to stand still. */
const PARKING_PATIENCE = 5000;

/** How often events are fetched from the threads, in milliseconds, and how many at a time. */
const DRAIN_INTERVAL = 5;
const DRAIN_BATCH = 50_000;

/** What Xen tells the guest of itself in its device tree. */
const XEN_VERSION = { major: 4, minor: 20 };
const ADDRESS_BITS = 40;

/** How the guest and its toolstack want a device to reach memory. */
export interface AccessWish {
  /** Whether the toolstack gives the device with grants; default true. */
  readonly grantUsage?: boolean;
  /** The guest's policy for the device; default its policy for all. */
  readonly policy?: GrantPolicy;
}

/** A disk of the guest. */
export interface HostDisk extends AccessWish {
  /** Path of the image. */
  readonly path: string;
  readonly readOnly: boolean;
  /** The guest's name for it: "xvda" and so on. */
  readonly dev: string;
}

/** How a virtual host is made. */
export interface HostOptions {
  readonly disks: readonly HostDisk[];
  /** The entropy devices that the guest gets besides; each must deliver before the host is ready. */
  readonly entropyDevices: readonly AccessWish[];
  readonly mode: ExposureMode;
  /** Number of the first disk in the trace; the others follow. */
  readonly firstDevice: number;
  /** Of the machine, and so of both domains. */
  readonly architecture: Architecture;
  /** Of the guest; not 'pv', whose accesses to registers nobody traps. */
  readonly kind: DomainKind;
  /** Bytes of the guest's memory. */
  readonly memory: number;
  /** Limits of the guest: of its grant table, and of what it may map itself. */
  readonly maxGrantFrames: number;
  readonly maxGrantVersion?: number | undefined;
  readonly maxMaptrackFrames?: number | undefined;
  readonly queues: number;
  readonly queueSize: number;
  /** Whether, and how, the guest's drivers are watched for misuse of their mappings. */
  readonly dmaDebug?: DmaDebugOptions | undefined;
  /** The guest's policy for all devices; default 'require'. */
  readonly policy?: GrantPolicy | undefined;
  /** Id of the domain that serves all devices, as the guest's own configuration says it. */
  readonly configuredBackend?: number | undefined;
  /** Told how each device is to reach memory, and why, before it is used; devices are counted as in the trace. */
  readonly onDecision?: (decision: DeviceDecision) => void;
  /** Takes every event of the run besides the accounting. */
  readonly trace?: TraceConsumer;
}

/** What a run has come to. */
export interface HostReport {
  readonly exposure: TotalExposure;
  /** Events that the accounting did not get to see; 0 in an orderly run. */
  readonly eventsLost: number;
  readonly glimpse: Glimpse | undefined;
  /** In mode `auto`: bytes from which on whole pages were granted themselves, Infinity for never. */
  readonly directFrom: number | undefined;
  /** What the drivers did wrong, if they were watched and their guest was not destroyed. */
  readonly dmaDebug: DmaDebugResult | undefined;
  /** How the guest's devices were exposed: as asked for, or `bounce` where `copy` was not to be had. */
  readonly mode: ExposureMode;
  /** Undefined when the guest was destroyed. */
  readonly troubles: Troubles | undefined;
}

/** One boot of a host, with its disks attached. */
export class VirtualHost {
  readonly #options: HostOptions;
  readonly #xen: Xen;
  readonly #control: StoreDomain;
  readonly #storeLoop: StoreLoop;
  #backend: DomainThread<BackendCalls>;
  readonly #backendTrace: TraceRing;
  readonly #mappings = new LiveMappings();
  readonly #guest: DomainThread<GuestCalls>;
  /** Guest-physical address of the registers of device 0. */
  readonly #firstWindow: number;
  readonly #exposure = new Exposure();
  readonly #merger: TraceMerger;
  readonly #drain: NodeJS.Timeout;
  /** The devices that the guest has, as they were announced. */
  #attached: VirtioNodes[] = [];
  #stopped: Promise<HostReport> | undefined;
  #guestDestroyed = false;
  #mode: ExposureMode;
  /** Called while disks are copied. */
  onProgress: (progress: CopyProgress) => void = () => undefined;

  private constructor(options: HostOptions, xen: Xen, control: StoreDomain) {
    this.#options = options;
    this.#mode = options.mode;
    this.#xen = xen;
    this.#control = control;
    this.#storeLoop = new StoreLoop(xen, control);
    const { architecture } = options;
    const { map } = xen.createDomain(GUEST, {
      kind: options.kind,
      architecture,
      memory: options.memory,
      maxGrantFrames: options.maxGrantFrames,
      maxMaptrackFrames: options.maxMaptrackFrames ?? 1,
      ...(options.maxGrantVersion !== undefined && { maxGrantVersion: options.maxGrantVersion }),
    });
    this.#firstWindow = map.virtioMmio;
    const [backendTrace, guestTrace] = traceRings(2);
    const accounting = [this.#exposure, this.#mappings];
    const consumers = options.trace ? [...accounting, options.trace] : accounting;
    this.#merger = new TraceMerger([backendTrace, guestTrace], consumers);
    this.#backendTrace = backendTrace;
    this.#backend = this.#startBackend(BACKEND);
    const link = control.introduce(xen.ports(GUEST, sleepWhile));
    const debugs = options.dmaDebug !== undefined;
    this.#guest = new DomainThread('guest-thread', xen, GUEST, link, guestTrace, debugs);
    this.#guest.onNotice = (notice) => this.#take(notice as GuestNotice);
    this.#drain = setInterval(() => this.#merger.drain(DRAIN_BATCH), DRAIN_INTERVAL);
  }

  /**
   * Boots the host and attaches its disks.
   *
   * @throws CallFailed when a disk cannot be attached; nothing is left running then
   */
  static async start(options: HostOptions): Promise<VirtualHost> {
    const xen = Xen.boot(options.memory + BACKEND_MEMORY + SPARE_MEMORY, XEN_HEAP, true);
    const control = new StoreDomain(xen, options.architecture, new Store(), sleepWhile);
    // Before the domains run: they watch their homes from their first moment on.
    await createHome(control.tools, BACKEND);
    await createHome(control.tools, GUEST);
    const host = new VirtualHost(options, xen, control);
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

  /**
   * Stops the guest where it is, until `resumeGuest` has been called as often. Resolves when its thread stands
   * still, outside of Xen, or when it has not come to that for so long that it must hang in code of its own.
   */
  pauseGuest(): Promise<void> {
    return this.#pause(GUEST);
  }

  resumeGuest(): void {
    this.#xen.domains.unpause(this.#xen.domain(GUEST));
  }

  /**
   * Ends the backend at once, whatever it is doing, and has another domain serve its devices. Resolves when the
   * guest's disks work again; what was asked of them is asked of the new one.
   *
   * On Arm the guest's device tree goes on naming the first backend, so no other domain can take its place there.
   *
   * @param id of the new backend; not that of a domain that exists
   */
  async replaceBackend(id: DomainId): Promise<void> {
    const dead = this.#backend;
    await this.#pause(dead.id);
    await dead.terminate();
    for (const place of this.#attached) await withdrawDevice(this.#control.tools, place);
    this.#control.release(dead.id);
    for (const _ of this.#xen.destroyDomain(dead.id)) await turn();
    while (this.#merger.drain() > 0) await turn();
    this.#mappings.end(dead.id, new RingTracer(this.#backendTrace, nanoseconds));
    await createHome(this.#control.tools, id);
    this.#backend = this.#startBackend(id);
    await this.#configureBackend();
    this.#attached = this.#attached.map((place) => ({ ...place, backend: id }));
    for (const place of this.#attached) {
      await announceDevice(this.#control.tools, place);
      const { devid } = place;
      const { disks, entropyDevices, firstDevice } = this.#options;
      const wish = this.#wish([...disks, ...entropyDevices][devid]);
      await this.#guest.call('reattach', { devid, device: firstDevice + devid, wish });
    }
  }

  /**
   * Ends the guest at once, whatever it is doing (xl destroy), and takes it apart between other work. Its devices
   * are withdrawn, so that its backend lets go of them. Resolves when nothing is left of it.
   */
  async destroyGuest(): Promise<void> {
    this.#guestDestroyed = true;
    // A thread that stands still holds no lock of Xen's.
    await this.pauseGuest();
    await this.#guest.terminate();
    for (const place of this.#attached.splice(0)) await withdrawDevice(this.#control.tools, place);
    this.#control.release(GUEST);
    for (const _ of this.#xen.destroyDomain(GUEST)) await turn();
    while (this.#xen.domains.find(GUEST) !== undefined) await turn();
  }

  /** Stops everything in order: clients, queues, grants, images, threads. Returns what the run has come to. */
  stop(): Promise<HostReport> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  #take(notice: GuestNotice): void {
    if (notice.kind === 'progress') this.onProgress(notice);
    else this.#options.onDecision?.(notice);
  }

  /** Tells the guest's kernel what it runs on, as CPUID and the device tree do. */
  #bootGuest(): Promise<void> {
    const { kind, architecture, policy = 'require' } = this.#options;
    const facts = {
      id: GUEST,
      kind,
      architecture,
      encryptedMemory: false,
      initialDomain: false,
      policy,
      domainZeroByDefault: false,
    } as const;
    return this.#guest.call('boot', { facts, tree: architecture === 'arm' ? this.#deviceTree() : undefined });
  }

  /** The tree that Xen hands a guest on Arm: it has all devices that are there when the guest is built. */
  #deviceTree(): Uint8Array {
    const { disks, entropyDevices, memory } = this.#options;
    const devices = [...disks, ...entropyDevices].map(({ grantUsage = true }, devid) => ({
      ...this.#slot(devid),
      type: devid < disks.length ? undefined : `virtio,device${VIRTIO_ID_RNG.toString(16)}`,
      grantsTo: grantUsage ? BACKEND : undefined,
    }));
    return writeBlob(
      guestTree({
        xenVersion: XEN_VERSION,
        memory: memory / MIB,
        vcpus: 1,
        gic: 'v3',
        addressBits: ADDRESS_BITS,
        devices,
      }),
    );
  }

  async #attachDisks(): Promise<void> {
    const { queues, queueSize, mode, disks, entropyDevices, dmaDebug } = this.#options;
    await this.#configureBackend();
    await this.#bootGuest();
    await this.#guest.call('plantSecrets', undefined);
    if (dmaDebug !== undefined) await this.#guest.call('debugDma', dmaDebug);
    for (const [devid, disk] of disks.entries()) {
      const place: VirtioNodes = {
        kind: 'virtio_disk',
        ...this.#slot(devid),
        virtioId: VIRTIO_ID_BLOCK,
        grantUsage: disk.grantUsage ?? true,
        disk: { params: disk.path, readOnly: disk.readOnly, dev: disk.dev },
      };
      await announceDevice(this.#control.tools, place);
      this.#mode = await this.#guest.call('attach', {
        devid,
        device: this.#options.firstDevice + devid,
        mode,
        wish: this.#wish(disk),
        options: { queues, queueSize } satisfies BlkDriverOptions,
      });
      this.#attached.push(place);
    }
    for (const [index, access] of entropyDevices.entries())
      await this.#attachEntropy(disks.length + index, access);
  }

  #wish({ policy }: AccessWish) {
    return { policy, backend: this.#options.configuredBackend };
  }

  async #attachEntropy(devid: number, access: AccessWish): Promise<void> {
    const place: VirtioNodes = {
      kind: 'virtio',
      ...this.#slot(devid),
      virtioId: VIRTIO_ID_RNG,
      grantUsage: access.grantUsage ?? true,
    };
    await announceDevice(this.#control.tools, place);
    const { mode, firstDevice } = this.#options;
    const device = firstDevice + devid;
    const wish = this.#wish(access);
    this.#mode = await this.#guest.call('attachRng', { devid, device, mode, wish, bytes: ENTROPY_PROOF });
    this.#attached.push(place);
  }

  async #pause(id: DomainId): Promise<void> {
    const domain = this.#xen.domain(id);
    this.#xen.domains.pause(domain);
    for (let naps = 0; !domain.parked && naps < PARKING_PATIENCE; naps++) await sleep(1);
  }

  #startBackend(id: DomainId): DomainThread<BackendCalls> {
    const { architecture } = this.#options;
    this.#xen.createDomain(id, { memory: BACKEND_MEMORY, architecture });
    this.#xen.nameDeviceModel(GUEST, id);
    const link = this.#control.introduce(this.#xen.ports(id, sleepWhile));
    return new DomainThread('backend-thread', this.#xen, id, link, this.#backendTrace);
  }

  #configureBackend(): Promise<void> {
    const { queues, queueSize, mode } = this.#options;
    return this.#backend.call('configure', { queues, queueSize, access: mode === 'copy' ? 'copy' : 'map' });
  }

  /** Who has device `devid`, where its registers are, and its interrupt, in libxl's order. */
  #slot(devid: number) {
    return {
      backend: BACKEND,
      guest: GUEST,
      devid,
      base: this.#firstWindow + devid * VIRTIO_MMIO_DEV_SIZE,
      irq: GUEST_VIRTIO_MMIO_SPI_FIRST + devid,
    };
  }

  async #stop(): Promise<HostReport> {
    try {
      const isAuto = this.#options.mode === 'auto' && !this.#guestDestroyed;
      const directFrom = isAuto ? await this.#guest.call('directFrom', undefined) : undefined;
      const end = this.#guestDestroyed ? undefined : await this.#detachAll();
      const glimpse = await this.#backend.call('glimpse', undefined);
      await this.#backend.call('stop', undefined);
      this.#merger.close();
      return {
        exposure: this.#exposure.total(),
        eventsLost: this.#merger.undelivered,
        glimpse,
        directFrom,
        dmaDebug: end?.dmaDebug,
        mode: this.#mode,
        troubles: end?.troubles,
      };
    } finally {
      await this.#terminate();
    }
  }

  /** Returns what the guest has to tell, up to the end of its last device. */
  async #detachAll(): Promise<{ dmaDebug: DmaDebugResult | undefined; troubles: Troubles }> {
    await this.#guest.call('cancel', undefined);
    await this.#guest.call('closeNbd', undefined);
    for (const place of this.#attached) {
      await this.#guest.call('detach', { devid: place.devid });
      await withdrawDevice(this.#control.tools, place);
    }
    return {
      dmaDebug: await this.#guest.call('dmaDebugResult', undefined),
      troubles: await this.#guest.call('troubles', undefined),
    };
  }

  async #terminate(): Promise<void> {
    clearInterval(this.#drain);
    this.#merger.close();
    await Promise.all([this.#guest.terminate(), this.#backend.terminate(), this.#storeLoop.stop()]);
  }
}
