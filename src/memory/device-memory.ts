// Port: how a backend reaches the guest's memory that descriptors point at. Implemented by grant-memory.ts
// (mapped grants), grant-copy-memory.ts (copies from and to grants), plain-memory.ts and region-table.ts (all of the
// guest's memory) and iotlb-memory.ts (what the guest's IOMMU maps); used by virtqueue/device-queue.ts.

import type { Region } from '../abi/region.ts';
import type { Segments } from './segments.ts';

/** Status of `map`: the platform does not know the address yet, and has been asked. Nothing is mapped; try again later. */
export const MAPPING_PENDING = 1;

/** The buffers of one chain within the device's reach. Objects are made once and reused. */
export interface ChainAccess {
  /** What the device may read, in order. */
  readonly readable: Segments;
  /** What the device may write, in order. */
  readonly writable: Segments;
  /**
   * Makes a descriptor's buffer reachable and appends it to `readable` or `writable`, which hold it from `ready` on.
   *
   * @returns 0, MAPPING_PENDING, or a negative status when the platform refuses the address: nothing of it is mapped
   *   then
   * @throws ProtocolViolation for an address that no correct driver sends
   */
  map(low: number, high: number, length: number, writable: boolean): number;
  /**
   * All buffers of the chain are mapped: what the driver sent is there from now on.
   *
   * @returns 0, or a negative status when the platform refuses one of them: nothing is mapped then
   */
  ready(): number;
  /**
   * Lets go of everything that was mapped, before the chain is reported complete; the segments are gone.
   *
   * @param bytesRead how much from the start of `readable` the device looked at
   * @param bytesWritten how much from the start of `writable` it wrote
   * @param bytesAtEnd how much it wrote at the very end of `writable`, whatever lies between
   * @returns 0, or a negative status when the platform refuses to take what was written: not all of it arrived
   */
  release(bytesRead: number, bytesWritten: number, bytesAtEnd: number): number;
}

/** A ring area that stays mapped while its queue is enabled: contiguous, so that it can be indexed. */
export interface MappedRing {
  readonly region: Region;
  /** Where the area starts in `region`. */
  readonly offset: number;
  release(): void;
}

/** A guest's memory, as far as this device may reach it. */
export interface DeviceMemory {
  newChainAccess(): ChainAccess;
  /**
   * Maps a ring area of `length` bytes.
   *
   * @throws ProtocolViolation when the address is impossible, refused, or its pages are not contiguous
   */
  mapRing(low: number, high: number, length: number): MappedRing;
}
