// A virtual host: the embedded Xen with a backend domain and a guest, each on a thread of its own. The main
// thread is the toolstack: it creates the domains, announces the disks, keeps xenstore and the accounting.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { Exposure } from '../audit/exposure.ts';
import { LiveMappings } from '../audit/live-mappings.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { RingTracer, type TraceRing, traceRings } from '../audit/trace-ring.ts';
import { sleepWhile } from '../hosts/model/waiting.ts';
import { Xen } from '../hosts/model/xen.ts';
import { StoreDomain } from '../machine/store-domain.ts';
import { DeviceSlots } from '../toolstack/device-slots.ts';
import { writeBlob } from '../toolstack/device-tree/blob-writer.ts';
import { guestTree } from '../toolstack/device-tree/guest-tree.ts';
import { createHome } from '../toolstack/virtio-nodes.ts';
import type { DomainId } from '../xen/ids.ts';
import { Store } from '../xenstore/store.ts';
import type { BackendCalls } from './backend-thread.ts';
import { nanoseconds } from './clock.ts';
import type { CopyResult } from './copy-job.ts';
import { DomainThread } from './domain-thread.ts';
import type { CopyProgress, DeviceWish, GuestCalls, GuestNotice, GuestReport } from './guest-thread.ts';
import { HostDevices, type PluggedDevice } from './host-devices.ts';
import {
  type AccessWish,
  BACKEND,
  GUEST,
  type HostDisk,
  type HostOptions,
  type HostReport,
} from './host-options.ts';
import { StoreLoop } from './store-loop.ts';

const MIB = 2 ** 20;
const BACKEND_MEMORY = 8 * MIB;
const XEN_HEAP = 64 * MIB;
/** Frames beside the domains' memory: grant tables, shared pages. */
const SPARE_MEMORY = 8 * MIB;

/** Milliseconds that a guest's thread is given to stand still. */
const PARKING_PATIENCE = 5000;

/** How often events are fetched from the threads, in milliseconds, and how many at a time. */
const DRAIN_INTERVAL = 5;
const DRAIN_BATCH = 50_000;

/** What Xen tells the guest of itself in its device tree. */
const XEN_VERSION = { major: 4, minor: 20 };
const ADDRESS_BITS = 40;

/** One boot of a host, with its disks attached. */
export class VirtualHost {
  readonly #options: HostOptions;
  readonly #xen: Xen;
  readonly #control: StoreDomain;
  readonly #storeLoop: StoreLoop;
  #backend: DomainThread<BackendCalls>;
  readonly #backendTrace: TraceRing;
  /** What backends map, as the trace tells it: what a dead one has mapped ends with it. */
  readonly #mappings = new LiveMappings();
  readonly #guest: DomainThread<GuestCalls>;
  readonly #slots: DeviceSlots;
  readonly #devices: HostDevices;
  readonly #exposure = new Exposure();
  readonly #merger: TraceMerger;
  readonly #drain: NodeJS.Timeout;
  #stopped: Promise<HostReport> | undefined;
  #guestDestroyed = false;
  /** Called while disks are copied. */
  onProgress: (progress: CopyProgress) => void = () => undefined;

  private constructor(options: HostOptions, xen: Xen, control: StoreDomain) {
    this.#options = options;
    this.#xen = xen;
    this.#control = control;
    this.#storeLoop = new StoreLoop(xen, control);
    const { map } = xen.createDomain(GUEST, {
      kind: options.kind,
      architecture: options.architecture,
      memory: options.memory,
      maxGrantFrames: options.maxGrantFrames,
      maxMaptrackFrames: options.maxMaptrackFrames ?? 1,
      ...(options.maxGrantVersion !== undefined && { maxGrantVersion: options.maxGrantVersion }),
    });
    this.#slots = new DeviceSlots(map.virtioMmio);
    const [backendTrace, guestTrace] = traceRings(2);
    const accounting = [this.#exposure, this.#mappings];
    const consumers = options.trace ? [...accounting, options.trace] : accounting;
    this.#merger = new TraceMerger([backendTrace, guestTrace], consumers);
    this.#backendTrace = backendTrace;
    this.#backend = this.#startBackend(BACKEND);
    const link = control.introduce(xen.ports(GUEST, sleepWhile));
    const debugs = options.dmaDebug !== undefined;
    this.#guest = new DomainThread('guest-thread', xen, GUEST, link, guestTrace, debugs);
    this.#devices = new HostDevices(control.tools, this.#slots, this.#guest, () => this.#backend);
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
      await host.#plugAll();
      return host;
    } catch (error) {
      await host.#terminate();
      throw error;
    }
  }

  /** Copies disk `devid` through the guest's driver and compares it with its image. */
  copy(devid: number): Promise<CopyResult> {
    const device = this.devices.find(({ nodes }) => nodes.devid === devid);
    if (device?.nodes.disk === undefined) return Promise.reject(new RangeError(`device ${devid} is no disk`));
    return this.#guest.call('copy', { devid, image: device.nodes.disk.params });
  }

  /** Ends copies that are under way. */
  cancel(): Promise<void> {
    return this.#guest.call('cancel', undefined);
  }

  /** Serves all disks over NBD, by their device names; the first is the default too. Returns their URIs. */
  openNbd(address: string): Promise<string[]> {
    return this.#devices.openNbd(address);
  }

  /** The guest's devices, in the order in which they came. */
  get devices(): PluggedDevice[] {
    return this.#devices.all;
  }

  /**
   * Gives the running guest a disk; NBD clients, where they are served, find it at once.
   *
   * @throws Error when its name is taken, no place is left, or an end does not want it; nothing is left of it then
   */
  plug(disk: HostDisk): Promise<PluggedDevice> {
    return this.#devices.plugDisk(disk);
  }

  /** Gives the running guest an entropy device. Rejects as `plug` does. */
  plugEntropy(): Promise<PluggedDevice> {
    return this.#devices.plugEntropy({});
  }

  /**
   * Takes a device away. Its NBD clients are hung up on when they have their last replies, and a disk is flushed.
   *
   * @returns whether guest and backend let go of it; if they did not in time, it was taken from them
   * @throws RangeError when there is no such device; CallFailed when its last writes may not be in the image: it has
   *   gone all the same
   */
  unplug(dev: string): Promise<boolean> {
    return this.#devices.unplug(dev);
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
   * guest's devices work again; what was asked of them is asked of the new one.
   * On Arm the guest's device tree goes on naming the first backend, so no other domain can take its place there.
   *
   * @param id of the new backend; not that of a domain that exists
   */
  replaceBackend(id: DomainId): Promise<void> {
    return this.#devices.replace(async () => {
      await this.#destroyBackend();
      await createHome(this.#control.tools, id);
      this.#backend = this.#startBackend(id);
      await this.#configureBackend();
    });
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
    await this.#devices.withdraw();
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
      ...this.#slots.at(devid),
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

  async #plugAll(): Promise<void> {
    const {
      queues,
      queueSize,
      mode,
      firstDevice,
      disks,
      entropyDevices,
      consoles = [],
      dmaDebug,
    } = this.#options;
    await this.#configureBackend();
    await this.#bootGuest();
    await this.#guest.call('plantSecrets', undefined);
    if (dmaDebug !== undefined) await this.#guest.call('debugDma', dmaDebug);
    const wishes = [...disks, ...entropyDevices].map((access) => this.#wish(access));
    const settings = {
      mode,
      drivers: { disk: { queues, queueSize } },
      firstDevice,
      wishes,
      wish: this.#wish({}),
    };
    await this.#guest.call('useDevices', settings);
    for (const disk of disks) await this.#devices.plugDisk(disk);
    for (const access of entropyDevices) await this.#devices.plugEntropy(access);
    for (const access of consoles) await this.#devices.plugConsole(access);
  }

  #wish({ policy }: AccessWish): DeviceWish {
    return { policy, backend: this.#options.configuredBackend };
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

  /** Ends the backend's domain, and the devices that it served. */
  async #destroyBackend(): Promise<void> {
    const dead = this.#backend;
    await this.#pause(dead.id);
    await dead.terminate();
    await this.#devices.withdraw();
    this.#control.release(dead.id);
    for (const _ of this.#xen.destroyDomain(dead.id)) await turn();
    while (this.#merger.drain() > 0) await turn();
    this.#mappings.end(dead.id, new RingTracer(this.#backendTrace, nanoseconds));
  }

  async #stop(): Promise<HostReport> {
    try {
      const told = this.#guestDestroyed ? undefined : await this.#unplugAll();
      const glimpse = await this.#backend.call('glimpse', undefined);
      await this.#backend.call('stop', undefined);
      this.#merger.close();
      return {
        exposure: this.#exposure.total(),
        eventsLost: this.#merger.undelivered,
        glimpse,
        directFrom: told?.directFrom,
        dmaDebug: told?.dmaDebug,
        mode: told?.mode ?? this.#options.mode,
        troubles: told?.troubles,
        references: told?.references,
      };
    } finally {
      await this.#terminate();
    }
  }

  /** Returns what the guest has to tell, up to the end of its last device. */
  async #unplugAll(): Promise<GuestReport> {
    await this.#guest.call('cancel', undefined);
    await this.#devices.unplugAll();
    return this.#guest.call('report', undefined);
  }

  async #terminate(): Promise<void> {
    clearInterval(this.#drain);
    this.#merger.close();
    await Promise.all([this.#guest.terminate(), this.#backend.terminate(), this.#storeLoop.stop()]);
  }
}
