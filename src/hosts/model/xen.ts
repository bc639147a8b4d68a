// The embedded Xen as one thread sees it: create domains, and get the ports of those that run here.

import { VIRQ_DOM_EXC } from '../../abi/event-channel.ts';
import { type Region, regionOver } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { GuestMemory, type GuestPageSize } from '../../dma/guest-memory.ts';
import { noTrace, type Tracer } from '../../trace.ts';
import type { BackendHost } from '../../xen/backend-host.ts';
import type { DomainId, FrameNumber } from '../../xen/ids.ts';
import { AddressSpace } from './address-space.ts';
import { DomainGrantCopier } from './domain-grant-copier.ts';
import { DomainGrantMapper } from './domain-grant-mapper.ts';
import { DomainGrantTable } from './domain-grant-table.ts';
import { restoreDomain, saveDomain } from './domain-image.ts';
import type { DomainOptions } from './domain-options.ts';
import type { DomainRecord } from './domain-record.ts';
import { Domains } from './domains.ts';
import { DomainEvents } from './events/domain-events.ts';
import { EventOps } from './events/event-ops.ts';
import { eventChannelOp } from './events/hypercall.ts';
import { GrantCopying } from './grants/copying.ts';
import { grantTableOp } from './grants/hypercall.ts';
import { GrantMapping } from './grants/mapping.ts';
import { SharedEntries } from './grants/shared-entry.ts';
import { mapForeignMemory } from './foreign-memory.ts';
import { releaseForeign } from './foreign-pages.ts';
import { GuestCopy } from './guest-copy.ts';
import { DeviceModels } from './ioreq/device-model.ts';
import { GuestIo } from './ioreq/guest-io.ts';
import { dmOp, type DmOpBuffer } from './ioreq/hypercall.ts';
import { hvmOp } from './ioreq/hvm-params.ts';
import { DomainInterrupts, Interrupts } from './ioreq/interrupts.ts';
import { MachinePage } from './ioreq/machine-page.ts';
import { IoreqServers } from './ioreq/servers.ts';
import { memoryOp } from './memory-op.ts';
import { createXenState, Machine, type XenState } from './state.ts';
import { destroyDomain } from './teardown.ts';
import { parkWhilePaused, type WaitWhile } from './waiting.ts';

/** The hypervisor, for the domains whose processor this thread is. */
export class Xen {
  readonly state: XenState;
  readonly grants: GrantMapping;
  readonly copies: GrantCopying;
  readonly events: EventOps;
  readonly domains: Domains;
  readonly servers: IoreqServers;
  readonly interrupts: Interrupts;
  readonly #machine: Machine;

  constructor(state: XenState) {
    this.state = state;
    this.#machine = new Machine(state);
    this.domains = new Domains(this.#machine);
    const shared = new SharedEntries(this.#machine);
    this.grants = new GrantMapping(this.#machine, this.domains, shared);
    this.copies = new GrantCopying(this.#machine, this.domains, shared);
    this.events = new EventOps(this.#machine, this.domains);
    this.domains.onChange = () => this.events.raiseGlobalVirq(VIRQ_DOM_EXC);
    this.servers = new IoreqServers(this.#machine, this.domains, this.events);
    this.interrupts = new Interrupts(this.#machine, this.events);
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
    return this.domains.create(id, options);
  }

  /** Takes a domain apart, one slice a step; see teardown.ts. Its threads must have been stopped. */
  destroyDomain(id: number): Generator<void> {
    const releases = [
      (domain: DomainRecord) => this.servers.release(domain),
      (domain: DomainRecord) => releaseForeign(this.#machine, this.domains, domain),
      (domain: DomainRecord) => this.events.release(domain),
    ];
    return this.#destroyed(destroyDomain(this.#machine, this.grants, releases, this.domain(id)));
  }

  /** Tells the toolstack that a domain has gone, when it has. */
  *#destroyed(steps: Generator<void>): Generator<void> {
    yield* steps;
    this.domains.onChange();
  }

  /** Lets one domain serve devices of another; a toolstack's decision. */
  nameDeviceModel(guest: number, model: number): void {
    new MachinePage(this.#machine, this.domain(guest)).setModel(this.domain(model).id, true);
  }

  /** The image of a domain that has suspended itself, in pieces; see domain-image.ts. */
  saveDomain(id: number): Generator<Uint8Array> {
    return saveDomain(this.#machine, this.domain(id));
  }

  /** Makes a domain out of an image, paused. Throws DomainImageError or RangeError, and then there is none. */
  restoreDomain(id: number, pieces: Iterable<Uint8Array>): DomainRecord {
    const destroy = (domain: DomainRecord) => {
      for (const _ of this.destroyDomain(domain.id));
    };
    return restoreDomain(this.#machine, this.domains, id, pieces, destroy);
  }

  /** Frames of memory and pages of Xen's heap that nobody has. */
  get free(): { readonly frames: number; readonly heapPages: number } {
    return { frames: this.#machine.frames.free, heapPages: this.#machine.pagesFree };
  }

  /** The record of a domain, for hypercalls on its behalf. Throws RangeError when there is none. */
  domain(id: number): DomainRecord {
    const record = this.domains.find(id);
    if (record === undefined) throw new RangeError(`there is no domain ${id}`);
    return record;
  }

  /**
   * Everything that code running on a processor of domain `id` may use.
   *
   * @param waitWhile how the thread that is the processor waits for other domains
   * @param pageSize of its kernel's allocator, 4096 unless given: Xen itself knows of no other
   */
  ports(
    id: DomainId,
    waitWhile: WaitWhile,
    tracer: Tracer = noTrace,
    vcpu = 0,
    pageSize?: GuestPageSize,
  ): DomainPorts {
    const record = this.domain(id);
    const memory = regionOver(
      this.state.memory,
      record.ramFrame * XEN_PAGE_SIZE,
      record.ramFrames * XEN_PAGE_SIZE,
    );
    const ownMemory = new GuestMemory(memory, record.map.ram * XEN_PAGE_SIZE, pageSize);
    const addressSpace = new AddressSpace(this.#machine, record);
    const events = new DomainEvents(this.#machine, this.events, record);
    const common = { machine: this.#machine, domains: this.domains, servers: this.servers };
    const caller = {
      ...common,
      events: this.events,
      interrupts: this.interrupts,
      mapping: this.grants,
      copying: this.copies,
      domain: record,
      memory: new GuestCopy(addressSpace),
      vcpu,
      pause: () => undefined,
    };
    const models = new DeviceModels({ ...common, eventOps: this.events, events, emulator: record });
    return {
      id,
      tracer,
      park: () => parkWhilePaused(this.#machine.heap, record.pausedWord, record.parkedWord),
      memory: ownMemory,
      storePage: regionOver(this.state.memory, record.xenstoreFrame * XEN_PAGE_SIZE, XEN_PAGE_SIZE),
      storeFrame: record.map.xenstore as FrameNumber,
      addressSpace,
      grantTable: new DomainGrantTable(this.#machine, record),
      grantTableOp: (command, address, count) => grantTableOp(caller, command, address, count),
      grantMapper: new DomainGrantMapper(this.#machine, this.grants, record, tracer),
      grantCopier: new DomainGrantCopier(this.copies, record, ownMemory, tracer),
      memoryOp: (command, address) => memoryOp(caller, command, address),
      hvmOp: (command, address) => hvmOp(caller, command, address),
      dmOp: (guest, buffers) => dmOp(caller, guest, buffers),
      events,
      eventChannelOp: (command, address) => eventChannelOp(caller, command, address),
      interrupts: new DomainInterrupts(this.#machine, record, vcpu),
      mmio: new GuestIo({
        ...common,
        events: this.events,
        guest: record,
        vcpu,
        memory: caller.memory,
        waitWhile,
      }),
      serveMmio: (guest, base, size, handler, onDoorbell) =>
        models.serve(this.domain(guest), base, size, handler, onDoorbell),
      mapForeignMemory: (guest) =>
        mapForeignMemory({ ...common, mapper: record, tracer }, this.domain(guest)),
    };
  }
}

/** What a domain has; what a backend needs of it is xen/backend-host.ts's. */
export interface DomainPorts extends BackendHost {
  readonly memory: GuestMemory;
  /** The page through which it talks to xenstore, and where that is among its frames. */
  readonly storePage: Region;
  readonly storeFrame: FrameNumber;
  readonly addressSpace: AddressSpace;
  readonly grantTable: DomainGrantTable;
  readonly grantMapper: DomainGrantMapper;
  readonly grantCopier: DomainGrantCopier;
  /** The grant table hypercall as a kernel makes it: a GNTTABOP_, where its arguments are, and how many. */
  grantTableOp(command: number, address: number, count: number): number;
  /** The same for memory_op: an XENMEM_ command, and where its argument is. */
  memoryOp(command: number, address: number): number;
  /** The same for hvm_op. */
  hvmOp(command: number, address: number): number;
  /** The same for dm_op: the domain that it is about, and where its buffers are. */
  dmOp(guest: number, buffers: readonly DmOpBuffer[]): number;
  readonly events: DomainEvents;
  /** The event channel hypercall as a kernel makes it: an EVTCHNOP_, and where its argument is. */
  eventChannelOp(command: number, address: number): number;
  readonly interrupts: DomainInterrupts;
  readonly mmio: GuestIo;
}
