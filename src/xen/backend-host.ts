// Port: what a domain that serves devices needs of the Xen under it. Used by machine/backend-domain.ts; the embedded
// Xen implements it for each of its domains, hosts/linux/xen for the domain in which this program runs.

import type { Region } from '../abi/region.ts';
import type { Tracer } from '../trace.ts';
import type { GrantCopier } from './grant-copier.ts';
import type { GrantMapper } from './grant-mapper.ts';
import type { DomainId } from './ids.ts';
import type { MmioHandler } from './mmio.ts';

/** The registers of one device, as long as they are in the guest's address space. */
export interface MmioServer {
  /** Takes the queues 0-31 (`high` false) or 32-63 that were notified since the last call, one bit each. */
  takeDoorbell(high: boolean): number;
  /** Sets bits of InterruptStatus and interrupts the guest. */
  interrupt(bits: number): void;
  /** Clears InterruptStatus: the device was reset. */
  clearInterrupts(): void;
  /** Takes the registers away; the guest then reads all ones there, and so does an access that waits now. */
  close(): void;
}

/** A guest's memory as its device model sees it. */
export interface ForeignMemory {
  readonly region: Region;
  /** Guest-physical address of the region's first byte. */
  readonly base: number;
  /** Lets go of every page. */
  close(): void;
}

/** The Xen under a backend. */
export interface BackendHost {
  readonly id: DomainId;
  readonly tracer: Tracer;
  readonly grantMapper: GrantMapper;
  readonly grantCopier: GrantCopier;
  readonly events: {
    /** Handles the events that are pending now: accesses to registers above all. Returns whether there were any. */
    poll(): boolean;
  };
  /** Stops this thread while the domain is paused, where the hypervisor does not do that itself. */
  park(): void;
  /**
   * Makes this domain the device model of `size` bytes from `base` in the address space of `guest`.
   *
   * @param onDoorbell called when queues of the device were notified
   * @param irq line that `interrupt` raises; the embedded Xen, whose windows have an event channel, needs none
   * @throws RangeError when that is refused
   */
  serveMmio(
    guest: DomainId,
    base: number,
    size: number,
    handler: MmioHandler,
    onDoorbell: () => void,
    irq?: number,
  ): MmioServer;
  /**
   * Maps all of the memory of `guest`, whose device model this domain has to be: access without grants.
   *
   * @throws RangeError when that is refused
   */
  mapForeignMemory(guest: DomainId): ForeignMemory;
}
