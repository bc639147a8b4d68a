// A stage for hostile backends: our block driver in a guest, and a disk that says and answers what a test
// wants. The transport and the rings below it are real; the test scribbles on the rings through a mapping of
// the backend's own, and may change what the guest reads from registers.

import assert from 'node:assert/strict';
import * as blk from '../../src/abi/virtio-blk.ts';
import { splitRingSizes } from '../../src/abi/split-ring.ts';
import { VIRTIO_ID_BLOCK } from '../../src/abi/virtio.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { NO_RECOVERY } from '../../src/drivers/recovery.ts';
import type { DomainPorts } from '../../src/hosts/model/xen.ts';
import type { BackendDomain, ServedDevice } from '../../src/machine/backend-domain.ts';
import type { ExposureMode } from '../../src/dma/exposure-modes.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import { GrantMemory } from '../../src/memory/grant-memory.ts';
import { noTrace } from '../../src/trace.ts';
import { AvailableRing, DescriptorTable, UsedRing } from '../../src/virtqueue/split-ring.ts';
import { HoldingDevice } from './holding-device.test.helper.ts';
import { BASE } from './scene.test.helper.ts';

const MIB = 2 ** 20;

export interface HostileDiskOptions {
  readonly deviceId?: number;
  readonly features?: bigint;
  readonly queueSizes?: readonly number[];
  readonly config?: Parameters<typeof blk.virtioBlkConfig.make>[0];
}

/** A disk full of one byte, which answers only when it is told to. */
export class HostileDisk extends HoldingDevice {
  static readonly CONTENT = 0x6b;
  override readonly deviceId: number;
  override readonly features: bigint;
  override readonly queueSizes: readonly number[];
  override readonly config: Uint8Array;

  constructor({ deviceId, features, queueSizes, config }: HostileDiskOptions = {}) {
    super();
    this.deviceId = deviceId ?? VIRTIO_ID_BLOCK;
    this.features =
      features ??
      blk.VIRTIO_BLK_F_SEG_MAX |
        blk.VIRTIO_BLK_F_BLK_SIZE |
        blk.VIRTIO_BLK_F_FLUSH |
        blk.VIRTIO_BLK_F_MQ |
        blk.VIRTIO_BLK_F_DISCARD |
        blk.VIRTIO_BLK_F_WRITE_ZEROES;
    this.queueSizes = queueSizes ?? [16, 16];
    const honest = {
      capacity: 128,
      seg_max: 14,
      blk_size: 512,
      num_queues: this.queueSizes.length,
      max_discard_sectors: 16,
      max_discard_seg: 1,
      max_write_zeroes_sectors: 16,
      max_write_zeroes_seg: 1,
    };
    this.config = blk.virtioBlkConfig.make({ ...honest, ...config }).bytes;
  }

  /** Answers the oldest request with its data and `status`, as an honest disk would. */
  serve(status: number): void {
    const { queue, chain } = this.held[0];
    const { byteLength } = chain.writable;
    this.fill(chain.head, status);
    this.held.shift();
    queue.complete(chain, 0, byteLength);
  }

  /** Writes data and `status` of the request at `head`, without returning it. */
  fill(head: number, status: number): void {
    const request = this.held.find(({ chain }) => chain.head === head);
    assert.ok(request !== undefined, `a request is in flight at ${head}`);
    const { writable } = request.chain;
    for (let at = 0; at < writable.byteLength - 1; at++) writable.setByte(at, HostileDisk.CONTENT);
    writable.setByte(writable.byteLength - 1, status);
  }
}

/** The rings of a queue as the backend can write them. */
export interface BackendRing {
  readonly size: number;
  readonly table: DescriptorTable;
  readonly available: AvailableRing;
  readonly used: UsedRing;
  /** Publishes a used element, true or not. */
  complete(id: number, length: number): void;
  release(): void;
}

export class HostileScene {
  readonly machine: Machine;
  readonly backend: BackendDomain<DomainPorts>;
  readonly guest: GuestDomain;
  readonly device: HostileDisk;
  readonly served: ServedDevice;
  readonly #free: number;

  constructor(device = new HostileDisk(), seed = 1) {
    this.machine = new Machine({ seed, memory: 8 * MIB, heap: 3 * MIB });
    const limits = { maxGrantFrames: 4, maxMaptrackFrames: 4 };
    this.backend = this.machine.createBackend(1, { memory: MIB, ...limits });
    this.guest = this.machine.createGuest(2, { memory: 2 * MIB, ...limits });
    // A fault shows at once; what comes of another try is for the tests of recovery.
    this.guest.recovery = NO_RECOVERY;
    this.device = device;
    this.served = this.backend.serve(device, this.guest.ports.id, BASE);
    this.#free = this.guest.dma.granting.references.free;
  }

  attach(mode: ExposureMode, queues = 1, base = BASE): BlkDriver {
    const place = { base, backend: this.backend.ports.id, device: 0 };
    return this.guest.attachBlk(place, mode, { queues, queueSize: 16 });
  }

  /** Detaches a disk: nothing stays mapped, granted or in quarantine. */
  detach(disk: BlkDriver): void {
    assert.deepEqual(this.guest.detach(disk), { live: 0, quarantined: 0 });
    this.nothingLeft();
  }

  nothingLeft(): void {
    assert.equal(this.backend.ports.grantMapper.live, 0, 'the backend maps nothing');
    assert.equal(this.guest.dma.granting.references.free, this.#free, 'all references are free again');
  }

  /** Lets every domain run until none has anything to do. */
  run(): void {
    for (let step = 0; this.machine.step(); step++)
      if (step > 10_000) throw new Error('the machine does not rest');
  }

  /** The rings of queue `index`, through a mapping of the backend's own. */
  ring(index = 0): BackendRing {
    const memory = new GrantMemory(
      this.backend.ports.grantMapper,
      this.backend.ports.id,
      this.guest.ports.id,
      noTrace,
    );
    const { size, ...at } = this.served.state.queue(index)!;
    const sizes = splitRingSizes(size);
    const areas = [
      memory.mapRing(at.descriptorLow, at.descriptorHigh, sizes.descriptor),
      memory.mapRing(at.driverLow, at.driverHigh, sizes.driver),
      memory.mapRing(at.deviceLow, at.deviceHigh, sizes.device),
    ];
    const used = new UsedRing(areas[2], size);
    return {
      size,
      table: new DescriptorTable(areas[0]),
      available: new AvailableRing(areas[1], size),
      used,
      complete: (id, length) => {
        used.setElement(used.index, id, length);
        used.index = (used.index + 1) & 0xffff;
      },
      release: () => {
        for (const area of areas) area.release();
      },
    };
  }

  /** From now on the guest reads `change` of what a register of the device holds. */
  lie(change: (register: number, truth: number) => number): void {
    const { mmio } = this.guest.ports;
    const read = mmio.read.bind(mmio);
    mmio.read = (address, size) => change(address - BASE, read(address, size));
  }

  /** Shows what the guest writes to registers of the device. */
  watchWrites(seen: (register: number, value: number) => void): void {
    const { mmio } = this.guest.ports;
    const write = mmio.write.bind(mmio);
    mmio.write = (address, size, value) => {
      seen(address - BASE, value);
      write(address, size, value);
    };
  }
}
