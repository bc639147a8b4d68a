// The embedded Xen as one thread sees it: create domains, and get the ports of those that run here.

import { regionOver } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { GuestMemory } from '../../dma/guest-memory.ts';
import { noTrace, type Tracer } from '../../trace.ts';
import type { DomainId } from '../../xen/ids.ts';
import { AddressSpace } from './address-space.ts';
import { DomainEvents } from './domain-events.ts';
import { DomainGrantMapper } from './domain-grant-mapper.ts';
import { DomainGrantTable } from './domain-grant-table.ts';
import { type DomainOptions, type DomainRecord, Domains } from './domains.ts';
import { EventOps } from './event-ops.ts';
import { GrantOps } from './grant-ops.ts';
import { GuestMmio, MmioServer } from './mmio.ts';
import { createXenState, Machine, type XenState } from './state.ts';
import type { WaitWhile } from './waiting.ts';

/** The hypervisor, for the domains whose processor this thread is. */
export class Xen {
  readonly state: XenState;
  readonly grants: GrantOps;
  readonly events: EventOps;
  readonly #machine: Machine;
  readonly #domains: Domains;

  constructor(state: XenState) {
    this.state = state;
    this.#machine = new Machine(state);
    this.#domains = new Domains(this.#machine);
    this.grants = new GrantOps(this.#machine, this.#domains);
    this.events = new EventOps(this.#machine, this.#domains);
  }

  /**
   * Switches a machine on.
   *
   * @param memory bytes for the domains; @param heap bytes for Xen's tables
   * @param shared whether its domains may run on several threads
   */
  static boot(memory: number, heap: number, shared: boolean): Xen {
    return new Xen(createXenState(memory, heap, shared));
  }

  createDomain(id: number, options: DomainOptions): DomainRecord {
    return this.#domains.create(id, options);
  }

  /** The record of a domain, for hypercalls on its behalf. Throws RangeError when there is none. */
  domain(id: number): DomainRecord {
    const record = this.#domains.find(id);
    if (record === undefined) throw new RangeError(`there is no domain ${id}`);
    return record;
  }

  /** Everything that code running in domain `id` may use. A domain runs on one thread. */
  ports(id: DomainId, waitWhile: WaitWhile, tracer: Tracer = noTrace): DomainPorts {
    const record = this.domain(id);
    const memory = regionOver(
      this.state.memory,
      record.ramFrame * XEN_PAGE_SIZE,
      record.ramFrames * XEN_PAGE_SIZE,
    );
    return {
      id,
      tracer,
      memory: new GuestMemory(memory),
      addressSpace: new AddressSpace(this.#machine, record),
      grantTable: new DomainGrantTable(this.#machine, this.#domains, record),
      grantMapper: new DomainGrantMapper(this.#machine, this.grants, record, tracer),
      events: new DomainEvents(this.#machine, this.events, record),
      mmio: new GuestMmio(this.#machine, this.#domains, this.events, record, waitWhile),
      serveMmio: (guest, base, size) =>
        MmioServer.create(this.#machine, this.#domains, this.events, record, this.domain(guest), base, size),
    };
  }
}

/** What a domain has. */
export interface DomainPorts {
  readonly id: DomainId;
  readonly tracer: Tracer;
  readonly memory: GuestMemory;
  readonly addressSpace: AddressSpace;
  readonly grantTable: DomainGrantTable;
  readonly grantMapper: DomainGrantMapper;
  readonly events: DomainEvents;
  readonly mmio: GuestMmio;
  /** Makes this domain the device model of `size` bytes from `base` in the address space of `guest`. */
  serveMmio(guest: DomainId, base: number, size: number): MmioServer;
}
