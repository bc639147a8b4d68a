// The one checked walk of a descriptor chain (virtio 1.3 §2.7.5): every descriptor is read once into private
// memory and validated there, so nothing the driver changes afterwards has any effect (XSA-155).
// Used by device-queue.ts; devices never see raw descriptors.

import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
} from '../abi/split-ring.ts';
import { regionOver } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import type { ChainAccess, DeviceMemory } from '../memory/device-memory.ts';
import { DescriptorTable } from './split-ring.ts';

/** §2.7.5.2: a chain describes at most this many bytes. */
const MAX_CHAIN_BYTES = 2 ** 32;

/** Reads chains of one queue; holds the last one read. */
export class ChainReader {
  /** Descriptors of the chain, without the one that points at an indirect table. */
  count = 0;
  /** How many of them the device may only read; they come first. */
  readableCount = 0;
  /** Bytes of all buffers. */
  byteLength = 0;
  readonly low: Uint32Array;
  readonly high: Uint32Array;
  readonly len: Uint32Array;

  readonly #size: number;
  readonly #longest: number;
  readonly #table: DescriptorTable;
  readonly #indirect: boolean;
  /** Private copy of an indirect table, and the mapping through which it is fetched. */
  readonly #copy: Uint8Array;
  readonly #copyTable: DescriptorTable;
  readonly #tableAccess: ChainAccess;

  /**
   * @param size descriptors of the ring
   * @param longest descriptors of the longest chain, `size` or more
   */
  constructor(
    size: number,
    longest: number,
    table: DescriptorTable,
    indirect: boolean,
    memory: DeviceMemory,
  ) {
    this.#size = size;
    this.#longest = longest;
    this.#table = table;
    this.#indirect = indirect;
    this.low = new Uint32Array(longest);
    this.high = new Uint32Array(longest);
    this.len = new Uint32Array(longest);
    const region = regionOver(new ArrayBuffer(longest * VIRTQ_DESC_SIZE));
    this.#copy = region.u8;
    this.#copyTable = new DescriptorTable({ region, offset: 0 });
    this.#tableAccess = memory.newChainAccess();
  }

  /**
   * Reads and validates the chain that starts at descriptor `head`. Nothing is mapped yet but, for a
   * moment, an indirect table.
   *
   * @returns 0, or the status with which mapping the indirect table was refused or put off
   * @throws ProtocolViolation for a chain that the specification forbids
   */
  read(head: number): number {
    this.count = 0;
    this.readableCount = 0;
    this.byteLength = 0;
    return this.#walk(this.#table, this.#size, head, false);
  }

  #walk(table: DescriptorTable, entries: number, first: number, inIndirect: boolean): number {
    let index = first;
    for (let steps = 0; steps < entries; steps++) {
      if (index >= entries)
        throw new ProtocolViolation('§2.7.5', `descriptor ${index} of a table of ${entries}`);
      const low = table.addressLow(index);
      const high = table.addressHigh(index);
      const len = table.len(index);
      const flags = table.flags(index);
      const next = table.next(index);
      if (flags & VIRTQ_DESC_F_INDIRECT) return this.#followIndirect(low, high, len, flags, inIndirect);
      this.#append(low, high, len, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) return 0;
      index = next;
    }
    throw new ProtocolViolation('§2.7.5.2', `a chain that loops in a table of ${entries} descriptors`);
  }

  #append(low: number, high: number, len: number, writable: boolean): void {
    if (this.count === this.#longest)
      throw new ProtocolViolation('§2.7.5.3.1', `a chain of more than ${this.#longest} descriptors`);
    if (!writable && this.readableCount < this.count)
      throw new ProtocolViolation('§2.7.4.2', 'a device-readable descriptor after a device-writable one');
    this.byteLength += len;
    if (this.byteLength > MAX_CHAIN_BYTES)
      throw new ProtocolViolation('§2.7.5.2', 'a chain of more than 2^32 bytes');
    this.low[this.count] = low;
    this.high[this.count] = high;
    this.len[this.count] = len;
    this.count++;
    if (!writable) this.readableCount++;
  }

  #followIndirect(low: number, high: number, len: number, flags: number, nested: boolean): number {
    if (!this.#indirect)
      throw new ProtocolViolation(
        '§2.7.5.3.1',
        'an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated',
      );
    if (nested) throw new ProtocolViolation('§2.7.5.3.1', 'an indirect descriptor inside an indirect table');
    if (flags & VIRTQ_DESC_F_NEXT)
      throw new ProtocolViolation('§2.7.5.3.1', 'an indirect descriptor with VIRTQ_DESC_F_NEXT');
    if (len === 0 || len % VIRTQ_DESC_SIZE !== 0 || len > this.#longest * VIRTQ_DESC_SIZE)
      throw new ProtocolViolation(
        '§2.7.5.3.1',
        `an indirect table of ${len} bytes, expected 1 to ${this.#longest} descriptors of ${VIRTQ_DESC_SIZE}`,
      );
    const status = this.#tableAccess.map(low, high, len, false) || this.#tableAccess.ready();
    if (status !== 0) return status;
    this.#tableAccess.readable.copyTo(this.#copy, 0, len);
    this.#tableAccess.release(len, 0, 0);
    return this.#walk(this.#copyTable, len / VIRTQ_DESC_SIZE, 0, true);
  }
}
