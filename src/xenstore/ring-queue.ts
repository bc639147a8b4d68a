// The two byte queues in the page that a guest shares with the store (docs/misc/xenstore-ring.txt). Each end
// keeps its own index to itself, reads the other's once for each move, and moves nothing when what it read
// cannot be. Before ring.ts.

import type { Region } from '../abi/region.ts';
import { XENSTORE_RING_SIZE as SIZE, xenstoreDomainInterface } from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';

/** Clause of the ProtocolViolation for indices further apart than the queue is long. */
export const RING_INDEX = 'xenstore-ring.txt: producer and consumer offsets';

/** Where a field of the page lies among its 32-bit words. */
export function ringWord(field: Parameters<typeof xenstoreDomainInterface.offsetOf>[0]): number {
  return xenstoreDomainInterface.offsetOf(field) / 4;
}

/** Where one queue lies in the page. */
interface Queue {
  readonly name: string;
  /** Bytes from the start of the page. */
  readonly data: number;
  /** The two indices, among the page's 32-bit words. */
  readonly consumer: number;
  readonly producer: number;
}

function queue(name: 'req' | 'rsp'): Queue {
  const data = xenstoreDomainInterface.offsetOf(name);
  return { name, data, consumer: ringWord(`${name}_cons`), producer: ringWord(`${name}_prod`) };
}

/** From the guest to the store. */
export const REQUESTS = queue('req');
/** From the store to the guest. */
export const RESPONSES = queue('rsp');

/** Bytes between two indices, which wrap at 2^32. */
function distance(queue: Queue, producer: number, consumer: number): number {
  const bytes = (producer - consumer) >>> 0;
  if (bytes > SIZE)
    throw new ProtocolViolation(
      RING_INDEX,
      `xenstore ring: ${bytes} bytes from ${queue.name}_cons to ${queue.name}_prod, expected at most ${SIZE}`,
    );
  return bytes;
}

/** The end of a queue that bytes are put into. */
export class Producer {
  readonly #page: Region;
  readonly #queue: Queue;
  #index: number;

  constructor(page: Region, queue: Queue, index: number) {
    this.#page = page;
    this.#queue = queue;
    this.#index = index;
  }

  /** Puts in as many of `bytes` as there is room for; returns how many. */
  put(bytes: Uint8Array): number {
    const { u8, i32 } = this.#page;
    const { data, consumer, producer } = this.#queue;
    const used = distance(this.#queue, this.#index, Atomics.load(i32, consumer));
    const count = Math.min(bytes.length, SIZE - used);
    if (count === 0) return 0;
    const at = this.#index % SIZE;
    const first = Math.min(count, SIZE - at);
    u8.set(bytes.subarray(0, first), data + at);
    u8.set(bytes.subarray(first, count), data);
    this.#index = (this.#index + count) >>> 0;
    Atomics.store(i32, producer, this.#index);
    return count;
  }
}

/** The end of a queue that bytes are taken out of. */
export class Consumer {
  readonly #page: Region;
  readonly #queue: Queue;
  /** What was looked at, copied out of the shared page once. */
  readonly #copy = new Uint8Array(SIZE);
  #index: number;

  constructor(page: Region, queue: Queue, index: number) {
    this.#page = page;
    this.#queue = queue;
    this.#index = index;
  }

  /** A copy of everything that is in the queue; valid until the next call. */
  look(): Uint8Array {
    const { u8, i32 } = this.#page;
    const { data, producer } = this.#queue;
    const count = distance(this.#queue, Atomics.load(i32, producer), this.#index);
    const at = this.#index % SIZE;
    const first = Math.min(count, SIZE - at);
    this.#copy.set(u8.subarray(data + at, data + at + first));
    this.#copy.set(u8.subarray(data, data + count - first), first);
    return this.#copy.subarray(0, count);
  }

  /** Gives the room of the first `count` bytes back. */
  took(count: number): void {
    this.#index = (this.#index + count) >>> 0;
    Atomics.store(this.#page.i32, this.#queue.consumer, this.#index);
  }
}
