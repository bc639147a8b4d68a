// A stage for devices that come and go: a deterministic machine with a store, a backend that serves what is announced,
// a guest that uses it, and a test in the part of the toolstack.

import assert from 'node:assert/strict';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_RNG } from '../../src/abi/virtio.ts';
import { DirectTracer } from '../../src/audit/event-tracer.ts';
import { Exposure } from '../../src/audit/exposure.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { RngDevice } from '../../src/devices/rng.ts';
import type { ExposureMode } from '../../src/dma/exposure-modes.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { DiskError } from '../../src/drivers/disk.ts';
import type { Driver } from '../../src/drivers/driver.ts';
import type { RngDriver } from '../../src/drivers/rng.ts';
import { BackendService } from '../../src/machine/backend-service.ts';
import { findDevice } from '../../src/machine/device-finder.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import { GuestDevices } from '../../src/machine/guest-devices.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { guestView } from '../../src/machine/guest-view.test.helper.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { DeviceSlots } from '../../src/toolstack/device-slots.ts';
import { plugDevice, unplugDevice } from '../../src/toolstack/hot-plug.ts';
import {
  createHome,
  type DeviceAddress,
  frontendPath,
  type VirtioNodes,
  withdrawDevice,
} from '../../src/toolstack/virtio-nodes.ts';
import { domainId } from '../../src/xen/ids.ts';
import { census, OpenIntervals } from './census.test.helper.ts';
import { DISK_SIZE, diskBytes } from './scene.test.helper.ts';

export const BACKEND = domainId(1);
export const GUEST = domainId(2);
const DISK = { queues: 1, queueSize: 16 };
const KIB = 1024;

export interface HotPlugOptions extends Partial<Pick<MachineOptions, 'seed' | 'choose' | 'schedule'>> {
  readonly mode?: ExposureMode;
}

export class HotPlugScene {
  readonly machine: Machine;
  readonly guest: GuestDomain;
  readonly devices: GuestDevices;
  readonly service: BackendService;
  readonly backend;
  readonly slots: DeviceSlots;
  readonly exposure = new Exposure();
  /** Drivers that are attached now, by the paths of their devices. */
  readonly drivers = new Map<string, Driver>();
  /** What the users of the devices have asked for. */
  readonly work = new Set<Promise<unknown>>();
  /** What went wrong with it, beside devices that had gone. */
  readonly faults: unknown[] = [];
  /** Devices that the backend has made and not closed. */
  made = 0;
  readonly #open = new OpenIntervals();
  readonly #bytes = diskBytes(DISK_SIZE, 0x5a);

  private constructor(options: HotPlugOptions) {
    const { mode = 'bounce', seed = 1 } = options;
    this.machine = new Machine({
      seed,
      memory: 8192 * KIB,
      heap: 8192 * KIB,
      tracer: new DirectTracer([this.exposure, this.#open], () => 0),
      xenstore: true,
      ...(options.choose && { choose: options.choose }),
      ...(options.schedule !== undefined && { schedule: options.schedule }),
    });
    const { machine } = this;
    const limits = { maxGrantFrames: 2, maxMaptrackFrames: 1 };
    this.backend = machine.createBackend(BACKEND, { memory: 512 * KIB, ...limits });
    this.guest = machine.createGuest(GUEST, { memory: 2048 * KIB, ...limits });
    this.slots = new DeviceSlots(machine.xen.domain(GUEST).map.virtioMmio);
    this.service = new BackendService(this.backend, machine.xenstoreOf(this.backend.ports), (nodes) =>
      this.#make(nodes),
    );
    const store = machine.xenstoreOf(this.guest.ports);
    this.devices = new GuestDevices(store, GUEST, {
      attach: async (address) => {
        const { kind, devid } = address;
        const found = await findDevice(store, guestView({ id: GUEST }), { kind, devid });
        const driver = this.guest.attach({ ...found, device: devid }, mode, { disk: DISK });
        this.drivers.set(frontendPath(address), driver);
        return driver;
      },
      leaving: async () => {
        await Promise.allSettled(this.work);
      },
      detach: (driver, address, reason) => {
        this.drivers.delete(frontendPath(address));
        driver.fail(reason);
        this.guest.detach(driver);
      },
    });
  }

  /** A stage on which every device has once been, so that tables have grown to what they need. */
  static async open(options: HotPlugOptions = {}): Promise<HotPlugScene> {
    const scene = new HotPlugScene(options);
    const { machine } = scene;
    await createHome(machine.xenstore, BACKEND);
    await createHome(machine.xenstore, GUEST);
    await machine.settle(scene.service.start());
    await machine.settle(scene.devices.start());
    const { nodes, watches } = scene.census;
    await scene.#warmUp();
    assert.deepEqual([scene.census.nodes, scene.census.watches], [nodes, watches]);
    return scene;
  }

  async #warmUp(): Promise<void> {
    const disk = await this.plug('disk');
    const source = await this.plug('entropy');
    this.readAll(disk);
    await this.machine.settle(Promise.allSettled(this.work));
    for (const nodes of [disk, source]) await this.unplug(nodes);
  }

  /** The nodes of a device in the lowest place that is free. */
  nodes(type: 'disk' | 'entropy'): VirtioNodes {
    const { index, base, irq } = this.slots.take();
    const common = { backend: BACKEND, guest: GUEST, devid: index, base, irq, grantUsage: true };
    if (type === 'entropy') return { ...common, kind: 'virtio', virtioId: VIRTIO_ID_RNG };
    const disk = { params: 'good', readOnly: false, dev: `xvd${'abcdefghijk'[index]}` };
    return { ...common, kind: 'virtio_disk', virtioId: VIRTIO_ID_BLOCK, disk };
  }

  /** Plugs a device and waits until it works. */
  async plug(type: 'disk' | 'entropy'): Promise<VirtioNodes> {
    const nodes = this.nodes(type);
    await this.machine.settle(plugDevice(this.machine.xenstore, nodes));
    return nodes;
  }

  /** Unplugs a device in order. */
  async unplug(nodes: VirtioNodes): Promise<void> {
    assert.ok(await this.machine.settle(unplugDevice(this.machine.xenstore, nodes)), 'both ends have closed');
    await this.gone(nodes);
  }

  /** Takes a device away without a word. */
  async rip(nodes: VirtioNodes): Promise<void> {
    await withdrawDevice(this.machine.xenstore, nodes);
    await this.gone(nodes);
  }

  /** Waits until neither end has anything of a device whose nodes are no more. */
  async gone(nodes: DeviceAddress): Promise<void> {
    await this.settled();
    assert.equal(this.drivers.get(frontendPath(nodes)), undefined);
    this.slots.give({ index: nodes.devid });
  }

  disk(nodes: DeviceAddress): BlkDriver {
    return this.drivers.get(frontendPath(nodes)) as BlkDriver;
  }

  source(nodes: DeviceAddress): RngDriver {
    return this.drivers.get(frontendPath(nodes)) as RngDriver;
  }

  /** Reads and writes all over a disk, all at once. Each succeeds or fails: none may hang. */
  readAll(nodes: DeviceAddress): void {
    const disk = this.disk(nodes);
    for (let at = 0; at < DISK_SIZE; at += 16 * KIB) {
      this.#track(this.#access(disk, at, 4 * KIB, false));
      this.#track(this.#access(disk, at + 8 * KIB, 512, true));
    }
    this.#track(disk.flush());
  }

  /** Reads without end, four requests at a time, until the disk has gone: some are always under way. */
  keepReading(nodes: DeviceAddress): void {
    const disk = this.disk(nodes);
    const read = async (at: number) => {
      for (;;) await this.#access(disk, at, 4 * KIB, false);
    };
    for (let reader = 0; reader < 4; reader++) this.#track(read(reader * 4 * KIB));
  }

  /** Lets everything run until nothing happens any more. */
  async settled(): Promise<void> {
    for (let idle = 0; idle < 100; ) {
      idle = this.machine.step() ? 0 : idle + 1;
      await Promise.resolve();
    }
  }

  /** Lets the machine go on by `count` steps. */
  async steps(count: number): Promise<void> {
    for (let step = 0; step < count; step++) {
      this.machine.step();
      await Promise.resolve();
    }
  }

  /** All that there is now. */
  get census() {
    const { requestsOpen, leakedGrants, contradictions } = this.exposure.total();
    const accounts = { requestsOpen, leakedGrants, contradictions, live: this.exposure.liveGrants().length };
    return {
      ...census(this.machine, [this.guest], this.#open),
      accounts,
      made: this.made,
      seen: this.devices.size,
      drivers: this.drivers.size,
      faults: this.faults,
      work: this.work.size,
    };
  }

  #make({ virtioId, disk }: VirtioNodes) {
    if (disk !== undefined && disk.params !== 'good') throw new Error(`no image ${disk.params}`);
    this.made++;
    const entropy = () => new RngDevice((bytes) => bytes.fill(7));
    const blk = () => new BlkDevice(new MemoryStore(this.#bytes.slice()), { ...DISK, id: 'disk' });
    return {
      device: virtioId === VIRTIO_ID_RNG ? entropy() : blk(),
      close: () => {
        this.made--;
      },
    };
  }

  #track(work: Promise<unknown>): void {
    const tracked = work
      .catch((error) => {
        if (!(error instanceof DiskError && error.code === 'ENODEV')) this.faults.push(error);
      })
      .finally(() => {
        this.work.delete(tracked);
      });
    this.work.add(tracked);
  }

  async #access(disk: BlkDriver, at: number, length: number, writes: boolean): Promise<void> {
    const buffer = await disk.buffer(length);
    try {
      if (writes) await disk.write(at, buffer, length);
      else await disk.read(at, buffer, length);
      if (!writes)
        assert.deepEqual(buffer.bytes.slice(0, length), this.#bytes.slice(at, at + length), 'what was read');
    } finally {
      buffer.release();
    }
  }
}
