// A virtual host: the embedded Xen with a backend domain and a guest, each on a thread of its own. The main
// thread is the toolstack: it creates the domains, announces the disks, keeps xenstore and the accounting.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { Exposure, type TotalExposure } from '../audit/exposure.ts';
import type { TraceConsumer } from '../audit/events.ts';
import { LiveMappings } from '../audit/live-mappings.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { RingTracer, type TraceRing, traceRings } from '../audit/trace-ring.ts';
import type { DmaDebugOptions, DmaDebugResult } from '../dma/dma-debug-log.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import type { GrantPolicy } from '../dma/policy.ts';
import type { Architecture, DomainKind } from '../hosts/model/address-map.ts';
import { sleepWhile } from '../hosts/model/waiting.ts';
import { Xen } from '../hosts/model/xen.ts';
import type { Troubles } from '../machine/guest-domain.ts';
import { StoreDomain } from '../machine/store-domain.ts';
import { DeviceSlots } from '../toolstack/device-slots.ts';
import { writeBlob } from '../toolstack/device-tree/blob-writer.ts';
import { guestTree } from '../toolstack/device-tree/guest-tree.ts';
import { plugDevice, unplugDevice } from '../toolstack/hot-plug.ts';
import { createHome, type VirtioNodes, withdrawDevice } from '../toolstack/virtio-nodes.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import { Store } from '../xenstore/store.ts';
import type { BackendCalls } from './backend-thread.ts';
import { nanoseconds } from './clock.ts';
import type { CopyResult } from './copy-job.ts';
import { DomainThread } from './domain-thread.ts';
import type {
  CopyProgress,
  DeviceDecision,
  DeviceWish,
  GuestCalls,
  GuestNotice,
  GuestReport,
} from './guest-thread.ts';
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
/** Bytes that a console echoes to show that it works. */
const CONSOLE_PROOF = 4096;

/** Milliseconds that a guest's thread is given to stand still. */
const PARKING_PATIENCE = 5000;

/** How often events are fetched from the threads, in milliseconds, and how many at a time. */
const DRAIN_INTERVAL = 5;
const DRAIN_BATCH = 50_000;

/** Milliseconds that both ends are given to connect, and to finish and close. */
const PLUGGING_PATIENCE = 30_000;

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

/** A device that the guest has now. */
export interface PluggedDevice {
  /** Its name: that of the disk, or "entropy0" and so on. */
  readonly dev: string;
  readonly nodes: VirtioNodes;
  /** Where NBD clients find it; empty where NBD is not served, and for what is no disk. */
  readonly uris: readonly string[];
}

/** How a virtual host is made. */
export interface HostOptions {
  readonly disks: readonly HostDisk[];
  /** The entropy devices that the guest gets besides; each must deliver before the host is ready. */
  readonly entropyDevices: readonly AccessWish[];
  /** The consoles, each attached to itself; each must echo before the host is ready. */
  readonly consoles?: readonly AccessWish[];
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
  /** What backends map, as the trace tells it: what a dead one has mapped ends with it. */
  readonly #mappings = new LiveMappings();
  readonly #guest: DomainThread<GuestCalls>;
  readonly #slots: DeviceSlots;
  readonly #exposure = new Exposure();
  readonly #merger: TraceMerger;
  readonly #drain: NodeJS.Timeout;
  readonly #devices = new Map<string, PluggedDevice>();
  /** Devices come and go one after the other. */
  #plugging: Promise<unknown> = Promise.resolve();
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
  async openNbd(address: string): Promise<string[]> {
    const disks = this.devices.filter(({ nodes }) => nodes.disk !== undefined);
    const exports = disks.map(({ dev, nodes }) => ({ name: dev, devid: nodes.devid }));
    const uris = await this.#guest.call('openNbd', { address, exports });
    for (const [index, disk] of disks.entries())
      this.#devices.set(disk.dev, { ...disk, uris: [uris[index]!] });
    return uris;
  }

  /** The guest's devices, in the order in which they came. */
  get devices(): PluggedDevice[] {
    return [...this.#devices.values()];
  }

  /**
   * Gives the running guest a disk; NBD clients, where they are served, find it at once.
   *
   * @throws Error when its name is taken, no place is left, or an end does not want it; nothing is left of it then
   */
  plug(disk: HostDisk): Promise<PluggedDevice> {
    return this.#inTurn(() => this.#plugDisk(disk));
  }

  /** Gives the running guest an entropy device. Rejects as `plug` does. */
  plugEntropy(): Promise<PluggedDevice> {
    return this.#inTurn(() => this.#plugEntropy({}));
  }

  /**
   * Takes a device away. Its NBD clients are hung up on when they have their last replies, and a disk is flushed.
   *
   * @returns whether guest and backend let go of it; if they did not in time, it was taken from them
   * @throws RangeError when there is no such device; CallFailed when its last writes may not be in the image: it has
   *   gone all the same
   */
  unplug(dev: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const device = this.#devices.get(dev);
      if (device === undefined) throw new RangeError(`the guest has no device ${dev}`);
      const retired = this.#guest.call('retire', { devid: device.nodes.devid });
      await Promise.allSettled([retired]);
      const closed = await this.#unplug(device);
      await retired;
      return closed;
    });
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
    return this.#inTurn(async () => {
      await this.#guest.call('expectReplacements', true);
      try {
        await this.#destroyBackend();
        await createHome(this.#control.tools, id);
        this.#backend = this.#startBackend(id);
        await this.#configureBackend();
        for (const device of this.devices) {
          const nodes = { ...device.nodes, backend: id };
          await this.#connect(nodes);
          this.#devices.set(device.dev, { ...device, nodes });
        }
      } finally {
        await this.#guest.call('expectReplacements', false);
      }
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
    for (const { nodes } of this.devices) await withdrawDevice(this.#control.tools, nodes);
    this.#devices.clear();
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
    const { disks, entropyDevices, consoles = [], memory } = this.#options;
    const typed = (type: string | undefined) => (access: AccessWish) => ({ type, ...access });
    const devices = [
      ...disks.map(typed(undefined)),
      ...entropyDevices.map(typed(`virtio,device${VIRTIO_ID_RNG.toString(16)}`)),
      ...consoles.map(typed(`virtio,device${VIRTIO_ID_CONSOLE.toString(16)}`)),
    ].map(({ type, grantUsage = true }, devid) => ({
      ...this.#slots.at(devid),
      type,
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
    const wishes = [...disks, ...entropyDevices, ...consoles].map((access) => this.#wish(access));
    const settings = {
      mode,
      drivers: { disk: { queues, queueSize } },
      firstDevice,
      wishes,
      wish: this.#wish({}),
    };
    await this.#guest.call('useDevices', settings);
    for (const disk of disks) await this.plug(disk);
    for (const access of entropyDevices) await this.#inTurn(() => this.#plugEntropy(access));
    for (const access of consoles) await this.#inTurn(() => this.#plugConsole(access));
  }

  #wish({ policy }: AccessWish): DeviceWish {
    return { policy, backend: this.#options.configuredBackend };
  }

  async #plugDisk({ dev, path, readOnly, grantUsage = true }: HostDisk): Promise<PluggedDevice> {
    const disk = { params: path, readOnly, dev };
    const nodes = await this.#plug(dev, { kind: 'virtio_disk', virtioId: VIRTIO_ID_BLOCK, grantUsage, disk });
    return this.#begin({ dev, nodes, uris: [] }, async () => {
      const uris = await this.#guest.call('addExport', { name: dev, devid: nodes.devid });
      this.#devices.set(dev, { dev, nodes, uris });
    });
  }

  #plugEntropy(access: AccessWish): Promise<PluggedDevice> {
    return this.#plugOther('entropy', VIRTIO_ID_RNG, access, (devid) =>
      this.#guest.call('drawEntropy', { devid, bytes: ENTROPY_PROOF }),
    );
  }

  #plugConsole(access: AccessWish): Promise<PluggedDevice> {
    return this.#plugOther('console', VIRTIO_ID_CONSOLE, access, (devid) =>
      this.#guest.call('tryConsole', { devid, bytes: CONSOLE_PROOF }),
    );
  }

  /** Plugs a device that is no disk, under the first name that is free; it has to prove that it works. */
  async #plugOther(
    name: string,
    virtioId: number,
    { grantUsage = true }: AccessWish,
    prove: (devid: number) => Promise<void>,
  ): Promise<PluggedDevice> {
    let number = 0;
    while (this.#devices.has(`${name}${number}`)) number++;
    const dev = `${name}${number}`;
    const nodes = await this.#plug(dev, { kind: 'virtio', virtioId, grantUsage });
    return this.#begin({ dev, nodes, uris: [] }, () => prove(nodes.devid));
  }

  /** Notes a device that is connected. Where it cannot be put to use, it is taken away again. */
  async #begin(device: PluggedDevice, use: () => Promise<void>): Promise<PluggedDevice> {
    this.#devices.set(device.dev, device);
    try {
      await use();
      return this.#devices.get(device.dev)!;
    } catch (error) {
      await this.#unplug(device);
      throw error;
    }
  }

  /** Announces a device in the lowest place that is free, and waits until it is connected. */
  async #plug(
    dev: string,
    kind: Pick<VirtioNodes, 'kind' | 'virtioId' | 'grantUsage' | 'disk'>,
  ): Promise<VirtioNodes> {
    if (this.#devices.has(dev))
      throw new RangeError(`the guest has a device ${dev} already; choose another name`);
    const slot = this.#slots.take();
    const { index: devid, base, irq } = slot;
    const nodes = { ...kind, backend: this.#backend.id, guest: GUEST, devid, base, irq };
    try {
      await this.#connect(nodes);
      return nodes;
    } catch (error) {
      this.#slots.give(slot);
      throw error;
    }
  }

  #connect(nodes: VirtioNodes): Promise<void> {
    return this.#patiently('connect', (signal) => plugDevice(this.#control.tools, nodes, signal));
  }

  async #unplug({ dev, nodes }: PluggedDevice): Promise<boolean> {
    const closed = await this.#patiently('close', (signal) =>
      unplugDevice(this.#control.tools, nodes, signal),
    );
    this.#devices.delete(dev);
    this.#slots.give({ index: nodes.devid });
    return closed;
  }

  /** Ends the waiting for two ends that do not come to what they are asked for, or of which one has died. */
  async #patiently<T>(what: string, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const impatience = new AbortController();
    const late = new Error(`guest and backend did not ${what} in ${PLUGGING_PATIENCE / 1000} s`);
    const timer = setTimeout(() => impatience.abort(late), PLUGGING_PATIENCE);
    try {
      return await wait(AbortSignal.any([impatience.signal, this.#guest.ended, this.#backend.ended]));
    } finally {
      clearTimeout(timer);
    }
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
    for (const { nodes } of this.devices) await withdrawDevice(this.#control.tools, nodes);
    this.#control.release(dead.id);
    for (const _ of this.#xen.destroyDomain(dead.id)) await turn();
    while (this.#merger.drain() > 0) await turn();
    this.#mappings.end(dead.id, new RingTracer(this.#backendTrace, nanoseconds));
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#plugging.then(() => {
      if (this.#stopped !== undefined) throw new Error('the host is being stopped');
      return change();
    });
    this.#plugging = result.catch(() => undefined);
    return result;
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
      };
    } finally {
      await this.#terminate();
    }
  }

  /** Returns what the guest has to tell, up to the end of its last device. */
  async #unplugAll(): Promise<GuestReport> {
    await this.#guest.call('cancel', undefined);
    await this.#plugging;
    await this.#guest.call('closeNbd', undefined);
    await Promise.all(this.devices.map((device) => this.#unplug(device)));
    return this.#guest.call('report', undefined);
  }

  async #terminate(): Promise<void> {
    clearInterval(this.#drain);
    this.#merger.close();
    await Promise.all([this.#guest.terminate(), this.#backend.terminate(), this.#storeLoop.stop()]);
  }
}
