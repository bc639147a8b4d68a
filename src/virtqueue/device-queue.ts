// The device's side of a split virtqueue (virtio 1.3 §2.7): takes chains that the driver made available,
// maps their buffers, and returns them through the used ring.
// After transports/, before memory/ (mapping) and devices/ (what to do with a chain).

import { passedEvent, VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY } from '../abi/split-ring.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import { type ChainAccess, type DeviceMemory, MAPPING_PENDING } from '../memory/device-memory.ts';
import type { Segments } from '../memory/segments.ts';
import { ChainReader } from './chain-reader.ts';
import { FRESH_QUEUE, type QueueJournal, type QueueStart } from './queue-journal.ts';
import { NO_TYPE, type QueueMeter } from './queue-meter.ts';
import type { RingAreas } from './ring-areas.ts';
import { AvailableRing, DescriptorTable, type QueueFeatures, UsedRing } from './split-ring.ts';

/** The status where a chain has no buffer for an answer, or needs none. */
const NO_ANSWER = -1;

/** One request on its way through the device. */
export class Chain {
  readonly head: number;
  readonly access: ChainAccess;
  /** Bytes that its descriptors speak of, mapped or refused. */
  byteLength = 0;
  /** Status with which the platform refused one of its buffers, or what was written to it; 0 when all is well. */
  fault = 0;
  /** When it was taken with a fault: whether the buffer for its answer is mapped all the same, see `mapAnswer`. */
  answers = false;
  inFlight = false;
  /** What the device says of it for whoever counts: the kind of request and the answer, in its type's own numbers. */
  type = NO_TYPE;
  status = 0;

  constructor(head: number, access: ChainAccess) {
    this.head = head;
    this.access = access;
  }

  /** What the driver sent, in order. */
  get readable(): Segments {
    return this.access.readable;
  }

  /** Where the answer goes, in order. */
  get writable(): Segments {
    return this.access.writable;
  }
}

/** What a device takes from the driver of a queue. */
export interface DeviceQueueFeatures extends QueueFeatures {
  /**
   * Descriptors of the longest chain: the queue size that the device announced (§2.7.5.3.1). A driver that made its ring
   * smaller may take that for the limit of an indirect table still, as Linux does. The ring's own size when left out.
   */
  readonly longestChain?: number;
}

/** A queue that the driver has enabled. Every method may throw ProtocolViolation: the device is then broken. */
export class DeviceQueue {
  readonly size: number;
  /** Counts what the queue does, where somebody wants to know. Who gives the queue its turns tells of them. */
  readonly meter: QueueMeter | undefined;
  readonly #rings: RingAreas;
  readonly #available: AvailableRing;
  readonly #used: UsedRing;
  readonly #reader: ChainReader;
  readonly #eventIndex: boolean;
  /** One chain for each possible head, made when it is first used. */
  readonly #chains: Chain[] = [];
  readonly #memory: DeviceMemory;
  /** Free-running u16 indices: next available entry to take, next used entry to fill. */
  #nextAvailable: number;
  #nextUsed: number;
  /** The used index when the driver was last interrupted. */
  #signalledUsed: number;
  readonly #journal: QueueJournal | undefined;
  /** Heads that are to be served again, the first one last; undefined when there are none any more. */
  #again: number[] | undefined;
  /** Whether the next chain waits for the platform to say where its buffers are. */
  #pending = false;
  /** Its head, if the reader has read it; -1 otherwise. */
  #read = -1;
  /** Status with which the platform has refused one of its buffers already: it waits for that of its answer. */
  #refusal = 0;
  /** Which of its buffers could not be mapped; -1 when that is not known, or all were. */
  #unmapped = -1;
  #inFlight = 0;
  #closed = false;

  /**
   * @param start where to go on in rings that were served before
   * @param meter counts what the queue does
   */
  constructor(
    size: number,
    rings: RingAreas,
    memory: DeviceMemory,
    features: DeviceQueueFeatures,
    start: QueueStart = FRESH_QUEUE,
    meter?: QueueMeter,
  ) {
    this.size = size;
    this.#rings = rings;
    this.#memory = memory;
    this.#available = new AvailableRing(rings.driver, size);
    this.#used = new UsedRing(rings.device, size);
    const table = new DescriptorTable(rings.descriptor);
    this.#reader = new ChainReader(size, features.longestChain ?? size, table, features.indirect, memory);
    this.#eventIndex = features.eventIndex;
    this.#nextAvailable = start.base;
    this.#nextUsed = start.used;
    this.#signalledUsed = start.used;
    this.#journal = start.journal;
    this.meter = meter;
    this.#again = start.again.length === 0 ? undefined : start.again.toReversed();
  }

  /** Chains taken and not yet completed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether it was disabled or reset: what was taken from it is for nobody any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * The available entry from which another device goes on. What is in flight is in the journal, or is taken anew,
   * which is right where chains were completed in the order they came.
   */
  get base(): number {
    if (this.#journal?.keepsInFlight) return this.#nextAvailable;
    return (this.#nextAvailable - this.#inFlight) & 0xffff;
  }

  /**
   * Takes the next chain and maps its buffers. A buffer that the platform refuses does not break the
   * device: the chain then has a `fault` and nothing of it is mapped but, if that can be, the buffer for its answer.
   *
   * @returns undefined when the driver has made nothing more available, or the platform does not know yet where
   *   the next chain's buffers are: it is the next one then, too
   */
  pop(): Chain | undefined {
    if (this.#again !== undefined) return this.#popAgain(this.#again);
    // §2.7.13.1.1 The driver's index; it is the only thing read before it says there is something to read.
    const pending = (this.#available.index - this.#nextAvailable) & 0xffff;
    if (pending === 0) return undefined;
    if (pending > this.size)
      throw new ProtocolViolation('§2.7.6.1', `available index ${pending} ahead in a queue of ${this.size}`);
    const chain = this.#take(this.#available.head(this.#nextAvailable), pending);
    if (chain === undefined) return undefined;
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#journal?.taken(chain.head);
    return chain;
  }

  /**
   * For the chain that `pop` returned last, and that was refused when it was completed: maps only its last
   * device-writable buffer that is not empty, so that a device can still say that the request failed.
   *
   * @returns false when that is refused too, or the chain has no such buffer
   */
  mapAnswer(chain: Chain): boolean {
    return this.#mapAnswer(chain) === 0;
  }

  /**
   * Returns a chain to the driver: unmaps its buffers, then fills the used element, then publishes it. Does
   * nothing once the queue is closed: an answer that comes after a reset is for nobody (§2.4.1).
   *
   * @param bytesRead bytes of `readable` that were looked at
   * @param written bytes written from the start of `writable` on, which the driver is told
   * @param atEnd bytes written at the very end of `writable`, of which a driver knows: a status
   * @returns 0, or the negative status with which the platform refused to take what was written: the chain is then
   *   still the device's, has that fault and nothing of it is mapped
   */
  complete(chain: Chain, bytesRead: number, written: number, atEnd = 0): number {
    if (this.#closed) return 0;
    assert(chain.inFlight, 'a chain is completed once', chain.head);
    assert(
      written <= chain.writable.byteLength,
      'more bytes written than there is room',
      written,
      chain.writable.byteLength,
    );
    const { fault } = chain;
    // Unmap before complete: otherwise the driver finds its grants still in use.
    chain.fault = chain.access.release(bytesRead, written, atEnd);
    if (chain.fault !== 0) {
      if (fault === 0) this.meter?.refused();
      return chain.fault;
    }
    chain.inFlight = false;
    this.#inFlight--;
    // Whoever sees the request completed sees it counted.
    this.meter?.completed(chain.head, chain.type, chain.status, bytesRead, written);
    this.#used.setElement(this.#nextUsed, chain.head, written);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#journal?.completing(chain.head);
    this.#used.index = this.#nextUsed;
    this.#journal?.completed(chain.head, this.#nextUsed);
    return 0;
  }

  /** Whether the driver asked to be interrupted for what was completed since the last time (§2.7.7). */
  takeInterrupt(): boolean {
    const before = this.#signalledUsed;
    if (before === this.#nextUsed) return false;
    this.#signalledUsed = this.#nextUsed;
    if (this.#eventIndex) return passedEvent(this.#available.usedEvent, this.#nextUsed, before);
    return (this.#available.flags & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }

  /** Tells the driver that no notifications are needed while the device looks by itself (§2.7.10). */
  disableNotifications(): void {
    if (!this.#eventIndex) this.#used.flags = VIRTQ_USED_F_NO_NOTIFY;
    // With event indices, leaving avail_event behind is enough.
  }

  /** Asks to be notified of the next chain. Returns true when one has come meanwhile that can be taken: look again. */
  enableNotifications(): boolean {
    if (this.#eventIndex) this.#used.availEvent = this.#nextAvailable;
    else this.#used.flags = 0;
    return !this.#pending && this.#available.index !== this.#nextAvailable;
  }

  /** Lets go of chains in flight and of the rings; nothing is written to guest memory any more. */
  close(): void {
    this.#closed = true;
    this.meter?.closed();
    // All of them: a chain that broke a rule half way through its buffers is not in flight but has mappings.
    for (const chain of this.#chains) chain?.access.release(0, 0, 0);
    this.#rings.descriptor.release();
    this.#rings.driver.release();
    this.#rings.device.release();
  }

  /** Chains that the device before this one had taken come first; its journal has them. */
  #popAgain(again: number[]): Chain | undefined {
    const chain = this.#take(again[again.length - 1], again.length);
    if (chain === undefined) return undefined;
    again.pop();
    if (again.length === 0) this.#again = undefined;
    return chain;
  }

  /** @param waiting chains that wait, with this one */
  #take(head: number, waiting: number): Chain | undefined {
    if (head >= this.size) throw new ProtocolViolation('§2.7.6', `head ${head} in a queue of ${this.size}`);
    const chain = this.#chainAt(head);
    if (chain.inFlight) throw new ProtocolViolation('§2.7.6', `head ${head} made available while in flight`);
    // A chain that waits for its buffers is not read again, nor is one that was refused mapped again.
    const waited = head === this.#read;
    const unread = waited ? 0 : this.#reader.read(head);
    const fault = unread || (waited && this.#refusal) || this.#mapBuffers(chain);
    const answer = fault < 0 && unread === 0 ? this.#mapAnswer(chain) : NO_ANSWER;
    this.#pending = fault === MAPPING_PENDING || answer === MAPPING_PENDING;
    this.#read = this.#pending && unread === 0 ? head : -1;
    this.#refusal = Math.min(fault, 0);
    if (this.#pending) return undefined;
    chain.fault = fault;
    chain.answers = answer === 0;
    chain.byteLength = this.#reader.byteLength;
    chain.type = NO_TYPE;
    chain.status = 0;
    chain.inFlight = true;
    this.meter?.taken(head, chain.byteLength, waiting + this.#inFlight);
    if (fault !== 0) this.meter?.refused();
    this.#inFlight++;
    return chain;
  }

  #chainAt(head: number): Chain {
    this.#chains[head] ??= new Chain(head, this.#memory.newChainAccess());
    return this.#chains[head];
  }

  #mapBuffers(chain: Chain): number {
    const { count, readableCount, low, high, len } = this.#reader;
    this.#unmapped = -1;
    for (let i = 0; i < count; i++) {
      if (len[i] === 0) continue;
      const status = chain.access.map(low[i], high[i], len[i], i >= readableCount);
      if (status !== 0) {
        chain.access.release(0, 0, 0);
        this.#unmapped = i;
        return status;
      }
    }
    return chain.access.ready();
  }

  /** Maps the buffer for the answer. Returns 0, MAPPING_PENDING, or a negative status. */
  #mapAnswer(chain: Chain): number {
    const { count, readableCount, low, high, len } = this.#reader;
    let last = count - 1;
    while (last >= readableCount && len[last] === 0) last--;
    if (last < readableCount || last === this.#unmapped) return NO_ANSWER;
    const { access } = chain;
    return access.map(low[last], high[last], len[last], true) || access.ready();
  }
}
