// Keeps in a buffer of the frontend's which requests of a queue are under way, and reads what a predecessor kept
// there: each request is done at least once and reported exactly once, wherever it was killed (cases C1, T9).
// Rules of vhost-user.rst, "Inflight I/O tracking", for batches of one. Called by virtqueue/device-queue.ts.

import type { Region } from '../../abi/region.ts';
import {
  INFLIGHT_VERSION,
  inflightDescriptor,
  inflightQueueHeader,
  inflightQueueSize,
} from '../../abi/vhost-user-inflight.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { QueueJournal, QueueStart } from '../../virtqueue/queue-journal.ts';

const HIGH = 2 ** 32;

/** Where the buffer of one queue lies; `offset` is a multiple of 64. */
export interface InflightArea {
  readonly region: Region;
  readonly offset: number;
}

const LAST_BATCH_HEAD = inflightQueueHeader.offsetOf('last_batch_head');
const USED_INDEX = inflightQueueHeader.offsetOf('used_idx');

/** Prepares the buffer of a queue of `size` that nobody has used. */
export function initialiseInflight({ region, offset }: InflightArea, size: number, used: number): void {
  region.u8.fill(0, offset, offset + inflightQueueSize(size));
  const header = inflightQueueHeader.over(region.u8).at(offset);
  header.desc_num = size;
  header.used_idx = used;
  // Last: without it there is nothing to recover.
  header.version = INFLIGHT_VERSION;
}

/** The journal of one queue. Stores are ordered, because the process may end between any two of them. */
export class InflightJournal implements QueueJournal {
  readonly keepsInFlight = true;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  /** Byte offset of the header, and of the first descriptor. */
  readonly #header: number;
  readonly #first: number;
  /** The next request's place in the order of all. */
  #counter: number;

  constructor({ region, offset }: InflightArea, counter: number) {
    this.#u8 = region.u8;
    this.#u16 = region.u16;
    this.#u32 = region.u32;
    this.#header = offset;
    this.#first = offset + inflightQueueHeader.size;
    this.#counter = counter;
  }

  taken(head: number): void {
    const at = this.#first + head * 16;
    this.#u32[(at + 8) / 4] = this.#counter;
    this.#u32[(at + 12) / 4] = this.#counter / HIGH;
    this.#counter++;
    Atomics.store(this.#u8, at, 1);
  }

  completing(head: number): void {
    const batch = (this.#header + LAST_BATCH_HEAD) / 2;
    this.#u16[(this.#first + head * 16 + 6) / 2] = this.#u16[batch];
    Atomics.store(this.#u16, batch, head);
  }

  completed(head: number, used: number): void {
    Atomics.store(this.#u8, this.#first + head * 16, 0);
    Atomics.store(this.#u16, (this.#header + USED_INDEX) / 2, used);
  }
}

/**
 * Finds out where a queue of `size` goes on, and settles in the buffer what its predecessor could not.
 *
 * @param used the used index, as the ring has it
 * @param base the entry to go on from where nobody has used the buffer
 * @throws ProtocolViolation for a buffer that was not made for this queue
 */
export function recoverInflight(area: InflightArea, size: number, used: number, base: number): QueueStart {
  const { region, offset } = area;
  const header = inflightQueueHeader.over(region.u8).at(offset);
  const { version, desc_num } = header;
  if (version === 0) {
    initialiseInflight(area, size, used);
    return { base, used, again: [], journal: new InflightJournal(area, 0) };
  }
  if (version !== INFLIGHT_VERSION || desc_num !== size)
    throw new ProtocolViolation(
      'vhost-user inflight buffer',
      `version ${version} for ${desc_num} descriptors, expected version ${INFLIGHT_VERSION} for ${size}`,
    );
  settleLastBatch(area, size, used);
  const { heads, counter } = underWay(area, size);
  return {
    // What was taken is what was completed and what is under way, whatever the frontend remembers.
    base: (used + heads.length) & 0xffff,
    used,
    again: heads,
    journal: new InflightJournal(area, counter),
  };
}

/** Completions that the driver can see are over, also where the buffer does not say so yet. */
function settleLastBatch({ region, offset }: InflightArea, size: number, used: number): void {
  const header = inflightQueueHeader.over(region.u8).at(offset);
  const descriptor = inflightDescriptor.over(region.u8);
  const batch = Math.min((used - header.used_idx) & 0xffff, size);
  let head = header.last_batch_head;
  for (let i = 0; i < batch && head < size; i++) {
    descriptor.at(descriptorAt(offset, head)).inflight = 0;
    head = descriptor.next;
  }
  header.used_idx = used;
}

/** Heads of the requests that a queue of `size` has under way, in the order in which they were taken. */
export function headsUnderWay(area: InflightArea, size: number): number[] {
  return underWay(area, size).heads;
}

/** The same, and the counter of the next. */
function underWay({ region, offset }: InflightArea, size: number): { heads: number[]; counter: number } {
  const descriptor = inflightDescriptor.over(region.u8);
  const found: { head: number; counter: number }[] = [];
  for (let head = 0; head < size; head++) {
    const { inflight, counter } = descriptor.at(descriptorAt(offset, head));
    if (inflight === 1) found.push({ head, counter });
  }
  found.sort((a, b) => a.counter - b.counter || a.head - b.head);
  const next = found.length === 0 ? 0 : found[found.length - 1].counter + 1;
  if (next > Number.MAX_SAFE_INTEGER - HIGH)
    throw new ProtocolViolation('vhost-user inflight buffer', `${next} requests have been counted`);
  return { heads: found.map(({ head }) => head), counter: next };
}

function descriptorAt(offset: number, head: number): number {
  return offset + inflightQueueHeader.size + head * inflightDescriptor.size;
}
