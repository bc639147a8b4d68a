// Event channel operations as Xen carries them out (common/event_channel.c). What a port is bound to changes only under
// the event lock, so that both ends change together; sending takes no lock. After hypercall.ts; before ports.ts,
// closing.ts and delivery.ts.

import {
  EVTCHN_FIFO_PRIORITY_MIN,
  EVTCHNSTAT_CLOSED,
  EVTCHNSTAT_INTERDOMAIN,
  EVTCHNSTAT_IPI,
  EVTCHNSTAT_UNBOUND,
  EVTCHNSTAT_VIRQ,
} from '../../../abi/event-channel.ts';
import { DOMID_SELF } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EACCES, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } from '../errno.ts';
import { withLock } from '../lock.ts';
import type { Machine } from '../state.ts';
import {
  Channels,
  CONSUMER_XEN,
  forVirq,
  isUsable,
  joinedPort,
  joinedRemote,
  joinedTo,
  PORT_INTERDOMAIN,
  PORT_IPI,
  PORT_PRIORITY,
  PORT_UNBOUND,
  PORT_VCPU,
  PORT_VIRQ,
  stateOf,
  unboundFor,
  unboundRemote,
  virqOf,
} from './channels.ts';
import { Closing } from './closing.ts';
import { Delivery } from './delivery.ts';
import { FifoSetup } from './fifo-setup.ts';
import { Ports } from './ports.ts';
import { HARDWARE_DOMAIN, isPerProcessor, refuseVirq } from './virqs.ts';

/** Interrupt lines that a machine has; no guest may use one. */
const PIRQS = 64;

/** What EVTCHNOP_status answers. */
export interface PortStatus {
  /** EVTCHNSTAT_ */
  readonly status: number;
  readonly vcpu: number;
  /** The other domain, or the number of the virtual interrupt; 0 where the status has neither. */
  readonly remote: number;
  /** The other domain's port, of an interdomain channel. */
  readonly remotePort: number;
}

/** Event channel hypercalls as one thread makes them. Failures are negative errno values. */
export class EventOps {
  readonly #domains: Domains;
  readonly #channels: Channels;
  readonly #delivery: Delivery;
  readonly #ports: Ports;
  readonly #closing: Closing;
  readonly #fifo: FifoSetup;
  readonly #heap: Int32Array;
  readonly #lockWord: number;

  constructor(machine: Machine, domains: Domains) {
    this.#domains = domains;
    this.#channels = new Channels(machine);
    this.#delivery = new Delivery(machine, domains, this.#channels);
    this.#ports = new Ports(this.#channels, this.#delivery);
    this.#closing = new Closing(machine, domains, this.#channels, this.#delivery, this.#ports);
    this.#fifo = new FifoSetup(machine, this.#channels, this.#delivery);
    this.#heap = machine.heap;
    this.#lockWord = machine.eventLockWord;
  }

  /**
   * EVTCHNOP_alloc_unbound: a port of `domain` that `remote` may bind. Port 0 is never given out.
   *
   * @param remote any number of 16 bits; DOMID_SELF is the caller
   * @param caller who asks; for a domain other than itself it must be privileged
   */
  allocateUnbound(domain: DomainRecord, remote: number, caller: DomainRecord = domain): number {
    return this.#locked(() => {
      const port = this.#ports.find(domain);
      if (port < 0) return port;
      if (!mayActOn(caller, domain)) return EPERM;
      return this.#ports.open(domain, port, unboundFor(remote === DOMID_SELF ? caller.id : remote));
    });
  }

  /** EVTCHNOP_bind_interdomain: joins a new port of `domain` to an unbound one of `remoteId` that is for it. */
  bindInterdomain(domain: DomainRecord, remoteId: number, remotePort: number): number {
    const remote = this.#domains.findFor(domain, remoteId);
    if (remote === undefined) return ESRCH;
    const port = this.#locked(() => {
      const near = this.#ports.find(domain);
      if (near < 0) return near;
      const far = this.#channels.binding(remote, remotePort);
      if (stateOf(far) !== PORT_UNBOUND || unboundRemote(far) !== domain.id) return EINVAL;
      const opened = this.#ports.open(domain, near, joinedTo(remote.id, remotePort));
      if (opened > 0)
        this.#channels.bind(remote, remotePort, joinedTo(domain.id, near) | (far & CONSUMER_XEN));
      return opened;
    });
    // Events may have been sent before the far end knew where to: let the binder look once.
    if (port > 0) this.raise(domain, port);
    return port;
  }

  /** EVTCHNOP_bind_virq: a port for a virtual interrupt. Those of the whole machine are domain 0's. */
  bindVirq(domain: DomainRecord, virq: number, vcpu: number): number {
    return this.#locked(() => {
      const refusal = refuseVirq(this.#channels, domain, virq, vcpu);
      if (refusal < 0) return refusal;
      const found = this.#ports.find(domain);
      const port = found < 0 ? found : this.#ports.open(domain, found, forVirq(virq), vcpu);
      if (port > 0) Atomics.store(this.#heap, this.#channels.virqWord(domain, vcpu, virq), port);
      return port;
    });
  }

  /** EVTCHNOP_bind_pirq: no guest here has a physical interrupt. */
  bindPirq(domain: DomainRecord, pirq: number): number {
    if (domain.architecture === 'arm') return EOPNOTSUPP;
    return pirq < PIRQS && !domain.translated ? EPERM : EINVAL;
  }

  /** EVTCHNOP_bind_ipi: a port by which the domain tells its own processor something. */
  bindIpi(domain: DomainRecord, vcpu: number): number {
    if (!hasProcessor(domain, vcpu)) return ENOENT;
    return this.#locked(() => {
      const port = this.#ports.find(domain);
      return port < 0 ? port : this.#ports.open(domain, port, PORT_IPI, vcpu);
    });
  }

  /** EVTCHNOP_close: frees a port; the far end becomes unbound again. */
  close(domain: DomainRecord, port: number): number {
    return this.#closing.close(domain, port, true);
  }

  /** EVTCHNOP_send, for the domain that this thread runs. To an unbound port it succeeds and does nothing, as in Xen. */
  send(domain: DomainRecord, port: number): number {
    return this.#delivery.send(domain, port);
  }

  /** EVTCHNOP_status of a port of `domain`. */
  status(domain: DomainRecord, port: number, caller: DomainRecord = domain): PortStatus | number {
    return this.#locked(() => {
      if (!this.#channels.isValid(domain, port)) return EINVAL;
      if (!mayActOn(caller, domain)) return EPERM;
      const vcpu = this.#heap[this.#channels.entry(domain, port) + PORT_VCPU];
      return { vcpu, ...statusOf(this.#channels.binding(domain, port)) };
    });
  }

  /** EVTCHNOP_bind_vcpu: has later events of a port delivered to another processor. */
  bindVcpu(domain: DomainRecord, port: number, vcpu: number): number {
    if (!hasProcessor(domain, vcpu)) return ENOENT;
    return this.#locked(() => {
      const binding = this.#channels.binding(domain, port);
      if (!isMovable(binding)) return EINVAL;
      this.#heap[this.#channels.entry(domain, port) + PORT_VCPU] = vcpu;
      return 0;
    });
  }

  /** EVTCHNOP_unmask: of a port that is not in use it succeeds and does nothing, as in Xen. */
  unmask(domain: DomainRecord, port: number): number {
    if (!this.#channels.isValid(domain, port)) return EINVAL;
    this.#delivery.unmask(domain, port);
    return 0;
  }

  /**
   * EVTCHNOP_reset: closes all ports of `domain` and goes back to the 2-level ABI.
   *
   * @param caller who asks; for a domain other than itself it must be privileged, and that domain be paused
   * @param resuming see Closing.reset
   * @param pause called from time to time: others may run
   */
  reset(
    domain: DomainRecord,
    caller: DomainRecord = domain,
    resuming = false,
    pause: () => void = () => undefined,
  ): number {
    if (!mayActOn(caller, domain)) return EPERM;
    if (caller.id !== domain.id && domain.pauseCount === 0) return EINVAL;
    return this.#closing.reset(domain, resuming, pause);
  }

  /** EVTCHNOP_init_control: gives a processor a control block of the FIFO ABI, in a page of the domain's memory. */
  initControl(domain: DomainRecord, vcpu: number, gfn: number, offset: number): number {
    return this.#locked(() => this.#fifo.initControl(domain, vcpu, gfn, offset));
  }

  /** EVTCHNOP_expand_array: adds a page of the domain's memory to its array of event words. */
  expandArray(domain: DomainRecord, gfn: number): number {
    return this.#locked(() => this.#fifo.expandArray(domain, gfn));
  }

  /** EVTCHNOP_set_priority: 0 to 15, for later events of a port. */
  setPriority(domain: DomainRecord, port: number, priority: number): number {
    return this.#locked(() => {
      if (!this.#channels.isValid(domain, port)) return EINVAL;
      if (!this.#channels.usesFifo(domain)) return ENOSYS;
      if (!isUsable(this.#channels.binding(domain, port))) return EACCES;
      if (!(priority >= 0 && priority <= EVTCHN_FIFO_PRIORITY_MIN)) return EINVAL;
      Atomics.store(this.#heap, this.#channels.entry(domain, port) + PORT_PRIORITY, priority);
      return 0;
    });
  }

  /** What SCHEDOP_poll asks of each of its ports: 1 if it is pending, 0 if not. */
  poll(domain: DomainRecord, port: number): number {
    if (!isUsable(this.#channels.binding(domain, port))) return EINVAL;
    return this.#delivery.isPending(domain, port) ? 1 : 0;
  }

  /**
   * A port of `domain` whose events are for Xen, and which `remote` may bind (alloc_unbound_xen_event_channel). An
   * event from the other end ends a sleep of the domain.
   */
  allocateForXen(domain: DomainRecord, remote: number, vcpu: number): number {
    return this.#locked(() => {
      const port = this.#ports.find(domain);
      return port < 0 ? port : this.#ports.open(domain, port, unboundFor(remote) | CONSUMER_XEN, vcpu);
    });
  }

  /** Sends from such a port; while nobody has bound it, nothing happens. */
  sendFromXen(domain: DomainRecord, port: number): void {
    this.#delivery.sendFromXen(domain, port);
  }

  /** Closes such a port. */
  closeForXen(domain: DomainRecord, port: number): number {
    return this.#closing.close(domain, port, false);
  }

  /** Makes a port pending and wakes its domain, as Xen does for its own events too. */
  raise(domain: DomainRecord, port: number): void {
    this.#delivery.raise(domain, port);
  }

  /** Raises a virtual interrupt of a processor, or of the domain (then `vcpu` is 0); nothing where it is not bound. */
  raiseVirq(domain: DomainRecord, virq: number, vcpu = 0): void {
    this.#delivery.raiseVirq(domain, virq, vcpu);
  }

  /** Raises one that concerns the whole machine. */
  raiseGlobalVirq(virq: number): void {
    const holder = this.#domains.find(HARDWARE_DOMAIN);
    if (holder) this.#delivery.raiseVirq(holder, virq, 0);
  }

  /** Ends the sleep of a domain's thread, or keeps it from falling asleep. */
  wake(domain: DomainRecord): void {
    this.#delivery.wake(domain);
  }

  /** Closes all ports of a domain that is going, some at a time, and gives back what they took of Xen's heap. */
  release(domain: DomainRecord): Generator<void> {
    return this.#closing.release(domain);
  }

  #locked<Result>(operation: () => Result): Result {
    return withLock(this.#heap, this.#lockWord, operation);
  }
}

/** A domain may act on itself; on others only if it is privileged. */
function mayActOn(caller: DomainRecord, domain: DomainRecord): boolean {
  return caller.id === domain.id || caller.privileged;
}

function hasProcessor(domain: DomainRecord, vcpu: number): boolean {
  return vcpu >= 0 && vcpu < domain.vcpus;
}

/** Whether the guest may choose which processor gets a port's events. */
function isMovable(binding: number): boolean {
  if (binding & CONSUMER_XEN) return false;
  const state = stateOf(binding);
  if (state === PORT_VIRQ) return !isPerProcessor(virqOf(binding));
  return state === PORT_UNBOUND || state === PORT_INTERDOMAIN;
}

function statusOf(binding: number): Omit<PortStatus, 'vcpu'> {
  switch (stateOf(binding)) {
    case PORT_UNBOUND:
      return { status: EVTCHNSTAT_UNBOUND, remote: unboundRemote(binding), remotePort: 0 };
    case PORT_INTERDOMAIN:
      return {
        status: EVTCHNSTAT_INTERDOMAIN,
        remote: joinedRemote(binding),
        remotePort: joinedPort(binding),
      };
    case PORT_VIRQ:
      return { status: EVTCHNSTAT_VIRQ, remote: virqOf(binding), remotePort: 0 };
    case PORT_IPI:
      return { status: EVTCHNSTAT_IPI, remote: 0, remotePort: 0 };
    default:
      return { status: EVTCHNSTAT_CLOSED, remote: 0, remotePort: 0 };
  }
}
