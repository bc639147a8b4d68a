// Random work on a disk through driver, rings, grants and device, with a power cut tried at every event below and at
// every answer above: whatever state it leaves has to be one that the device has promised.

import assert from 'node:assert/strict';
import * as blk from '../../src/abi/virtio-blk.ts';
import type { ExposureMode } from '../../src/dma/exposure-modes.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import type { GuestBuffer } from '../../src/drivers/disk.ts';
import { RECOVERY } from '../../src/drivers/recovery.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import { randomFrom } from '../../src/machine/random.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { PowerCut } from '../../src/storage/power-cut.ts';
import { type LogEvent, SECTOR, type WriteLog } from '../../src/storage/write-log.ts';
import { hideFeatures } from './hide-features.test.helper.ts';
import { PromisedDisk } from './promised-disk.test.helper.ts';
import { BASE } from './scene.test.helper.ts';

const [BACKEND, GUEST] = [1, 2];
const MIB = 2 ** 20;
const OPTIONS = { queues: 3, queueSize: 16, id: 'lossy' };
/** Chance that a store which answers later does so rather than anybody else goes on. */
const LATE = 0.1;
/** Requests that are under way together. */
const AT_ONCE = 6;
const MOST_SECTORS = 4;
/** Events that a failure tells. */
const REMEMBERED = 40;

/** A run of random work. */
export interface PowerCutRun {
  readonly seed: number;
  readonly mode: ExposureMode;
  readonly store: BlockStore;
  /** What happens below the store. */
  readonly log: WriteLog;
  readonly requests: number;
  /** The guest has no VIRTIO_BLK_F_FLUSH, and is therefore promised more. */
  readonly writeThrough?: boolean;
  /** Bytes that the disk writes as a whole; 512 unless given. */
  readonly block?: 512 | 4096;
  /** Chance, at each step, that the driver resets its device or that the backend dies and is replaced. */
  readonly accidents?: number;
  /** Has the store answer something that it answers later. Returns false when there is nothing. */
  readonly answer?: () => boolean;
  /** Whoever waits for the store is gone: what it does still happens, and nobody is told. */
  readonly orphan?: () => void;
}

/** A place of its own in guest memory for each request that is under way. */
interface Slot {
  readonly buffer: GuestBuffer;
  readonly address: number;
  busy: boolean;
}

/** What a run has seen. */
export class PowerCutWork {
  /** Power cuts and states of the disk that were looked at. */
  cuts = 0;
  states = 0;
  /** Requests that failed. */
  failed = 0;
  /** Resets of the device and replaced backends. */
  accidents = 0;
  readonly #run: PowerCutRun;
  readonly #random: () => number;
  readonly #machine: Machine;
  readonly #guest: GuestDomain;
  readonly #disk: BlkDriver;
  readonly #promised: PromisedDisk;
  readonly #events: string[] = [];
  readonly #slots: Slot[] = [];
  #stamp = 0;

  constructor(run: PowerCutRun) {
    this.#run = run;
    const { seed, store, log, writeThrough = false } = run;
    this.#random = randomFrom(seed);
    this.#machine = new Machine({ seed, memory: 16 * MIB, heap: 4 * MIB });
    this.#guest = this.#machine.createGuest(GUEST, { memory: 2 * MIB });
    this.#guest.recovery = { ...RECOVERY, resets: Number.POSITIVE_INFINITY };
    this.#createBackend();
    if (writeThrough) hideFeatures(this.#guest, BASE, blk.VIRTIO_BLK_F_FLUSH);
    this.#disk = this.#guest.attachBlk(this.#place, run.mode, OPTIONS);
    assert.equal(this.#disk.canFlush, !writeThrough);
    this.#promised = new PromisedDisk(log.stable, writeThrough);
    log.onEvent = (event) => {
      this.#note(wordsOf(event));
      this.#check();
    };
    assert.equal(store.size, log.stable.length);
  }

  /** Does all of the work. Throws at the first state that was not promised. */
  async finish(): Promise<void> {
    for (let slot = 0; slot < AT_ONCE; slot++) this.#slots.push(await this.#makeSlot());
    for (let left = this.#run.requests; left > 0 || this.#disk.busy; ) {
      const idle = this.#slots.filter(({ busy }) => !busy);
      if (left > 0 && idle.length > 0 && this.#random() < 0.6) {
        this.#ask(idle[0]);
        left--;
      } else this.#goOn();
    }
    this.#check();
  }

  /** A last flush of all that was done: nothing is in doubt any more. */
  async finishStable(): Promise<void> {
    await this.finish();
    const flush = this.#disk.flush();
    while (this.#machine.step() || this.#run.answer?.());
    await this.#machine.settle(flush);
    assert.equal(new PowerCut(this.#run.log).count, 1, 'after a flush there is one state');
  }

  get #place() {
    return { base: BASE, backend: BACKEND as never, device: 0 };
  }

  #createBackend(): void {
    const backend = this.#machine.createBackend(BACKEND);
    backend.serve(new BlkDevice(this.#run.store, OPTIONS), this.#guest.ports.id, BASE);
  }

  async #makeSlot(): Promise<Slot> {
    const buffer = await this.#disk.buffer(MOST_SECTORS * SECTOR);
    return { buffer, address: this.#guest.ports.memory.addressOf(buffer.bytes), busy: false };
  }

  #goOn(): void {
    const { accidents = 0, answer } = this.#run;
    if (this.#random() < accidents) this.#accident();
    else if (answer !== undefined && this.#random() < LATE && answer()) return;
    else
      assert.ok(
        this.#machine.step() || answer?.() || !this.#disk.busy,
        'somebody goes on as long as requests wait',
      );
  }

  #accident(): void {
    this.accidents++;
    if (this.#random() < 0.5) {
      this.#note('the driver resets the device');
      this.#disk.recover('an accident');
      return;
    }
    this.#note('the backend dies, and another serves the disk');
    this.#machine.destroy(BACKEND);
    this.#run.orphan?.();
    this.#disk.suspend('an accident');
    this.#createBackend();
    this.#guest.reattach(this.#disk, this.#place);
  }

  #ask(slot: Slot): void {
    const first = this.#below(this.#run.store.size / SECTOR);
    const count = 1 + this.#below(Math.min(MOST_SECTORS, this.#run.store.size / SECTOR - first));
    const kind = this.#random();
    slot.busy = true;
    if (kind < 0.15 && this.#disk.canFlush) this.#flush(slot);
    else if (kind < 0.25) this.#read(slot, first, count);
    else if (kind < 0.35) this.#change(slot, blk.VIRTIO_BLK_T_DISCARD, first, count);
    else if (kind < 0.5) this.#change(slot, blk.VIRTIO_BLK_T_WRITE_ZEROES, first, count);
    else this.#change(slot, blk.VIRTIO_BLK_T_OUT, first, count);
  }

  #change(slot: Slot, type: number, first: number, count: number): void {
    const isWrite = type === blk.VIRTIO_BLK_T_OUT;
    const bytes = isWrite ? this.#newBytes(count) : new Uint8Array(count * SECTOR);
    const data = isWrite ? bytes : blk.virtioBlkRange.make({ sector: first, num_sectors: count }).bytes;
    slot.buffer.bytes.set(data);
    const change = this.#promised.begin(first, count, type === blk.VIRTIO_BLK_T_DISCARD ? undefined : bytes);
    const name = `${nameOf(type)} ${first}+${count}`;
    this.#submit(slot, name, type, isWrite ? first : 0, data.length, (ok) => this.#promised.end(change, ok));
  }

  /** Every sector of every write is another, so that none can pass for another. */
  #newBytes(count: number): Uint8Array {
    return new Uint8Array(Uint32Array.from({ length: (count * SECTOR) / 4 }, () => ++this.#stamp).buffer);
  }

  #read(slot: Slot, first: number, count: number): void {
    this.#submit(slot, `read ${first}+${count}`, blk.VIRTIO_BLK_T_IN, first, count * SECTOR, () => undefined);
  }

  #flush(slot: Slot): void {
    const flush = this.#promised.beginFlush();
    this.#submit(slot, 'flush', blk.VIRTIO_BLK_T_FLUSH, 0, 0, (ok) => this.#promised.endFlush(flush, ok));
  }

  #submit(
    slot: Slot,
    name: string,
    type: number,
    sector: number,
    length: number,
    done: (ok: boolean) => void,
  ): void {
    this.#note(`driver: ${name}`);
    this.#disk.submit(type, sector, length === 0 ? 0 : slot.address, length, (status) => {
      const ok = status === blk.VIRTIO_BLK_S_OK;
      this.#note(`driver: ${name} ${ok ? 'done' : 'failed'}`);
      if (!ok) this.failed++;
      done(ok);
      slot.busy = false;
      this.#check();
    });
  }

  /** The power goes now. */
  #check(): void {
    const { log, block } = this.#run;
    this.cuts++;
    for (let sector = 0; sector < log.stable.length / SECTOR; sector++)
      this.#checkSector(
        sector,
        log.stable.subarray(sector * SECTOR, (sector + 1) * SECTOR),
        'the stable contents alone',
      );
    const cut = new PowerCut(log, block);
    for (const state of cut.states({ exhaustive: 256, samples: 32, random: this.#random })) {
      this.states++;
      for (const [index, { offset }] of cut.doubts.entries()) {
        const bytes = state.block(index);
        for (let at = 0; at < bytes.length; at += SECTOR)
          this.#checkSector((offset + at) / SECTOR, bytes.subarray(at, at + SECTOR), state);
      }
    }
  }

  #checkSector(sector: number, bytes: Uint8Array, state: unknown): void {
    if (this.#promised.allows(sector, bytes)) return;
    const { seed, mode } = this.#run;
    assert.fail(
      `seed ${seed}, ${mode}: after a power cut sector ${sector} holds what the device has promised it does not ` +
        `(${this.#promised.choices(sector)} contents are allowed).\nThe state: ${state}.\nWhat happened last:\n` +
        this.#events.map((text) => `  ${text}`).join('\n'),
    );
  }

  #note(text: string): void {
    this.#events.push(text);
    if (this.#events.length > REMEMBERED) this.#events.shift();
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
}

function nameOf(type: number): string {
  if (type === blk.VIRTIO_BLK_T_DISCARD) return 'discard';
  return type === blk.VIRTIO_BLK_T_OUT ? 'write' : 'write zeroes';
}

function wordsOf(event: LogEvent): string {
  if (event.kind === 'write')
    return `store: write ${event.at} to sectors ${event.offset / SECTOR}+${event.bytes.length / SECTOR}`;
  if (event.kind === 'written') return `store: write ${event.at} is done`;
  if (event.kind === 'flush') return `store: flush ${event.at}`;
  return `store: flush ${event.at} ${event.ok ? 'is done' : 'has failed'}`;
}
