// From a sender to the bits that the receiver's kernel looks at, and its waking: the part of event channels that every
// request goes through. Nothing here waits for the event lock. After event-ops.ts; before two-level.ts and fifo.ts.

import { VCPU_INFO_STRIDE, VCPU_INFO_UPCALL_PENDING } from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EINVAL } from '../errno.ts';
import type { Machine } from '../state.ts';
import {
  type Channels,
  CONSUMER_XEN,
  isUsable,
  joinedPort,
  joinedRemote,
  joinedTo,
  PORT_BINDING,
  PORT_INTERDOMAIN,
  PORT_IPI,
  PORT_UNBOUND,
  PORT_VCPU,
  SHUT,
  stateOf,
} from './channels.ts';
import { Fifo } from './fifo.ts';
import { TwoLevel } from './two-level.ts';

/** Looks at the count of deliveries, and then milliseconds, before a port is given up that others keep sending to. */
const SETTLE_LOOKS = 10_000;
const SETTLE_NAPS = 100;
/** Milliseconds that the end of a domain waits for those who deliver to it: a thread that was ended never leaves. */
const PATIENCE = 1000;
/** A word of Xen's heap that stays 0, to sleep on. */
const NEVER_CHANGES = 0;

/** Delivery of events as one thread does it. */
export class Delivery {
  readonly #domains: Domains;
  readonly #channels: Channels;
  readonly #twoLevel: TwoLevel;
  readonly #fifo: Fifo;
  readonly #heap: Int32Array;
  readonly #bytes: Uint8Array;

  constructor(machine: Machine, domains: Domains, channels: Channels) {
    this.#domains = domains;
    this.#channels = channels;
    this.#twoLevel = new TwoLevel(machine);
    this.#fifo = new Fifo(machine, channels);
    this.#heap = machine.heap;
    this.#bytes = machine.memory.u8;
  }

  /** EVTCHNOP_send, for the domain that this thread runs. To an unbound port it succeeds and does nothing. */
  send(domain: DomainRecord, port: number): number {
    const binding = this.#channels.binding(domain, port);
    if (binding & CONSUMER_XEN) return EINVAL;
    switch (stateOf(binding)) {
      case PORT_INTERDOMAIN:
        this.#sendTo(domain, port, binding);
        return 0;
      case PORT_IPI:
        this.raise(domain, port);
        return 0;
      case PORT_UNBOUND:
        return 0;
      default:
        return EINVAL;
    }
  }

  /** Sends from a port whose consumer is Xen (notify_via_xen_event_channel). Does nothing while it is not joined. */
  sendFromXen(domain: DomainRecord, port: number): void {
    const binding = this.#channels.binding(domain, port);
    if (binding & CONSUMER_XEN && stateOf(binding) === PORT_INTERDOMAIN) this.#sendTo(domain, port, binding);
  }

  /** Makes a port of a domain pending, whoever it is bound to. Does nothing where there is no such port. */
  raise(domain: DomainRecord, port: number): void {
    if (!this.#enter(domain)) return;
    if (this.#channels.isValid(domain, port))
      this.#raiseEntry(domain, port, this.#channels.entry(domain, port));
    this.#leave(domain);
  }

  /** The same for the port to which a virtual interrupt of a processor is bound, if it is to any. */
  raiseVirq(domain: DomainRecord, virq: number, vcpu: number): void {
    if (!this.#enter(domain)) return;
    const port = Atomics.load(this.#heap, this.#channels.virqWord(domain, vcpu, virq));
    if (port !== 0) this.#raiseEntry(domain, port, this.#channels.entry(domain, port));
    this.#leave(domain);
  }

  /** Makes a port pending for the holder of the event lock, be the port in use or not. */
  raiseLocked(domain: DomainRecord, port: number): void {
    this.#setPending(domain, port, this.#vcpu(domain, port));
  }

  /** Has a port deliver again, and with it the event that has waited for that. */
  unmask(domain: DomainRecord, port: number): void {
    if (!this.#enter(domain)) return;
    if (isUsable(this.#channels.binding(domain, port))) {
      const vcpu = this.#vcpu(domain, port);
      const abi = this.#channels.usesFifo(domain) ? this.#fifo : this.#twoLevel;
      if (abi.unmask(domain, port, vcpu)) this.#tell(domain, vcpu);
    }
    this.#leave(domain);
  }

  clearPending(domain: DomainRecord, port: number): void {
    const abi = this.#channels.usesFifo(domain) ? this.#fifo : this.#twoLevel;
    abi.clearPending(domain, port);
  }

  isPending(domain: DomainRecord, port: number): boolean {
    const abi = this.#channels.usesFifo(domain) ? this.#fifo : this.#twoLevel;
    return abi.isPending(domain, port);
  }

  /** Whether a free port still stands on a queue of the FIFO ABI. */
  isBusy(domain: DomainRecord, port: number): boolean {
    return this.#channels.usesFifo(domain) && this.#fifo.isBusy(domain, port);
  }

  /** Ends the sleep of a domain's thread, or keeps it from falling asleep. */
  wake(domain: DomainRecord): void {
    Atomics.add(this.#heap, domain.wakeWord, 1);
    Atomics.notify(this.#heap, domain.wakeWord);
  }

  /**
   * Waits until nobody is delivering to the domain who may have seen a port before it was closed; for a thread that
   * has lost its processor in the middle of it, by leaving it one. Where others never stop sending to other ports of
   * the domain, not for ever: the port's next channel may then begin with an event too many.
   */
  settle(domain: DomainRecord): void {
    for (let looks = 0; looks < SETTLE_LOOKS; looks++) if (!this.#isDelivering(domain)) return;
    this.#nap(domain, SETTLE_NAPS);
  }

  /** Has all later events for a domain dropped, and waits for those on their way, before its pages are taken. */
  shut(domain: DomainRecord): void {
    Atomics.or(this.#heap, domain.raisesWord, SHUT);
    this.settleForGood(domain);
  }

  /** The same as `settle` where nothing may be left, and no port is open that others could go on sending to. */
  settleForGood(domain: DomainRecord): void {
    this.#nap(domain, PATIENCE);
  }

  /** Sleeps for up to `most` milliseconds, until nobody is delivering to the domain. */
  #nap(domain: DomainRecord, most: number): void {
    for (let waited = 0; waited < most && this.#isDelivering(domain); waited++)
      Atomics.wait(this.#heap, NEVER_CHANGES, 0, 1);
  }

  /** A change of the word that changes nothing: who comes in after it sees all that was written before it. */
  #isDelivering(domain: DomainRecord): boolean {
    return (Atomics.add(this.#heap, domain.raisesWord, 0) & ~SHUT) !== 0;
  }

  #sendTo(domain: DomainRecord, port: number, binding: number): void {
    const remote = this.#domains.find(joinedRemote(binding));
    if (remote === undefined || !this.#enter(remote)) return;
    const far = joinedPort(binding);
    const entry = this.#channels.entry(remote, far);
    // It may have been closed before we came in; who closes it from here on waits for us.
    const isJoined = (this.#heap[entry + PORT_BINDING] & ~CONSUMER_XEN) === joinedTo(domain.id, port);
    if (isJoined) this.#raiseEntry(remote, far, entry);
    this.#leave(remote);
  }

  /**
   * Begins to deliver to a domain: while the count is not 0, what is used to deliver is not taken away, and all that
   * was taken away before is seen, by plain reads too. Returns false, and nothing is begun, where the domain has gone.
   */
  #enter(domain: DomainRecord): boolean {
    const before = Atomics.add(this.#heap, domain.raisesWord, 1);
    if ((before & SHUT) === 0 && domain.current) return true;
    this.#leave(domain);
    return false;
  }

  #leave(domain: DomainRecord): void {
    Atomics.sub(this.#heap, domain.raisesWord, 1);
  }

  #raiseEntry(domain: DomainRecord, port: number, entry: number): void {
    const binding = this.#heap[entry + PORT_BINDING];
    if (isUsable(binding)) this.#setPending(domain, port, this.#heap[entry + PORT_VCPU]);
    // Xen waits for its own events where the domain would: on its wake-up word.
    else if (binding & CONSUMER_XEN) this.wake(domain);
  }

  #setPending(domain: DomainRecord, port: number, vcpu: number): void {
    const isNews = this.#channels.usesFifo(domain)
      ? this.#fifo.setPending(domain, port, vcpu)
      : this.#twoLevel.setPending(domain, port, vcpu);
    if (isNews) this.#tell(domain, vcpu);
  }

  #vcpu(domain: DomainRecord, port: number): number {
    return this.#heap[this.#channels.entry(domain, port) + PORT_VCPU];
  }

  /** Tells a processor that it has events (vcpu_mark_events_pending). */
  #tell(domain: DomainRecord, vcpu: number): void {
    const info = domain.sharedInfo + vcpu * VCPU_INFO_STRIDE;
    Atomics.store(this.#bytes, info + VCPU_INFO_UPCALL_PENDING, 1);
    // A thread that is not about to sleep by now looks once more before it does.
    if (Atomics.load(this.#heap, domain.sleepingWord) !== 0) this.wake(domain);
  }
}
