// The driver's side of a split virtqueue (virtio 1.3 §2.7): shares the buffers of a request, makes their
// chain available, and takes it back from the used ring.
// After drivers/, before dma/ (each buffer) and transports/ (notification).

import {
  passedEvent,
  splitRingSizes,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../abi/split-ring.ts';
import type { CoherentBuffer, DmaOperations } from '../dma/dma.ts';
import type { GuestMemory } from '../dma/guest-memory.ts';
import { assert, ProtocolViolation } from '../errors.ts';
import type { BufferList } from './buffer-list.ts';
import { SharedBuffers } from './shared-buffers.ts';
import { AvailableRing, DescriptorTable, type QueueFeatures, UsedRing } from './split-ring.ts';

/** Outcomes of `add`. */
export const ADDED = 0;
/** No descriptors are free: wait for a completion. */
export const QUEUE_FULL = 1;
/** No grant references or pool pages in a row are free: wait for a completion, or split `lastRefused`. */
export const DMA_EXHAUSTED = 2;

/** Entries of the indirect table that belongs to each head; longer chains do not fit. */
const TABLE_ENTRIES = 16;
/** A chain up to this length takes ring descriptors while there are enough: it saves mapping a table. */
const DIRECT_LENGTH = 4;
const END_OF_LIST = 0xffff;
const NO_TOKEN = -1;

/** Where the areas lie in the one allocation that holds them all, and its size. */
function layOut(size: number): { driver: number; device: number; total: number } {
  const sizes = splitRingSizes(size);
  const device = (sizes.descriptor + sizes.driver + 3) & ~3;
  return { driver: sizes.descriptor, device, total: device + sizes.device };
}

/** What a transport tells the device about a queue's memory: DMA addresses of the three areas. */
export interface RingAddresses {
  readonly descriptorLow: number;
  readonly descriptorHigh: number;
  readonly driverLow: number;
  readonly driverHigh: number;
  readonly deviceLow: number;
  readonly deviceHigh: number;
}

/** A queue in the hands of its driver. Methods throw ProtocolViolation when the device broke the rules. */
export class DriverQueue {
  readonly size: number;
  /** Bytes the device says it wrote to the chain that `poll` returned last; never above what the chain holds. */
  lastLength = 0;
  /** Whether the device can still reach a buffer of the chain that `poll` returned last. */
  lastStillShared = false;
  /** The buffer that could not be shared when `add` returned DMA_EXHAUSTED last: its index in the list. */
  lastRefused = 0;
  /** Completions that claimed more bytes than the chain could take; they are cut to that (case B2). */
  overlongCompletions = 0;

  readonly #dma: DmaOperations;
  readonly #eventIndex: boolean;
  readonly #ring: CoherentBuffer;
  /** One indirect table for each head, where negotiated. */
  readonly #tables: CoherentBuffer | undefined;
  readonly #descriptors: DescriptorTable;
  readonly #tableDescriptors: DescriptorTable | undefined;
  readonly #available: AvailableRing;
  readonly #used: UsedRing;
  /** Slots 0 to size - 1 are ring descriptors; slot size + head * TABLE_ENTRIES + n is entry n of a table. */
  readonly #shared: SharedBuffers;

  /** Next ring descriptor of the same chain, or of the free list. */
  readonly #next: Uint16Array;
  /** What the driver calls the request at each head that is in flight. */
  readonly #tokens: Int32Array;
  readonly #counts: Uint16Array;
  readonly #usesTable: Uint8Array;
  readonly #writableBytes: Float64Array;
  #freeHead = 0;
  #freeDescriptors: number;
  #inFlight = 0;
  /** Free-running u16 indices: next entry to make available, next used entry to look at, last notified. */
  #nextAvailable = 0;
  #nextUsed = 0;
  #notified = 0;

  private constructor(
    size: number,
    dma: DmaOperations,
    memory: GuestMemory,
    features: QueueFeatures,
    ring: CoherentBuffer,
    tables: CoherentBuffer | undefined,
  ) {
    const { driver, device } = layOut(size);
    this.size = size;
    this.#dma = dma;
    this.#eventIndex = features.eventIndex;
    this.#ring = ring;
    this.#tables = tables;
    const offset = memory.offset(ring.address, ring.size);
    const { region } = memory;
    this.#descriptors = new DescriptorTable({ region, offset });
    this.#available = new AvailableRing({ region, offset: offset + driver }, size);
    this.#used = new UsedRing({ region, offset: offset + device }, size);
    this.#tableDescriptors =
      tables && new DescriptorTable({ region, offset: memory.offset(tables.address, tables.size) });
    this.#shared = new SharedBuffers(size + (tables ? size * TABLE_ENTRIES : 0), dma);
    this.#next = Uint16Array.from({ length: size }, (_, i) => (i + 1 < size ? i + 1 : END_OF_LIST));
    this.#tokens = new Int32Array(size).fill(NO_TOKEN);
    this.#counts = new Uint16Array(size);
    this.#usesTable = new Uint8Array(size);
    this.#writableBytes = new Float64Array(size);
    this.#freeDescriptors = size;
  }

  /** Allocates the rings in the guest's memory; undefined when it has no room or references. */
  static create(
    size: number,
    dma: DmaOperations,
    memory: GuestMemory,
    features: QueueFeatures,
  ): DriverQueue | undefined {
    const ring = dma.allocate(layOut(size).total);
    if (ring === undefined) return undefined;
    const tables = features.indirect ? dma.allocate(size * TABLE_ENTRIES * VIRTQ_DESC_SIZE) : undefined;
    if (features.indirect && tables === undefined) {
      dma.free(ring);
      return undefined;
    }
    return new DriverQueue(size, dma, memory, features, ring, tables);
  }

  /** For the transport's queue registers. */
  get addresses(): RingAddresses {
    const { low, high } = this.#ring;
    const { driver, device } = layOut(this.size);
    const driverArea = addOffset(low, high, driver);
    const deviceArea = addOffset(low, high, device);
    return {
      descriptorLow: low,
      descriptorHigh: high,
      driverLow: driverArea.low,
      driverHigh: driverArea.high,
      deviceLow: deviceArea.low,
      deviceHigh: deviceArea.high,
    };
  }

  /** Requests made available and not taken back. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Most buffers in one request. */
  get maxBuffers(): number {
    return Math.min(this.size, this.#tables ? TABLE_ENTRIES : this.size);
  }

  /** Whether a request of `count` buffers finds free descriptors. */
  hasRoom(count: number): boolean {
    return (this.#usesTableFor(count) ? 1 : count) <= this.#freeDescriptors;
  }

  /**
   * Shares the buffers and makes their chain available; `needsNotification` tells what to do next.
   *
   * @param token the driver's name for the request, 0 and up; `poll` returns it
   * @returns ADDED, QUEUE_FULL or DMA_EXHAUSTED; in the last two cases nothing has changed
   */
  add(buffers: BufferList, token: number): number {
    const { count } = buffers;
    assert(count > 0 && token >= 0, 'a request has at least one buffer and a token from 0');
    // §2.7.5.3.1: not longer than the queue either, though a table has room for more.
    assert(count <= this.maxBuffers, 'too many buffers for a request', count, this.maxBuffers);
    if (!this.hasRoom(count)) return QUEUE_FULL;
    const inTable = this.#usesTableFor(count);
    const head = this.#freeHead;
    const filled = inTable ? this.#fillTable(head, buffers) : this.#fillRing(buffers);
    if (!filled) return DMA_EXHAUSTED;
    this.#tokens[head] = token;
    this.#counts[head] = count;
    this.#usesTable[head] = inTable ? 1 : 0;
    this.#writableBytes[head] = buffers.writableBytes;
    this.#inFlight++;
    this.#available.setHead(this.#nextAvailable, head);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#available.index = this.#nextAvailable;
    return ADDED;
  }

  /** Whether the device wants to be told of what was added since the last notification (§2.7.10). */
  takeNotification(): boolean {
    const before = this.#notified;
    if (before === this.#nextAvailable) return false;
    this.#notified = this.#nextAvailable;
    if (this.#eventIndex) return passedEvent(this.#used.availEvent, this.#nextAvailable, before);
    return (this.#used.flags & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /** Takes back one completed request: its buffers are the driver's alone again. Returns its token, or -1. */
  poll(): number {
    const completed = (this.#used.index - this.#nextUsed) & 0xffff;
    if (completed === 0) return NO_TOKEN;
    if (completed > this.#inFlight)
      throw new ProtocolViolation('§2.7.8', `used index ${completed} ahead with ${this.#inFlight} in flight`);
    const head = this.#used.id(this.#nextUsed);
    const length = this.#used.len(this.#nextUsed);
    if (head >= this.size || this.#tokens[head] === NO_TOKEN)
      throw new ProtocolViolation('§2.7.8', `used id ${head}, which is not the head of a chain in flight`);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    if (length > this.#writableBytes[head]) this.overlongCompletions++;
    this.lastLength = Math.min(length, this.#writableBytes[head]);
    return this.#takeBack(head);
  }

  /** No interrupts while the driver looks by itself (§2.7.7). */
  disableInterrupts(): void {
    if (!this.#eventIndex) this.#available.flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
    // With event indices, leaving used_event behind is enough.
  }

  /** Asks for an interrupt at the next completion. Returns true when one has come meanwhile: poll again. */
  enableInterrupts(): boolean {
    if (this.#eventIndex) this.#available.usedEvent = this.#nextUsed;
    else this.#available.flags = 0;
    return this.#used.index !== this.#nextUsed;
  }

  /** After a reset of the device: takes back a request it never completed. Returns its token, or -1. */
  abandon(): number {
    const head = this.#tokens.findIndex((token) => token !== NO_TOKEN);
    this.lastLength = 0;
    return head < 0 ? NO_TOKEN : this.#takeBack(head);
  }

  /** Gives the rings back when the queue is empty. Returns false when the device still maps them. */
  close(): boolean {
    assert(this.#inFlight === 0, 'a queue is closed when it is empty', this.#inFlight);
    const ringFreed = this.#dma.free(this.#ring);
    const tablesFreed = this.#tables === undefined || this.#dma.free(this.#tables);
    return ringFreed && tablesFreed;
  }

  #usesTableFor(count: number): boolean {
    return this.#tables !== undefined && (count > DIRECT_LENGTH || count > this.#freeDescriptors);
  }

  /** Writes the chain into free ring descriptors from #freeHead on, and takes them. */
  #fillRing(buffers: BufferList): boolean {
    const { count, readable, addresses, lengths } = buffers;
    let index = this.#freeHead;
    for (let i = 0; i < count; i++) {
      if (!this.#shared.share(index, addresses[i], lengths[i], i >= readable)) {
        for (let undo = this.#freeHead, done = 0; done < i; done++, undo = this.#next[undo])
          this.#shared.unshare(undo);
        this.lastRefused = i;
        return false;
      }
      const { low, high } = this.#shared;
      const next = this.#next[index];
      const flags = (i >= readable ? VIRTQ_DESC_F_WRITE : 0) | (i + 1 < count ? VIRTQ_DESC_F_NEXT : 0);
      this.#descriptors.write(index, low[index], high[index], lengths[i], flags, i + 1 < count ? next : 0);
      index = next;
    }
    this.#freeHead = index;
    this.#freeDescriptors -= count;
    return true;
  }

  /** Writes the chain into the table of `head`, and takes that one ring descriptor. */
  #fillTable(head: number, buffers: BufferList): boolean {
    const { count, readable, addresses, lengths } = buffers;
    const first = head * TABLE_ENTRIES;
    for (let i = 0; i < count; i++) {
      const slot = this.size + first + i;
      if (!this.#shared.share(slot, addresses[i], lengths[i], i >= readable)) {
        for (let undo = slot - i; undo < slot; undo++) this.#shared.unshare(undo);
        this.lastRefused = i;
        return false;
      }
      const { low, high } = this.#shared;
      const flags = (i >= readable ? VIRTQ_DESC_F_WRITE : 0) | (i + 1 < count ? VIRTQ_DESC_F_NEXT : 0);
      this.#tableDescriptors!.write(
        first + i,
        low[slot],
        high[slot],
        lengths[i],
        flags,
        i + 1 < count ? i + 1 : 0,
      );
    }
    const tables = this.#tables!;
    const { low, high } = addOffset(tables.low, tables.high, first * VIRTQ_DESC_SIZE);
    this.#descriptors.write(head, low, high, count * VIRTQ_DESC_SIZE, VIRTQ_DESC_F_INDIRECT, 0);
    this.#freeHead = this.#next[head];
    this.#freeDescriptors--;
    return true;
  }

  /** Unmaps the buffers of the chain at `head`, frees its descriptors, and returns its token. */
  #takeBack(head: number): number {
    const token = this.#tokens[head];
    const count = this.#counts[head];
    this.lastStillShared = false;
    let last = head;
    if (this.#usesTable[head]) {
      const first = this.size + head * TABLE_ENTRIES;
      for (let slot = first; slot < first + count; slot++) this.#unshare(slot);
    } else {
      for (let i = 0, index = head; i < count; i++, index = this.#next[index]) {
        this.#unshare(index);
        last = index;
      }
    }
    this.#next[last] = this.#freeHead;
    this.#freeHead = head;
    this.#freeDescriptors += this.#usesTable[head] ? 1 : count;
    this.#tokens[head] = NO_TOKEN;
    this.#inFlight--;
    return token;
  }

  #unshare(slot: number): void {
    if (!this.#shared.unshare(slot)) this.lastStillShared = true;
  }
}

/** A 64-bit address plus a small offset, in halves. */
function addOffset(low: number, high: number, offset: number): { low: number; high: number } {
  const sum = low + offset;
  return { low: sum >>> 0, high: high + (sum > 0xffff_ffff ? 1 : 0) };
}
