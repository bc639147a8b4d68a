// Ports of a vhost-user session: the machine that it runs on, and whoever runs the rings. So the protocol can be
// tested without a socket, a descriptor or a thread.

import type { Region } from '../../abi/region.ts';
import type { ProtocolViolation } from '../../errors.ts';
import type { IotlbRight, Translation } from '../../memory/iotlb.ts';
import type { MemoryRegion } from '../../memory/region-table.ts';
import type { RingPlaces } from '../../virtqueue/ring-areas.ts';
import type { InflightArea } from './inflight-journal.ts';

/** A file of the frontend's mapped into this process. */
export interface MappedFile {
  readonly region: Region;
  /** After it, the region's memory is gone: nobody may look at it. */
  close(): void;
}

/** Memory of a Xen domain, which a descriptor of Xen's driver maps by frame numbers or grants. */
export interface XenMemory {
  readonly kind: 'foreign' | 'grant';
  readonly domainId: number;
  /** Guest-physical address of its first byte. */
  readonly guest: number;
}

/** What a session asks of its machine. */
export interface VhostPlatform {
  /**
   * Maps `length` bytes of `fd` from `offset`. The descriptor stays the caller's.
   *
   * @param xen what the memory is, where it is not a file
   * @throws an error whose message says why not: the file is shorter than that, or may shrink (case T5)
   */
  map(fd: number, offset: number, length: number, xen?: XenMemory): MappedFile;
  /** A file of `length` zeroed bytes that nobody can shrink; the descriptor is the caller's. */
  createFile(length: number): number;
  close(fd: number): void;
  /** Adds one to an eventfd of the frontend's; a descriptor that is none is the frontend's loss. */
  signal(fd: number): void;
  /** Sends bytes over a socket of the frontend's. Returns false when it does not take them: then they are lost. */
  send(fd: number, bytes: Uint8Array): boolean;
}

/** Memory of a Xen domain that is mapped piece by piece, when it is used: an address in it names a grant. */
export interface GrantedRegion {
  /** Addresses of its first byte, of which the guest's has bit 63 set: as halves, since they are no exact numbers. */
  readonly guestLow: number;
  readonly guestHigh: number;
  readonly userLow: number;
  readonly userHigh: number;
  /** Bytes. */
  readonly size: number;
  /** Who granted it. */
  readonly domainId: number;
}

/** What rings need of the guest's memory. */
export interface RingMemory {
  /** They do not overlap. */
  readonly regions: readonly MemoryRegion[];
  /** Where there is any, all addresses are of grants, and no region is mapped. */
  readonly granted?: readonly GrantedRegion[];
  /** Addresses in rings and of rings are the guest's IOMMU's; `translate` tells what they mean. */
  readonly translated: boolean;
  /** Whether the monitor answers each `miss`, with `translate` or with `refuse`; others may never do. */
  readonly missesAnswered?: boolean | undefined;
  /** Where written pages are marked, during a migration. */
  readonly log: Region | undefined;
}

/** Everything that a ring needs to run. */
export interface RingSetup {
  readonly index: number;
  readonly size: number;
  /** The next entry of the available ring to take. */
  readonly base: number;
  /** Addresses of the three areas: the frontend's own, or the IOMMU's where it translates. */
  readonly places: RingPlaces;
  /** Guest-physical address of the used ring, if writes to it are to be logged. */
  readonly logAddress: number | undefined;
  /** Where to keep what is under way. */
  readonly inflight: InflightArea | undefined;
  /** Descriptor to be woken by, -1 where the frontend says so in a message. */
  readonly kick: number;
}

/** Runs the rings of one session, in this thread or in others. Everything here is plain data, so that it can be sent. */
export interface RingRunner {
  /** The driver's choice of features; no ring runs meanwhile. */
  setFeatures(features: bigint): void;
  /** The guest's memory from now on; no ring runs meanwhile, and none looks at what was before. */
  setMemory(memory: RingMemory): void;
  /** Takes a translation of the guest's IOMMU; the rings that wait for it are then kicked or started. */
  translate(entry: Translation): void;
  /** The IOMMU has no translation of an address that was missed; the rings that wait for it are then kicked. */
  refuse(iova: number): void;
  /** Forgets translations of [iova, iova + size); no ring runs. */
  invalidate(iova: number, size: number): void;
  /**
   * Runs a ring.
   *
   * @returns false when the IOMMU's translation of the ring is not known yet: to be tried again
   * @throws ProtocolViolation when the ring cannot lie there
   */
  start(ring: RingSetup): boolean;
  /** Ends a ring; nothing is written to the guest any more. Returns the entry from which to go on. */
  stop(index: number): number;
  /** Descriptor by which the driver is interrupted, -1 for none. The runner does not close it. */
  setCall(index: number, fd: number): void;
  /** Looks at a ring: a message says so, or a translation has come. */
  kick(index: number): void;
  /** The device forgets everything; no ring runs. */
  reset(): void;
}

/** What a runner tells its session, never within one of the session's own calls to it but `kick`. */
export interface RingEvents {
  /** The driver of a ring without a call descriptor wants to be interrupted. */
  interrupt(index: number): void;
  /** The driver broke a rule: the ring has stopped. */
  failed(index: number, violation: ProtocolViolation): void;
  /** The translation of an address of the guest's IOMMU is needed, with that right. */
  miss(iova: number, right: IotlbRight): void;
  /** The device's configuration space has changed: what it is now. */
  configChanged(config: Uint8Array): void;
}
