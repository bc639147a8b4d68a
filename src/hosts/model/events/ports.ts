// Ports of a domain that are taken into use and given up. All under the event lock. After event-ops.ts and closing.ts;
// before channels.ts.

import { EVTCHN_FIFO_PRIORITY_DEFAULT } from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EINVAL, ENOMEM, ENOSPC } from '../errno.ts';
import {
  ACTIVE_PORTS,
  type Channels,
  CONSUMER_XEN,
  LOWEST_FREE,
  PORT_FREE,
  PORT_PRIORITY,
  PORT_VCPU,
  stateOf,
  XEN_PORTS,
} from './channels.ts';
import type { Delivery } from './delivery.ts';

/** The ports of all domains, for the holder of the event lock. */
export class Ports {
  readonly #channels: Channels;
  readonly #delivery: Delivery;
  readonly #heap: Int32Array;

  constructor(channels: Channels, delivery: Delivery) {
    this.#channels = channels;
    this.#delivery = delivery;
    this.#heap = channels.heap;
  }

  /** The lowest port that is free. Returns -EINVAL for a domain that is going, -ENOSPC when it has no more ports. */
  find(domain: DomainRecord): number {
    if (!domain.alive) return EINVAL;
    const lowest = this.#lowestFree(domain);
    const highest = this.#channels.highestPort(domain);
    for (let port = lowest; port <= highest; port++)
      if (this.#isFree(domain, port) && !this.#delivery.isBusy(domain, port)) return port;
    return ENOSPC;
  }

  /** Takes a port that `find` has found. Returns the port, or -ENOMEM and nothing has changed. */
  open(domain: DomainRecord, port: number, binding: number, vcpu = 0): number {
    if (!this.#channels.isValid(domain, port) && !this.#channels.addPage(domain)) return ENOMEM;
    const entry = this.#channels.entry(domain, port);
    this.#heap[entry + PORT_VCPU] = vcpu;
    this.#heap[entry + PORT_PRIORITY] = EVTCHN_FIFO_PRIORITY_DEFAULT;
    this.#count(domain, binding, 1);
    this.#channels.bind(domain, port, binding);
    return port;
  }

  /** Gives a port up, and the event that nobody has taken. */
  free(domain: DomainRecord, port: number): void {
    const binding = this.#channels.binding(domain, port);
    this.#channels.bind(domain, port, PORT_FREE);
    const entry = this.#channels.entry(domain, port);
    this.#heap[entry + PORT_VCPU] = 0;
    this.#heap[entry + PORT_PRIORITY] = 0;
    this.#count(domain, binding, -1);
    const word = domain.eventsWord + LOWEST_FREE;
    this.#heap[word] = Math.min(this.#heap[word], port);
    if (binding & CONSUMER_XEN) return;
    // Who had seen the port bound may only now be making it pending.
    this.#delivery.settle(domain);
    this.#delivery.clearPending(domain, port);
  }

  /** Whether ports are in use that the guest itself has. */
  hasActive(domain: DomainRecord): boolean {
    const active = Atomics.load(this.#heap, domain.eventsWord + ACTIVE_PORTS);
    return active > Atomics.load(this.#heap, domain.eventsWord + XEN_PORTS);
  }

  #count(domain: DomainRecord, binding: number, change: number): void {
    this.#heap[domain.eventsWord + ACTIVE_PORTS] += change;
    if (binding & CONSUMER_XEN) this.#heap[domain.eventsWord + XEN_PORTS] += change;
  }

  /** Moves the place where searches begin to the first port that is free, be it busy or not. */
  #lowestFree(domain: DomainRecord): number {
    const word = domain.eventsWord + LOWEST_FREE;
    while (!this.#isFree(domain, this.#heap[word])) this.#heap[word]++;
    return this.#heap[word];
  }

  /** A port without a record is free as well. */
  #isFree(domain: DomainRecord, port: number): boolean {
    return stateOf(this.#channels.binding(domain, port)) === PORT_FREE;
  }
}
