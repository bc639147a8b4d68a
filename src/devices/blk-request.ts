// A request of a block device while the store has it: where it came from, what is left of it to do, and the way back.
// Used by blk.ts.

import { Segments } from '../memory/segments.ts';
import type { StoreRequest, StoreResult } from '../storage/block-store.ts';
import type { Chain, DeviceQueue } from '../virtqueue/device-queue.ts';

/** Called when the store has answered later. */
type Finished = (request: BlkRequest, result: StoreResult) => void;

/** A request. There are as many as were ever under way together; each is used again. */
export class BlkRequest implements StoreRequest {
  /** Set by `begin`, before anybody looks at them. */
  queue!: DeviceQueue;
  chain!: Chain;
  /** The data part, without header and status; stays as it is until the request is answered. */
  readonly data = new Segments();
  /** Bytes of the answer before its status, if it is no error. */
  written = 0;
  /** Whether a flush has to follow. */
  mustFlush = false;
  /** Ranges of the disk to discard or zero, checked, and the first of them that is not done. */
  readonly offsets: number[] = [];
  readonly lengths: number[] = [];
  readonly mayUnmap: boolean[] = [];
  ranges = 0;
  nextRange = 0;
  readonly #finished: Finished;

  constructor(finished: Finished) {
    this.#finished = finished;
  }

  begin(queue: DeviceQueue, chain: Chain): void {
    this.queue = queue;
    this.chain = chain;
    this.written = 0;
    this.mustFlush = false;
    this.ranges = 0;
    this.nextRange = 0;
  }

  addRange(offset: number, length: number, mayUnmap: boolean): void {
    this.offsets[this.ranges] = offset;
    this.lengths[this.ranges] = length;
    this.mayUnmap[this.ranges] = mayUnmap;
    this.ranges++;
  }

  finish(result: StoreResult): void {
    this.#finished(this, result);
  }
}
