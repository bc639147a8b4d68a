// Runs the rings of a session in this thread: a device and its queues over the guest's memory. Kicks come as calls;
// who waits on descriptors is another's business. After vrings.ts, before virtio/serve-turn.ts.

import { splitRingSizes } from '../../abi/split-ring.ts';
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from '../../abi/virtio.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { DeviceMemory } from '../../memory/device-memory.ts';
import { DirtyLog } from '../../memory/dirty-log.ts';
import { Iotlb, type Translation } from '../../memory/iotlb.ts';
import { IotlbMemory, NO_TRANSLATION } from '../../memory/iotlb-memory.ts';
import { LoggedMemory } from '../../memory/logged-memory.ts';
import { RegionTable } from '../../memory/region-table.ts';
import { type NeedTracer, TracedMemory } from '../../memory/traced-memory.ts';
import type { DeviceHost, VirtioDevice } from '../../virtio/device.ts';
import { serveAvailable, serveTurn, TURN } from '../../virtio/serve-turn.ts';
import { DeviceQueue } from '../../virtqueue/device-queue.ts';
import type { DeviceMeter } from '../../virtqueue/queue-meter.ts';
import type { QueueStart } from '../../virtqueue/queue-journal.ts';
import { type MapRing, mapRingAreas, type RingAreas, type RingPlaces } from '../../virtqueue/ring-areas.ts';
import { UsedRing } from '../../virtqueue/split-ring.ts';
import { recoverInflight } from './inflight-journal.ts';
import { mapGrantedRing } from './granted-rings.ts';
import { LoggedRing } from './logged-ring.ts';
import type { GrantedRegion, RingEvents, RingMemory, RingRunner, RingSetup } from './platform.ts';

const READ = 1;
const READ_WRITE = 3;

/** A ring that runs. */
interface Running {
  readonly index: number;
  readonly queue: DeviceQueue;
  readonly logged: LoggedRing | undefined;
  readonly interrupt: () => void;
  /** Whether the driver has been told that it need not notify. */
  quiet: boolean;
  /** Whether the driver broke a rule; the session will stop the ring. */
  failed: boolean;
}

/** What a Xen domain has granted to this host. */
export type GrantsOf = (domainId: number) => DeviceMemory;

/** The rings of one device. */
export class LocalRings implements RingRunner {
  readonly meter: DeviceMeter | undefined;
  readonly #device: VirtioDevice;
  readonly #events: RingEvents;
  readonly #signal: (fd: number) => void;
  readonly #running = new Map<number, Running>();
  readonly #byQueue = new Map<DeviceQueue, Running>();
  readonly #calls = new Map<number, number>();
  #features = 0n;
  #started = false;
  readonly #iotlb: Iotlb;
  #table = new RegionTable([]);
  #log: DirtyLog | undefined;
  #iotlbMemory: IotlbMemory | undefined;
  #missesAnswered = false;
  /** What a Xen domain grants, and the regions that stand for it; undefined where memory is announced as such. */
  #grantMemory: DeviceMemory | undefined;
  #granted: readonly GrantedRegion[] = [];
  readonly #grantsOf: GrantsOf | undefined;
  readonly #needs: NeedTracer | undefined;
  readonly #host: DeviceHost = {
    completed: (queue) => {
      if (queue.takeInterrupt()) this.#byQueue.get(queue)?.interrupt();
    },
    failed: (queue, violation) => {
      const ring = this.#byQueue.get(queue);
      if (ring !== undefined) this.#fail(ring, violation);
    },
    configChanged: () => this.#events.configChanged(this.#device.config),
  };

  /**
   * @param signal adds one to an eventfd
   * @param meter counts what the device does
   * @param grantsOf how grants of a Xen domain are reached, on a host that can
   * @param needs told what requests have in hand, if anybody is; of rings it is not told
   */
  constructor(
    device: VirtioDevice,
    events: RingEvents,
    signal: (fd: number) => void,
    meter?: DeviceMeter,
    grantsOf?: GrantsOf,
    needs?: NeedTracer,
  ) {
    this.#device = device;
    this.#events = events;
    this.#signal = signal;
    this.meter = meter;
    this.#grantsOf = grantsOf;
    this.#needs = needs;
    this.#iotlb = new Iotlb((iova, right) => events.miss(iova, right));
  }

  setFeatures(features: bigint): void {
    if (features === this.#features) return;
    this.reset();
    this.#features = features;
  }

  setMemory(memory: RingMemory): void {
    this.#table = new RegionTable(memory.regions);
    this.#missesAnswered = memory.missesAnswered ?? false;
    if (!this.#missesAnswered) this.#iotlb.forgetMisses();
    this.#log = memory.log === undefined ? undefined : new DirtyLog(memory.log);
    this.#iotlbMemory = memory.translated ? new IotlbMemory(this.#table, this.#iotlb) : undefined;
    this.#granted = memory.granted ?? [];
    const [first] = this.#granted;
    this.#grantMemory = first === undefined ? undefined : this.#grantsOf?.(first.domainId);
    this.#countExposed();
  }

  translate(entry: Translation): void {
    this.#iotlb.update(entry);
    this.#countExposed();
  }

  refuse(iova: number): void {
    this.#iotlb.refuse(iova);
  }

  invalidate(iova: number, size: number): void {
    this.#iotlb.invalidate(iova, size);
    this.#countExposed();
  }

  start(setup: RingSetup): boolean {
    if (!this.#translated(setup)) return false;
    const areas = mapRingAreas(setup.size, setup.places, this.#mapRing());
    const { start, logged } = this.#startOf(setup, areas);
    if (!this.#started) this.#device.start(this.#features, this.#host);
    this.#started = true;
    const features = {
      indirect: (this.#features & VIRTIO_F_INDIRECT_DESC) !== 0n,
      eventIndex: (this.#features & VIRTIO_F_EVENT_IDX) !== 0n,
      longestChain: this.#device.queueSizes[setup.index],
    };
    const meter = this.meter?.queue(setup.index, setup.size);
    const queue = new DeviceQueue(setup.size, areas, this.#bufferMemory(), features, start, meter);
    const interrupt = (): void => this.#interrupt(setup.index);
    const ring = { index: setup.index, queue, logged, interrupt, quiet: false, failed: false };
    this.#running.set(setup.index, ring);
    this.#byQueue.set(queue, ring);
    return true;
  }

  stop(index: number): number {
    // What the host has under way is written before the ring, and the guest's memory, may go (case T11).
    this.#device.drain?.();
    const ring = this.#running.get(index)!;
    this.#running.delete(index);
    this.#byQueue.delete(ring.queue);
    if (!this.#missesAnswered) this.#iotlb.forgetMisses();
    const { base } = ring.queue;
    ring.logged?.markRing();
    ring.queue.close();
    return base;
  }

  setCall(index: number, fd: number): void {
    this.#calls.set(index, fd);
  }

  kick(index: number): void {
    while (this.serve(index));
  }

  reset(): void {
    if (this.#started) this.#device.stop();
    this.#started = false;
    this.#features = 0n;
  }

  /**
   * Serves a ring for a turn, and has its driver notify of what comes next.
   *
   * @returns whether more is waiting: call again when others have had their turn
   */
  serve(index: number): boolean {
    return this.#guarded(index, (ring) => {
      ring.quiet = false;
      ring.queue.meter?.turn();
      return serveTurn(this.#device, ring.queue, index, ring.interrupt);
    });
  }

  /**
   * Serves a ring for a turn; the driver need not notify, because the caller looks again.
   *
   * @returns whether there was anything to do
   */
  look(index: number): boolean {
    return this.#guarded(index, (ring) => {
      if (!ring.quiet) ring.queue.disableNotifications();
      ring.quiet = true;
      ring.queue.meter?.turn();
      return serveAvailable(this.#device, ring.queue, index, ring.interrupt) < TURN;
    });
  }

  /** After `look`: has the driver notify of what comes next. Returns true when something has come: look again. */
  arm(index: number): boolean {
    return this.#guarded(index, (ring) => {
      ring.quiet = false;
      return ring.queue.enableNotifications();
    });
  }

  /** What `step` returns for a ring that runs; false for one that does not, or whose driver breaks a rule in it. */
  #guarded(index: number, step: (ring: Running) => boolean): boolean {
    const ring = this.#running.get(index);
    if (ring === undefined || ring.failed) return false;
    try {
      return step(ring);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#fail(ring, error);
      return false;
    }
  }

  #fail(ring: Running, violation: ProtocolViolation): void {
    if (ring.failed) return;
    ring.failed = true;
    this.#events.failed(ring.index, violation);
  }

  /** All of the memory, or what the IOMMU maps of it. */
  #countExposed(): void {
    this.meter?.exposed((this.#iotlbMemory === undefined ? this.#table : this.#iotlb).byteLength);
  }

  #interrupt(index: number): void {
    this.#running.get(index)?.queue.meter?.interrupted();
    const call = this.#calls.get(index) ?? -1;
    if (call >= 0) this.#signal(call);
    else this.#events.interrupt(index);
  }

  /** Without an IOMMU, rings have the frontend's addresses and buffers the guest's. */
  #mapRing(): MapRing {
    const table = this.#table;
    const grants = this.#grantMemory;
    if (grants !== undefined)
      return (low, high, length) => mapGrantedRing(grants, this.#granted, low, high, length);
    const translated = this.#iotlbMemory;
    if (translated === undefined) return (low, high, length) => table.userRing(low, high, length);
    return (low, high, length) => translated.mapRing(low, high, length);
  }

  #bufferMemory(): DeviceMemory {
    const memory = this.#untracedMemory();
    return this.#needs === undefined ? memory : new TracedMemory(memory, this.#needs);
  }

  #untracedMemory(): DeviceMemory {
    if (this.#grantMemory !== undefined) return unlogged(this.#grantMemory, this.#log);
    const memory = this.#iotlbMemory ?? this.#table;
    return this.#log === undefined ? memory : new LoggedMemory(memory, this.#table, this.#log);
  }

  /** Whether the IOMMU lets us have the ring; what is not known yet is asked for. */
  #translated({ size, places }: RingSetup): boolean {
    const memory = this.#iotlbMemory;
    if (memory === undefined) return true;
    const statuses = ringPieces(size, places).map(([low, high, length, right]) =>
      memory.reach(low, high, length, right),
    );
    // A ring that is not mapped yet is waited for: its driver may map it when the device looks again.
    if (statuses.some((status) => status < 0 && status !== NO_TRANSLATION))
      throw new ProtocolViolation('§2.7', 'the IOMMU does not let the device use its ring');
    return statuses.every((status) => status === 0);
  }

  #startOf(setup: RingSetup, areas: RingAreas): { start: QueueStart; logged: LoggedRing | undefined } {
    const { size, base, inflight, logAddress } = setup;
    const used = new UsedRing(areas.device, size).index;
    const start =
      inflight === undefined
        ? { base, used, again: [], journal: undefined }
        : recoverInflight(inflight, size, used, base);
    const log = this.#log;
    if (log === undefined || logAddress === undefined) return { start, logged: undefined };
    const logged = new LoggedRing(log, logAddress, size, start.journal);
    return { start: { ...start, journal: logged }, logged };
  }
}

/** Which pages of the guest a grant is of, the host does not know. */
function unlogged(memory: DeviceMemory, log: DirtyLog | undefined): DeviceMemory {
  if (log === undefined) return memory;
  throw new ProtocolViolation('vhost-user XEN_MMAP', 'writes to granted memory cannot be logged');
}

type Piece = readonly [low: number, high: number, length: number, right: number];

function ringPieces(size: number, places: RingPlaces): readonly Piece[] {
  const bytes = splitRingSizes(size);
  return [
    [places.descriptorLow, places.descriptorHigh, bytes.descriptor, READ],
    [places.driverLow, places.driverHigh, bytes.driver, READ],
    [places.deviceLow, places.deviceHigh, bytes.device, READ_WRITE],
  ];
}
