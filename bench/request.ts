// What one 4 KiB read costs through driver, DMA, hypervisor and device when the disk costs nothing.

import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN } from '../src/abi/virtio-blk.ts';
import { BlkDevice } from '../src/devices/blk.ts';
import type { BlkDriver } from '../src/drivers/blk.ts';
import { addressMap } from '../src/hosts/model/address-map.ts';
import type { BackendDomain } from '../src/machine/backend-domain.ts';
import type { ExposureMode } from '../src/dma/exposure-modes.ts';
import type { GuestDomain } from '../src/machine/guest-domain.ts';
import { Machine } from '../src/machine/machine.ts';
import type { BlockStore, StoreResult } from '../src/storage/block-store.ts';
import { noTrace, type Tracer } from '../src/trace.ts';
import { type Figure, measure } from './figures.ts';

const MIB = 2 ** 20;

/** A disk that answers at once and moves nothing. */
class NoStore implements BlockStore {
  readonly size = 64 * MIB;
  readonly readOnly = false;
  readonly freesZeroes = false;
  read = (): StoreResult => 'ok';
  write = (): StoreResult => 'ok';
  flush = (): StoreResult => 'ok';
  discard = (): StoreResult => 'ok';
  writeZeroes = (): StoreResult => 'ok';
  close(): void {
    // Nothing is held.
  }
}

/** `devices` disks in one machine, each with a buffer for every request in flight. */
export class RequestBench {
  readonly #backend: BackendDomain;
  readonly #guest: GuestDomain;
  readonly #disks: BlkDriver[] = [];
  readonly #buffers: number[] = [];
  readonly #depth: number;
  #finished = 0;

  constructor(mode: ExposureMode, devices: number, depth: number, tracer: Tracer = noTrace) {
    const memory = { memory: 128 * MIB, heap: 32 * MIB };
    const machine = new Machine({ seed: 1, ...memory, architecture: 'x86', tracer });
    const firstWindow = addressMap('x86').virtioMmio;
    this.#backend = machine.createBackend(1);
    this.#guest = machine.createGuest(2, { memory: 64 * MIB });
    this.#depth = depth;
    for (let device = 0; device < devices; device++) {
      const base = firstWindow + device * 0x200;
      const options = { queues: 1, queueSize: 128 };
      this.#backend.serve(
        new BlkDevice(new NoStore(), { ...options, id: 'bench' }),
        this.#guest.ports.id,
        base,
        mode === 'copy' ? 'copy' : 'map',
      );
      this.#disks.push(
        this.#guest.attachBlk({ base, backend: this.#backend.ports.id, device }, mode, options),
      );
    }
    for (let i = 0; i < depth; i++) this.#buffers.push(this.#guest.ports.memory.allocatePages(1)!);
  }

  /** Detaches the disks: nothing of theirs is granted any more. */
  close(): void {
    for (const disk of this.#disks) this.#guest.detach(disk);
  }

  /** Does about `requests` reads, spread over the disks. Returns ns for each. */
  run(requests: number): number {
    const rounds = Math.ceil(requests / this.#depth);
    const done = (status: number) => {
      if (status !== VIRTIO_BLK_S_OK) throw new Error(`a read ended with status ${status}`);
      this.#finished++;
    };
    this.#finished = 0;
    const start = process.hrtime.bigint();
    for (let round = 0; round < rounds; round++) {
      const disk = this.#disks[round % this.#disks.length];
      for (let i = 0; i < this.#depth; i++) disk.submit(VIRTIO_BLK_T_IN, i * 8, this.#buffers[i], 4096, done);
      this.#backend.poll();
      disk.poll();
    }
    const nanoseconds = Number(process.hrtime.bigint() - start);
    if (this.#finished !== rounds * this.#depth)
      throw new Error(`${this.#finished} of ${rounds * this.#depth} reads finished`);
    return nanoseconds / this.#finished;
  }
}

const REQUESTS = 50_000;
const ROUNDS = 9;
const AIMS: { readonly [mode in ExposureMode]?: string } = {
  direct: 'aim: under 2000',
  bounce: 'aim: under 1500',
};

/** One request in flight, sixteen, and sixteen on each of many devices: the cost should not grow with them. */
export function benchRequests(mode: ExposureMode): Promise<Figure[]> {
  const shapes = [
    { devices: 1, depth: 1 },
    { devices: 1, depth: 16 },
    { devices: 16, depth: 16 },
    { devices: 64, depth: 16 },
  ];
  const aim = AIMS[mode];
  const candidates = shapes.map(({ devices, depth }) => {
    const bench = new RequestBench(mode, devices, depth);
    bench.run(REQUESTS * 2);
    return {
      name: `${devices} ${devices === 1 ? 'device' : 'devices'}, depth ${depth}`,
      ...(aim !== undefined && { aim }),
      round: () => bench.run(REQUESTS),
    };
  });
  const group = `4 KiB read through driver, DMA, hypervisor and device; one thread, no storage; ${mode}`;
  return measure(group, 'ns', candidates, ROUNDS);
}
