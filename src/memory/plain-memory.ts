// A device that may reach all of the guest's memory: virtio without restricted memory access. Addresses are
// guest-physical; those outside the memory, and those that wrap, are refused.

import { formatAddress } from '../abi/grant-address.ts';
import type { Region } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import type { ChainAccess, DeviceMemory, MappedRing } from './device-memory.ts';
import { ResidentAccess } from './resident-access.ts';

const HIGH = 0x1_0000_0000;

class PlainChainAccess extends ResidentAccess {
  readonly #memory: PlainMemory;

  constructor(memory: PlainMemory) {
    super();
    this.#memory = memory;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    const offset = this.#memory.offsetOf(low, high, length);
    (writable ? this.writable : this.readable).push(this.#memory.region, offset, length);
    return 0;
  }
}

/** The whole of one region. */
export class PlainMemory implements DeviceMemory {
  readonly region: Region;
  readonly #base: number;

  /** @param base guest-physical address at which the region begins */
  constructor(region: Region, base = 0) {
    this.region = region;
    this.#base = base;
  }

  newChainAccess(): ChainAccess {
    return new PlainChainAccess(this);
  }

  mapRing(low: number, high: number, length: number): MappedRing {
    return { region: this.region, offset: this.offsetOf(low, high, length), release: () => undefined };
  }

  /** Byte offset in the region. Throws ProtocolViolation when [address, address + length) is not inside. */
  offsetOf(low: number, high: number, length: number): number {
    const offset = high * HIGH + low - this.#base;
    if (offset < 0 || offset + length > this.region.byteLength) {
      const where = `${formatAddress(low, high)}, ${length} bytes`;
      throw new ProtocolViolation(
        '§2.7.5',
        `buffer ${where}: outside the guest's ${this.region.byteLength} bytes from 0x${this.#base.toString(16)}`,
      );
    }
    return offset;
  }
}
