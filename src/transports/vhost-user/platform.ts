// Ports of a vhost-user session: the machine that it runs on, and whoever runs the rings. So the protocol can be
// tested without a socket, a descriptor or a thread. Implemented over hosts/linux in serve/.

import type { Region } from '../../abi/region.ts';
import type { RegionTable } from '../../memory/region-table.ts';

/** A file of the frontend's mapped into this process. */
export interface MappedFile {
  readonly region: Region;
  /** After it, the region's memory is gone: nobody may look at it. */
  close(): void;
}

/** What a session asks of its machine. */
export interface VhostPlatform {
  /**
   * Maps `length` bytes of `fd` from `offset`.
   *
   * @throws an error whose message says why not: the file is shorter than that, or may shrink (case T5)
   */
  map(fd: number, offset: number, length: number): MappedFile;
  /** A file of `length` zeroed bytes that nobody can shrink, and its descriptor. */
  createFile(length: number): { readonly fd: number; readonly file: MappedFile };
  close(fd: number): void;
}

/** Everything that a ring needs to run. */
export interface RingSetup {
  readonly index: number;
  readonly size: number;
  /** The next entry of the available ring to take. */
  readonly base: number;
  /** Addresses of the three areas, as halves: the frontend's own, or the IOMMU's where it translates. */
  readonly addresses: RingAddresses;
  /** Descriptor to be woken by, -1 where the frontend says so in a message. */
  readonly kick: number;
}

/** Where a ring lies. */
export interface RingAddresses {
  readonly descriptorLow: number;
  readonly descriptorHigh: number;
  readonly availableLow: number;
  readonly availableHigh: number;
  readonly usedLow: number;
  readonly usedHigh: number;
}

/** Runs the rings of one session. */
export interface RingRunner {
  /** The driver's choice of features, before any ring starts. */
  setFeatures(features: bigint): void;
  /** The guest's memory from now on; no ring runs meanwhile, and none looks at what was before. */
  setMemory(memory: RegionTable): void;
  /** Throws ProtocolViolation when the ring cannot lie there. */
  start(ring: RingSetup): void;
  /** Ends a ring; nothing is written to the guest any more. Returns the next entry it would have taken. */
  stop(index: number): number;
  /** Descriptor by which the driver is interrupted, -1 for none. The runner does not close it. */
  setCall(index: number, fd: number): void;
  /** Looks at a ring because a message says so. */
  kick(index: number): void;
}
