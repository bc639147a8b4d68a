// Port: how a backend reaches the guest's memory that descriptors point at. Implemented by grant-memory.ts
// (mapped grants) and plain-memory.ts (all of the guest's memory); used by virtqueue/device-queue.ts.

import type { Region } from '../abi/region.ts';
import type { Segments } from './segments.ts';

/** The mapped buffers of one chain. Objects are made once and reused. */
export interface ChainAccess {
  /** What the device may read, in order. */
  readonly readable: Segments;
  /** What the device may write, in order. */
  readonly writable: Segments;
  /**
   * Makes a descriptor's buffer reachable and appends it to `readable` or `writable`.
   *
   * @returns 0, or a negative status when the platform refuses the address: nothing of it is mapped then
   * @throws ProtocolViolation for an address that no correct driver sends
   */
  map(low: number, high: number, length: number, writable: boolean): number;
  /**
   * Lets go of everything that was mapped, before the chain is reported complete; the segments are gone.
   *
   * @param bytesRead how much from the start of `readable` the device looked at, for the trace
   * @param bytesWritten how much from the start of `writable` it wrote
   */
  release(bytesRead: number, bytesWritten: number): void;
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
