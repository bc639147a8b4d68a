// Work on a disk that something happens to in the middle: each request has to be answered, once, and the disk has to
// hold in the end what was written.

import assert from 'node:assert/strict';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { ExposureMode } from '../../src/dma/exposure-modes.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import type { BackendDomain } from '../../src/machine/backend-domain.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { grantPages } from '../../src/xen/grant-pages.test.helper.ts';
import { BASE, DISK_SIZE, diskBytes } from './scene.test.helper.ts';

export const OPTIONS = { queues: 2, queueSize: 16 };
const PAGE = 4096;
const PAGES = DISK_SIZE / PAGE;

/** Serves the disk that `bytes` are. */
export function serveDisk(backend: BackendDomain, guest: GuestDomain, bytes: Uint8Array<ArrayBuffer>) {
  return backend.serve(
    new BlkDevice(new MemoryStore(bytes), { ...OPTIONS, id: 'disk' }),
    guest.ports.id,
    BASE,
  );
}

/** Writes, reads and flushes that are all under way at once. */
export class DiskWork {
  readonly #bytes: Uint8Array;
  readonly #results: string[][] = [];
  readonly #reads: { page: number; content: () => Uint8Array }[] = [];
  readonly #expected = diskBytes(DISK_SIZE, 0x5c);
  #all: Promise<unknown> = Promise.resolve();

  /** @param bytes of the disk: the work reads its upper half and writes its lower */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#expected.set(bytes.subarray(DISK_SIZE / 2), DISK_SIZE / 2);
  }

  /** Asks for all of it. */
  async begin(disk: BlkDriver): Promise<void> {
    const asked: Promise<unknown>[] = [];
    const count = (request: Promise<void>) => {
      const results: string[] = [];
      this.#results.push(results);
      asked.push(
        request.then(
          () => results.push('done'),
          (error: { code: string }) => results.push(error.code),
        ),
      );
    };
    for (let page = 0; page < PAGES; page++) {
      const buffer = await disk.buffer(PAGE);
      if (page < PAGES / 2) {
        buffer.bytes.set(this.#expected.subarray(page * PAGE, (page + 1) * PAGE));
        count(disk.write(page * PAGE, buffer, PAGE));
        if (page % 3 === 0) count(disk.flush());
      } else {
        count(disk.read(page * PAGE, buffer, PAGE));
        this.#reads.push({ page, content: () => buffer.bytes });
      }
    }
    this.#all = Promise.all(asked);
  }

  /** How many requests were answered so far. */
  get answered(): number {
    return this.#results.filter((results) => results.length > 0).length;
  }

  /** Lets the machine run until everything is answered: once, with success, and the disk is as it should be. */
  async finish(machine: Machine): Promise<void> {
    await assert.doesNotReject(machine.settle(this.#all), 'everything is answered');
    for (const results of this.#results) assert.deepEqual(results, ['done']);
    assert.deepEqual(this.#bytes, this.#expected);
    for (const { page, content } of this.#reads)
      assert.deepEqual(content(), this.#expected.subarray(page * PAGE, (page + 1) * PAGE), `page ${page}`);
  }
}

/** A guest whose work on its disk is under way: it has begun, and the machine has done `steps` steps. */
export async function workUnderWay(
  machine: Machine,
  mode: ExposureMode,
  ids: { backend: number; guest: number },
  steps: number,
) {
  const bytes = diskBytes(DISK_SIZE, 0x31);
  const backend = machine.createBackend(ids.backend);
  const guest = machine.createGuest(ids.guest, { memory: 2 ** 21 });
  serveDisk(backend, guest, bytes);
  const place = { base: BASE, backend: backend.ports.id, device: 0 };
  const disk = guest.attachBlk(place, mode, OPTIONS);
  const work = new DiskWork(bytes);
  await work.begin(disk);
  for (let step = 0; step < steps; step++) {
    machine.step();
    await Promise.resolve();
  }
  return { machine, bytes, backend, guest, disk, work, place };
}

/** Tries every reference of a guest, as a writer and as a reader. Returns those that could be mapped. */
export function mappable(backend: BackendDomain, guest: number, entries: number): number[] {
  const { grantMapper } = backend.ports;
  const found: number[] = [];
  for (let ref = 0; ref < entries; ref++) {
    for (const readonly of [false, true]) {
      const page = grantPages(ref);
      if (grantMapper.mapPages(guest as never, page, readonly) < 0) continue;
      found.push(ref);
      grantMapper.unmapPages(page);
    }
  }
  return found;
}
