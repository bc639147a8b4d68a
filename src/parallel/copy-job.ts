// The main job: reads a whole disk through the guest's driver and checks every byte against what it should be.
//
// It goes a window at a time. The reads of a window are timed; comparing it (expected-content.ts) is not, so that
// the figures are those of the path through the driver and its device.

import { setImmediate as turn } from 'node:timers/promises';
import { SECTOR_SIZE, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN } from '../abi/virtio-blk.ts';
import type { BlkDriver } from '../drivers/blk.ts';
import { milliseconds, nanoseconds } from './clock.ts';
import type { ExpectedContent } from './expected-content.ts';
import { PATIENCE, STALLED } from './guest-runner.ts';
import type { RunnableGuest } from './runnable-guest.ts';

/** Bytes of a window, of a request, and requests in flight. */
const WINDOW = 32 * 2 ** 20;
const CHUNK = 128 * 1024;
const DEPTH = 16;
/** Looks at the rings without a completion before the thread sleeps. */
const SPINS = 2000;
const NAP = 1000;

/** What the job found. */
export interface CopyResult {
  readonly bytes: number;
  readonly requests: number;
  readonly nanoseconds: number;
  /** Whether every byte was what it should be. */
  readonly identical: boolean;
  /** Offset of the first byte that was not, when there was one. */
  readonly firstDifference: number | undefined;
}

/** One disk's copy. */
export class CopyJob {
  readonly #guest: RunnableGuest;
  readonly #disk: BlkDriver;
  readonly #window: Uint8Array;
  /** Idle buffers' guest-physical addresses. */
  readonly #buffers: number[] = [];
  readonly #chunk: number;
  #requests = 0;
  #failure: string | undefined;
  /** When something was completed, or given up, last. */
  #busySince = milliseconds();
  /** Set to end the job early. */
  cancelled = false;

  constructor(guest: RunnableGuest, disk: BlkDriver) {
    this.#guest = guest;
    this.#disk = disk;
    this.#chunk = Math.min(CHUNK, disk.maxTransfer);
    this.#window = new Uint8Array(Math.min(WINDOW, disk.capacity));
  }

  /**
   * Copies and compares.
   *
   * @param expected what the disk should hold
   * @param progress called with the bytes done so far
   * @throws Error when a read fails or the guest has no memory; returns early when cancelled
   */
  async run(expected: ExpectedContent, progress: (bytes: number) => void): Promise<CopyResult> {
    // What lies idle meanwhile is not kept waiting for its end.
    const breathe = () => void this.#guest.tick(milliseconds());
    let elapsed = 0;
    let done = 0;
    let firstDifference: number | undefined;
    try {
      this.#allocateBuffers();
      while (done < this.#disk.capacity && !this.cancelled && firstDifference === undefined) {
        const length = Math.min(this.#window.length, this.#disk.capacity - done);
        const start = nanoseconds();
        await this.#readWindow(done, length);
        elapsed += nanoseconds() - start;
        firstDifference = expected.firstDifference(this.#window.subarray(0, length), done, breathe);
        done += length;
        progress(done);
        await turn();
      }
    } finally {
      for (const buffer of this.#buffers.splice(0))
        this.#guest.ports.memory.freePages(buffer, this.#chunk / 4096);
    }
    const identical = firstDifference === undefined && done === this.#disk.capacity;
    return { bytes: done, requests: this.#requests, nanoseconds: elapsed, identical, firstDifference };
  }

  #allocateBuffers(): void {
    for (let i = 0; i < DEPTH; i++) {
      const buffer = this.#guest.ports.memory.allocatePages(this.#chunk / 4096);
      if (buffer === undefined) break;
      this.#buffers.push(buffer);
    }
    if (this.#buffers.length === 0)
      throw new Error('the guest has no memory for one buffer; give it more (--memory)');
  }

  /** Reads `length` bytes from `offset` into the window, with many requests in flight. */
  async #readWindow(offset: number, length: number): Promise<void> {
    const all = this.#buffers.length;
    for (let at = 0; at < length || this.#buffers.length < all; ) {
      while (at < length && this.#buffers.length > 0 && this.#failure === undefined) {
        const piece = Math.min(this.#chunk, length - at);
        this.#readPiece(offset, at, piece);
        at += piece;
      }
      if (!this.#awaitCompletion()) await this.#pause();
      this.#guest.tick(milliseconds());
      if (this.#failure !== undefined && this.#buffers.length === all) throw new Error(this.#failure);
    }
  }

  #readPiece(offset: number, at: number, piece: number): void {
    const buffer = this.#buffers.pop()!;
    const { memory } = this.#guest.ports;
    this.#requests++;
    this.#disk.submit(VIRTIO_BLK_T_IN, (offset + at) / SECTOR_SIZE, buffer, piece, (status) => {
      this.#buffers.push(buffer);
      if (status === VIRTIO_BLK_S_OK) this.#window.set(memory.bytes(buffer, piece), at);
      else this.#failure ??= this.#disk.failure ?? `reading ${piece} bytes at ${offset + at}: I/O error`;
    });
  }

  /** Polls for a while. Returns whether the device has completed something. */
  #awaitCompletion(): boolean {
    const before = this.#buffers.length;
    for (let idle = 0; this.#buffers.length === before && this.#disk.busy; ) {
      if (!this.#guest.poll() && ++idle >= SPINS && !this.#guest.arm()) return false;
    }
    this.#busySince = milliseconds();
    return true;
  }

  /**
   * Sleeps until the device interrupts. First the thread's event loop gets a turn: the toolstack may have something
   * to say about a device that is silent.
   */
  async #pause(): Promise<void> {
    await turn();
    const now = milliseconds();
    if (now - this.#busySince > PATIENCE) {
      this.#busySince = now;
      this.#disk.recover(STALLED);
    }
    const due = this.#guest.tick(now) - now;
    if (!this.#guest.poll() && !this.#guest.arm())
      this.#guest.ports.events.sleep(Math.max(0, Math.min(NAP, due)));
  }
}
