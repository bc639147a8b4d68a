// A device that reaches of a guest's memory what the guest's IOMMU maps, and no more: addresses are the guest's I/O
// addresses. A buffer that has no translation yet leaves its chain for later (MAPPING_PENDING).
// Next to region-table.ts, which holds the memory; used by transports/vhost-user/.

import { formatAddress } from '../abi/grant-address.ts';
import { ProtocolViolation } from '../errors.ts';
import { type ChainAccess, type DeviceMemory, MAPPING_PENDING, type MappedRing } from './device-memory.ts';
import type { Iotlb, IotlbRight } from './iotlb.ts';
import type { RegionTable } from './region-table.ts';
import { ResidentAccess } from './resident-access.ts';
import { Segments } from './segments.ts';

const HIGH = 2 ** 32;
const READ = 1;
const WRITE = 2;
/** The IOMMU has the address without the right that is needed (EACCES). */
const NO_RIGHT = -13;
/** Status of `reach`: the IOMMU has no such address (EFAULT). */
export const NO_TRANSLATION = -14;

class TranslatedAccess extends ResidentAccess {
  readonly #memory: IotlbMemory;

  constructor(memory: IotlbMemory) {
    super();
    this.#memory = memory;
  }

  map(low: number, high: number, length: number, writable: boolean): number {
    // First all of it is looked up: what is refused half way must not be mapped.
    const status = this.#memory.reach(low, high, length, writable ? WRITE : READ);
    if (status !== 0) return status;
    this.#memory.collect(high * HIGH + low, length, writable ? this.writable : this.readable);
    return 0;
  }
}

/** A guest's memory behind its IOMMU. */
export class IotlbMemory implements DeviceMemory {
  readonly #table: RegionTable;
  readonly #iotlb: Iotlb;

  constructor(table: RegionTable, iotlb: Iotlb) {
    this.#table = table;
    this.#iotlb = iotlb;
  }

  newChainAccess(): ChainAccess {
    return new TranslatedAccess(this);
  }

  /** A ring, which must have been found by `reach` before. Throws ProtocolViolation when it is in several pieces. */
  mapRing(low: number, high: number, length: number): MappedRing {
    const pieces = new Segments();
    if (this.reach(low, high, length, READ) === 0) this.collect(high * HIGH + low, length, pieces);
    if (pieces.count !== 1)
      throw new ProtocolViolation(
        '§2.7',
        `ring ${formatAddress(low, high)}, ${length} bytes: in ${pieces.count} pieces, expected 1`,
      );
    return { region: pieces.regions[0], offset: pieces.offsets[0], release: () => undefined };
  }

  /**
   * Whether all of [address, address + length) may be used so; what is missing is asked for.
   *
   * @returns 0, MAPPING_PENDING, or a negative status when the IOMMU forbids it
   */
  reach(low: number, high: number, length: number, right: IotlbRight): number {
    const address = high * HIGH + low;
    if (address + length > Number.MAX_SAFE_INTEGER)
      throw new ProtocolViolation('§2.7.5', `buffer ${formatAddress(low, high)}, ${length} bytes: too high`);
    for (let at = address; at < address + length; ) {
      const entry = this.#iotlb.at(at);
      if (entry === undefined) return this.#iotlb.miss(at, right) ? MAPPING_PENDING : NO_TRANSLATION;
      if ((entry.right & right) !== right) return NO_RIGHT;
      at = entry.iova + entry.size;
    }
    return 0;
  }

  /** Appends [address, address + length), which `reach` has found, to `segments`. */
  collect(address: number, length: number, segments: Segments): void {
    for (let at = address, left = length; left > 0; ) {
      const entry = this.#iotlb.at(at)!;
      const piece = Math.min(left, entry.iova + entry.size - at);
      this.#table.collectUser(entry.user + (at - entry.iova), piece, segments);
      at += piece;
      left -= piece;
    }
  }
}
