// The end of event channels: one port (EVTCHNOP_close), all that a guest has (EVTCHNOP_reset), and all that there are
// when a domain goes. The far end of an interdomain channel becomes unbound. After event-ops.ts; before ports.ts.

import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EAGAIN, EBUSY, EINVAL } from '../errno.ts';
import { withLock } from '../lock.ts';
import type { Machine } from '../state.ts';
import {
  type Channels,
  CONSUMER_XEN,
  joinedPort,
  joinedRemote,
  PORT_FREE,
  PORT_INTERDOMAIN,
  PORT_RESERVED,
  PORT_VCPU,
  PORT_VIRQ,
  RESET_AT,
  stateOf,
  unboundFor,
  USES_FIFO,
  virqOf,
} from './channels.ts';
import type { Delivery } from './delivery.ts';
import type { Ports } from './ports.ts';
import { isPerProcessor } from './virqs.ts';

/** Ports that are closed before others may run. */
const SLICE = 64;

/** Closing of ports as one thread does it. */
export class Closing {
  readonly #domains: Domains;
  readonly #channels: Channels;
  readonly #delivery: Delivery;
  readonly #ports: Ports;
  readonly #heap: Int32Array;
  readonly #lockWord: number;

  constructor(machine: Machine, domains: Domains, channels: Channels, delivery: Delivery, ports: Ports) {
    this.#domains = domains;
    this.#channels = channels;
    this.#delivery = delivery;
    this.#ports = ports;
    this.#heap = machine.heap;
    this.#lockWord = machine.eventLockWord;
  }

  /** Closes a port. Returns -EINVAL for one that is not open, and for one of Xen's where a guest asks. */
  close(domain: DomainRecord, port: number, byGuest: boolean): number {
    return withLock(this.#heap, this.#lockWord, () => {
      const binding = this.#channels.binding(domain, port);
      const state = stateOf(binding);
      if (state === PORT_FREE || state === PORT_RESERVED) return EINVAL;
      if (byGuest && binding & CONSUMER_XEN) return EINVAL;
      if (state === PORT_VIRQ) this.#unbindVirq(domain, port, virqOf(binding));
      if (state === PORT_INTERDOMAIN) this.#unbindFarEnd(domain, binding);
      this.#ports.free(domain, port);
      return 0;
    });
  }

  /**
   * Closes all ports that the guest has, and goes back to the 2-level ABI.
   *
   * @param resuming whether to go on with a reset that has begun
   * @param pause called from time to time: others may run
   * @returns 0; -EBUSY while another reset is going on, or none to go on with; -EAGAIN where ports were opened meanwhile
   */
  reset(domain: DomainRecord, resuming: boolean, pause: () => void): number {
    const first = this.#beginReset(domain, resuming);
    if (first === 0) return EBUSY;
    for (let port = first; this.#channels.isValid(domain, port) && this.#ports.hasActive(domain); port++) {
      this.close(domain, port, true);
      if (port % SLICE !== 0) continue;
      Atomics.store(this.#heap, domain.eventsWord + RESET_AT, port);
      pause();
    }
    return this.#endReset(domain);
  }

  /** Closes all ports of a domain that is going, from the last to the first as Xen does, and gives their pages back. */
  *release(domain: DomainRecord): Generator<void> {
    // Under the lock: who has seen the domain alive has opened its port.
    const valid = withLock(this.#heap, this.#lockWord, () => this.#channels.validPorts(domain));
    for (let port = valid - 1; port > 0; port--) {
      this.close(domain, port, false);
      if (port % SLICE === 0) yield;
    }
    withLock(this.#heap, this.#lockWord, () => this.#channels.invalidate(domain));
    this.#delivery.shut(domain);
    yield* this.#channels.giveBack(domain);
  }

  #unbindVirq(domain: DomainRecord, port: number, virq: number): void {
    const vcpu = isPerProcessor(virq) ? this.#heap[this.#channels.entry(domain, port) + PORT_VCPU] : 0;
    Atomics.store(this.#heap, this.#channels.virqWord(domain, vcpu, virq), 0);
  }

  #unbindFarEnd(domain: DomainRecord, binding: number): void {
    const remote = this.#domains.find(joinedRemote(binding));
    if (remote === undefined) return;
    const far = this.#channels.binding(remote, joinedPort(binding));
    this.#channels.bind(remote, joinedPort(binding), unboundFor(domain.id) | (far & CONSUMER_XEN));
  }

  /** Returns the port to begin at, or 0. */
  #beginReset(domain: DomainRecord, resuming: boolean): number {
    const word = domain.eventsWord + RESET_AT;
    return withLock(this.#heap, this.#lockWord, () => {
      const at = this.#heap[word];
      if (resuming) return at;
      if (at === 0) Atomics.store(this.#heap, word, 1);
      return at === 0 ? 1 : 0;
    });
  }

  #endReset(domain: DomainRecord): number {
    return withLock(this.#heap, this.#lockWord, () => {
      Atomics.store(this.#heap, domain.eventsWord + RESET_AT, 0);
      if (this.#ports.hasActive(domain)) return EAGAIN;
      if (!this.#channels.usesFifo(domain)) return 0;
      this.#delivery.settleForGood(domain);
      Atomics.store(this.#heap, domain.eventsWord + USES_FIFO, 0);
      this.#channels.forgetFifo(domain);
      return 0;
    });
  }
}
