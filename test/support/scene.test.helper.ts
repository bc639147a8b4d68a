// A stage for hostile drivers: one backend domain, a device for the guest under suspicion, and a neighbour
// guest with a disk of its own at the same backend, which must never notice.

import assert from 'node:assert/strict';
import * as blk from '../../src/abi/virtio-blk.ts';
import {
  MMIO_INTERRUPT_ACK,
  MMIO_INTERRUPT_CONFIG,
  MMIO_INTERRUPT_STATUS,
} from '../../src/abi/virtio-mmio.ts';
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../src/abi/virtio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { addressMap } from '../../src/hosts/model/address-map.ts';
import type { DomainPorts } from '../../src/hosts/model/xen.ts';
import type {
  BackendDomain,
  MemoryAccess,
  ServedDevice,
  ServedMeter,
} from '../../src/machine/backend-domain.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import type { Tracer } from '../../src/trace.ts';
import type { VirtioDevice } from '../../src/virtio/device.ts';
import {
  type RawBuffer,
  offsetBy,
  RawDriver,
  type RawQueue,
  type SharedPages,
} from './raw-driver.test.helper.ts';

/** Where the first device of a guest is, and another one. */
export const BASE = addressMap('arm').virtioMmio;
const NEIGHBOUR_BASE = BASE + 0x1_0000;
const KIB = 1024;
const MIB = KIB * KIB;
export const DISK_SIZE = 64 * KIB;

/** What a status byte holds until a device has written it. */
export const NO_STATUS = 0xee;

/** Bytes that differ from sector to sector. */
export function diskBytes(size: number, salt: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, (_, i) => (i * 31) ^ (i >>> 8) ^ salt);
}

export interface SceneOptions {
  readonly seed?: number;
  readonly store?: BlockStore;
  /** The device under test; a disk on `store` unless given. */
  readonly device?: VirtioDevice;
  readonly queues?: number;
  readonly queueSize?: number;
  readonly tracer?: Tracer;
  /** How the device under test reaches buffers; 'map' unless given. */
  readonly access?: MemoryAccess;
  /** Counts what the device under test does. */
  readonly meter?: ServedMeter;
}

/** The ways in which a backend reaches what was granted. */
export const ACCESSES: readonly MemoryAccess[] = ['map', 'copy'];

export class Scene {
  readonly machine: Machine;
  readonly backend: BackendDomain<DomainPorts>;
  readonly driver: RawDriver;
  readonly served: ServedDevice;
  /** The disk of the device under test, unless the test gave a store. */
  readonly bytes = diskBytes(DISK_SIZE, 0x11);
  readonly #neighbour: GuestDomain;
  readonly #neighbourDisk: BlkDriver;
  readonly #neighbourBytes = diskBytes(DISK_SIZE, 0x77);
  /** Mappings that the neighbour's rings take. */
  readonly #baseline: number;

  constructor(options: SceneOptions = {}) {
    const { seed = 1, queues = 2, queueSize = 64 } = options;
    const tracer = options.tracer === undefined ? {} : { tracer: options.tracer };
    this.machine = new Machine({ seed, memory: 8 * MIB, heap: 3 * MIB, ...tracer });
    const limits = { maxGrantFrames: 4, maxMaptrackFrames: 4 };
    this.backend = this.machine.createBackend(1, { memory: MIB, ...limits });
    const guest = this.machine.createGuest(2, { memory: 2 * MIB, ...limits });
    this.#neighbour = this.machine.createGuest(3, { memory: 2 * MIB, ...limits });
    const store = options.store ?? new MemoryStore(this.bytes);
    this.served = this.backend.serve(
      options.device ?? new BlkDevice(store, { queues, queueSize, id: 'suspect' }),
      guest.ports.id,
      BASE,
      options.access,
      { meter: options.meter },
    );
    this.backend.serve(
      new BlkDevice(new MemoryStore(this.#neighbourBytes), { queues: 1, queueSize: 16, id: 'neighbour' }),
      this.#neighbour.ports.id,
      NEIGHBOUR_BASE,
    );
    this.#neighbourDisk = this.#neighbour.attachBlk(
      { base: NEIGHBOUR_BASE, backend: this.backend.ports.id, device: 1 },
      'bounce',
      { queues: 1, queueSize: 16 },
    );
    this.driver = new RawDriver(this.machine, guest, this.backend.ports.id, BASE);
    this.driver.run();
    this.#baseline = this.mapped;
  }

  /** Pages that the backend domain maps, of all guests. */
  get mapped(): number {
    return this.backend.ports.grantMapper.live;
  }

  /** Pages of the guest under suspicion that the backend domain maps. */
  get mappedOfSuspect(): number {
    return this.mapped - this.#baseline;
  }

  /**
   * BREAK: the device says that it needs a reset, interrupts for it, has let go of everything, stays quiet;
   * nobody else notices; and a reset makes it as good as new.
   */
  async broken(clause?: string): Promise<void> {
    this.#brokenNow(clause);
    await this.neighbourWorks();
    // Quiet until the reset, whatever the driver asks of it.
    this.driver.interrupts = 0;
    this.driver.notify(0);
    this.driver.run();
    assert.equal(this.driver.interrupts, 0, 'a broken device is quiet');
    assert.equal(this.mappedOfSuspect, 0);
    await this.worksAfterReset();
    await this.finish();
  }

  /** The device works: reset, started afresh, and asked for a sector (disks on the scene's own store). */
  async worksAfterReset(): Promise<void> {
    this.driver.reset();
    assert.equal(this.driver.revokeAll(), 0, 'no page of the suspect is still mapped');
    const queue = this.driver.start();
    const request = new RawRequest(this.driver);
    request.header(blk.VIRTIO_BLK_T_IN, 3);
    this.driver.chain(queue, 0, request.read(512));
    this.driver.submit(queue, 0);
    assert.equal(queue.used.index, 1, 'the request was served after the reset');
    assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK);
    assert.deepEqual(request.data.bytes.slice(0, 512), this.bytes.slice(3 * 512, 4 * 512));
    await this.neighbourWorks();
  }

  /** Takes everything apart: nothing stays mapped or granted. */
  async finish(): Promise<void> {
    await this.neighbourWorks();
    this.driver.reset();
    assert.equal(this.mappedOfSuspect, 0, 'a reset device maps nothing');
    assert.equal(this.driver.revokeAll(), 0, 'no page of the suspect is still mapped');
    assert.deepEqual(this.#neighbour.detach(this.#neighbourDisk), { live: 0, quarantined: 0 });
    assert.equal(this.mapped, 0);
  }

  /** The neighbour reads and writes as if nothing had happened. */
  async neighbourWorks(): Promise<void> {
    const disk = this.#neighbourDisk;
    const buffer = await disk.buffer(4096);
    await this.machine.settle(disk.read(4096, buffer, 4096));
    assert.deepEqual(buffer.bytes.slice(0, 4096), this.#neighbourBytes.slice(4096, 8192));
    buffer.bytes.fill(this.#neighbourBytes[0] + 1);
    await this.machine.settle(disk.write(0, buffer, 512));
    assert.equal(this.#neighbourBytes[511], buffer.bytes[511]);
    buffer.release();
  }

  #brokenNow(clause?: string): void {
    const { driver } = this;
    assert.ok(driver.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 'the device needs a reset');
    if (clause !== undefined) assert.equal(this.served.state.fault?.clause, clause);
    assert.ok(driver.interrupts > 0, 'the driver is interrupted');
    assert.ok(driver.read(MMIO_INTERRUPT_STATUS) & MMIO_INTERRUPT_CONFIG, 'for a configuration change');
    driver.write(MMIO_INTERRUPT_ACK, MMIO_INTERRUPT_CONFIG);
    assert.equal(this.mappedOfSuspect, 0, 'a broken device maps nothing');
  }
}

/** The memory of one block request: header, data and status each in pages of their own. */
export class RawRequest {
  readonly head: SharedPages;
  readonly data: SharedPages;

  /** @param pages of data; the status lies behind them by default */
  constructor(driver: RawDriver, pages = 2) {
    this.head = driver.share(1);
    this.data = driver.share(pages);
    this.data.bytes.fill(NO_STATUS);
  }

  header(type: number, sector: number): void {
    this.head.bytes.set(blk.virtioBlkRequestHeader.make({ type, sector }).bytes);
  }

  /** Header, `length` bytes to read into, and the status right behind. */
  read(length: number): RawBuffer[] {
    return [
      { at: this.head, length: 16 },
      { at: this.data, length, writable: true },
      { at: offsetBy(this.data, length), length: 1, writable: true },
    ];
  }

  /** Header, `length` bytes to write, and the status right behind. */
  write(length: number): RawBuffer[] {
    return [
      { at: this.head, length: 16 },
      { at: this.data, length },
      { at: offsetBy(this.data, length), length: 1, writable: true },
    ];
  }

  status(length: number): number {
    return this.data.bytes[length];
  }
}

/** A queue with a request for the first sector at descriptors 0-2, ready to be offered. */
export function readyToRead(scene: Scene, without = 0n): { queue: RawQueue; request: RawRequest } {
  const queue = scene.driver.start(16, without);
  const request = new RawRequest(scene.driver);
  request.header(blk.VIRTIO_BLK_T_IN, 0);
  scene.driver.chain(queue, 0, request.read(512));
  return { queue, request };
}
