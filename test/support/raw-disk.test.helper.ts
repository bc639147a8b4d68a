// Block requests made by hand, one at a time, on a queue that a test set up: any type, any lengths.

import assert from 'node:assert/strict';
import { virtioBlkRange, virtioBlkRequestHeader } from '../../src/abi/virtio-blk.ts';
import {
  offsetBy,
  type RawBuffer,
  type RawDriver,
  type RawQueue,
  type SharedPages,
} from './raw-driver.test.helper.ts';
import { NO_STATUS, type Scene } from './scene.test.helper.ts';

/** What the device answered. */
export interface RawAnswer {
  /** NO_STATUS when it wrote none. */
  readonly status: number;
  /** The room for data, as the device left it; NO_STATUS where it wrote nothing. */
  readonly data: Uint8Array;
  /** The used element's length. */
  readonly length: number;
}

/** Bytes of a range of a discard or write zeroes request. */
export function range(sector: number, sectors: number, flags = 0): Uint8Array {
  return virtioBlkRange.make({ sector, num_sectors: sectors, flags }).bytes;
}

export class RawDisk {
  readonly queue: RawQueue;
  readonly #driver: RawDriver;
  readonly #input: SharedPages;
  readonly #output: SharedPages;

  /** @param without features not to negotiate */
  constructor(scene: Scene, without = 0n) {
    this.#driver = scene.driver;
    this.queue = scene.driver.start(16, without);
    this.#input = scene.driver.share(17);
    this.#output = scene.driver.share(17);
  }

  /**
   * One request and its answer.
   *
   * @param sent data that the device reads, behind the header
   * @param room bytes of data that it may write, before the status
   */
  ask(type: number, sector: number, sent: Uint8Array = new Uint8Array(0), room = 0): RawAnswer {
    const header = virtioBlkRequestHeader.make({ type, sector }).bytes;
    const stream = new Uint8Array(16 + sent.length);
    stream.set(header);
    stream.set(sent, 16);
    return this.askRaw(stream, room);
  }

  /** One request of any bytes at all. */
  askRaw(stream: Uint8Array, room: number): RawAnswer {
    const { queue } = this;
    this.#input.bytes.set(stream);
    this.#output.bytes.fill(NO_STATUS);
    const chain: RawBuffer[] = [
      { at: this.#input, length: stream.length },
      { at: this.#output, length: room, writable: true },
      { at: offsetBy(this.#output, room), length: 1, writable: true },
    ];
    this.#driver.chain(queue, 0, chain);
    const before = queue.used.index;
    this.#driver.submit(queue, 0);
    assert.equal(queue.used.index, (before + 1) & 0xffff, 'the request is answered');
    assert.ok(this.#output.bytes.subarray(room + 1).every((byte) => byte === NO_STATUS));
    assert.deepEqual(this.#input.bytes.subarray(0, stream.length), stream, 'what is read is not written');
    return {
      status: this.#output.bytes[room],
      data: this.#output.bytes.slice(0, room),
      length: queue.used.len(before),
    };
  }
}
