// What Xen knows of a domain's event channels: one record for each port, in pages of Xen's heap that are added as
// ports are needed (Xen: buckets of struct evtchn), and one page of details. What a sender needs of a port is one
// word, so that it can be read without a lock. Before port-allocation.ts and delivery.ts.

import {
  EVTCHN_2L_PORTS,
  EVTCHN_FIFO_PORTS,
  EVTCHN_FIFO_QUEUES,
  NR_VIRQS,
} from '../../../abi/event-channel.ts';
import { MAX_VCPUS } from '../domain-options.ts';
import type { DomainRecord } from '../domain-record.ts';
import { type Machine, PAGE_WORDS } from '../state.ts';

// States of a port (Xen's ECS_).
export const PORT_FREE = 0;
/** Port 0: never given out, never used. */
export const PORT_RESERVED = 1;
export const PORT_UNBOUND = 2;
export const PORT_INTERDOMAIN = 3;
export const PORT_VIRQ = 5;
export const PORT_IPI = 6;

// A binding is one word: state, whether Xen itself is the consumer, and what belongs to the state.
const STATE_MASK = 7;
/** Events of this port are for Xen itself: the guest can neither send nor close it. */
export const CONSUMER_XEN = 1 << 3;
const VALUE_SHIFT = 4;
const UNBOUND_MASK = 0xffff;
const REMOTE_BITS = 7;
const REMOTE_MASK = (1 << REMOTE_BITS) - 1;
const PORT_SHIFT = VALUE_SHIFT + REMOTE_BITS;

export const stateOf = (binding: number): number => binding & STATE_MASK;
/** Whether events of such a port go to the guest. */
export const isUsable = (binding: number): boolean =>
  (binding & STATE_MASK) > PORT_RESERVED && (binding & CONSUMER_XEN) === 0;

/** A port that domain `remote` may bind to; any number of 16 bits, whether there is such a domain or not. */
export const unboundFor = (remote: number): number => PORT_UNBOUND | (remote << VALUE_SHIFT);
export const unboundRemote = (binding: number): number => (binding >>> VALUE_SHIFT) & UNBOUND_MASK;

/** A port joined to `port` of domain `remote`. */
export const joinedTo = (remote: number, port: number): number =>
  PORT_INTERDOMAIN | (remote << VALUE_SHIFT) | (port << PORT_SHIFT);
export const joinedRemote = (binding: number): number => (binding >>> VALUE_SHIFT) & REMOTE_MASK;
export const joinedPort = (binding: number): number => binding >>> PORT_SHIFT;

/** A port for a virtual interrupt. */
export const forVirq = (virq: number): number => PORT_VIRQ | (virq << VALUE_SHIFT);
export const virqOf = (binding: number): number => binding >>> VALUE_SHIFT;

// Words of a port's record.
export const PORT_BINDING = 0;
/** Processor that its events are delivered to. */
export const PORT_VCPU = 1;
// The rest is for the FIFO ABI.
export const PORT_PRIORITY = 2;
/** The event came while the page of its event word was missing. Never cleared, as in Xen. */
export const PORT_SAVED = 3;
/** Queue that it was put on last: processor * 16 + priority. */
export const PORT_LAST_QUEUE = 4;
const PORT_WORDS = 8;
/** Ports of one page of records. */
export const PORTS_PER_PAGE = PAGE_WORDS / PORT_WORDS;
const PAGE_SHIFT = 7;

// Words of a domain's part, from its eventsWord.
const DIRECTORY = 0;
const DETAILS = 1;
/** Ports that have a record. */
const VALID = 2;
/** Ports that are not free, and those of them whose consumer is Xen. */
export const ACTIVE_PORTS = 3;
export const XEN_PORTS = 4;
/** The highest port that the domain may have (max_event_channels). */
const MAX_PORT = 5;
/** 1 while the domain uses the FIFO ABI. */
export const USES_FIFO = 6;
/** No port below is free. */
export const LOWEST_FREE = 7;
/** The port at which a reset goes on; 0 while there is none. */
export const RESET_AT = 8;
/** Ports that have an event word. */
export const FIFO_PORTS = 9;

// Words of the details.
const VIRQS = 0;
const CONTROL_BLOCKS = VIRQS + MAX_VCPUS * NR_VIRQS;
const QUEUES = CONTROL_BLOCKS + MAX_VCPUS;
const QUEUE_WORDS = 2;
const EVENT_ARRAY = QUEUES + MAX_VCPUS * EVTCHN_FIFO_QUEUES * QUEUE_WORDS;
const EVENT_ARRAY_PAGES = EVTCHN_FIFO_PORTS / PAGE_WORDS;

/** Bit of the word that counts deliveries: nothing is delivered to the domain any more. */
export const SHUT = 1 << 30;

/** Pages of records that are given back in one turn. */
const GIVE_SLICE = 64;

/** Pages of Xen's heap that a domain begins with: directory, details, and the first ports. */
export const EVENT_PAGES = 3;

/** Fills in the event channels' part of a domain that is being made, over EVENT_PAGES zeroed pages from `pages`. */
export function initialiseEvents(
  machine: Machine,
  domain: DomainRecord,
  pages: number,
  maxPort: number,
): void {
  const { heap } = machine;
  const at = domain.eventsWord;
  const firstPorts = pages + 2 * PAGE_WORDS;
  heap[at + DIRECTORY] = pages;
  heap[at + DETAILS] = pages + PAGE_WORDS;
  heap[pages] = firstPorts;
  heap[firstPorts + PORT_BINDING] = PORT_RESERVED;
  heap[at + VALID] = PORTS_PER_PAGE;
  heap[at + MAX_PORT] = maxPort;
  heap[at + LOWEST_FREE] = 1;
  Atomics.and(heap, domain.raisesWord, ~SHUT);
}

/** The highest port that a domain may have by its own limit (max_event_channels). */
export function maxEventChannels(heap: Int32Array, domain: DomainRecord): number {
  return heap[domain.eventsWord + MAX_PORT];
}

/** The records of all domains' ports, as one thread sees them. What changes them holds the event lock. */
export class Channels {
  readonly heap: Int32Array;
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.heap = machine.heap;
    this.#machine = machine;
  }

  /** Ports that have a record; none after the domain has been released. */
  validPorts(domain: DomainRecord): number {
    return this.heap[domain.eventsWord + VALID];
  }

  /** Whether the port has a record, be it free or not. */
  isValid(domain: DomainRecord, port: number): boolean {
    return port >= 0 && port < this.validPorts(domain);
  }

  /** Index of the first word of the record of a port that has one. */
  entry(domain: DomainRecord, port: number): number {
    const page = this.heap[this.heap[domain.eventsWord + DIRECTORY] + (port >>> PAGE_SHIFT)];
    return page + (port & (PORTS_PER_PAGE - 1)) * PORT_WORDS;
  }

  /** What a port is bound to; PORT_FREE for one that has no record. */
  binding(domain: DomainRecord, port: number): number {
    return this.isValid(domain, port) ? Atomics.load(this.heap, this.entry(domain, port)) : PORT_FREE;
  }

  /** Changes what a port is bound to, for everybody at once. */
  bind(domain: DomainRecord, port: number, binding: number): void {
    Atomics.store(this.heap, this.entry(domain, port) + PORT_BINDING, binding);
  }

  /** The highest port that the domain can have now: by its own limit, and by that of the ABI it uses. */
  highestPort(domain: DomainRecord): number {
    const most = this.usesFifo(domain) ? EVTCHN_FIFO_PORTS : EVTCHN_2L_PORTS;
    return Math.min(maxEventChannels(this.heap, domain), most - 1);
  }

  usesFifo(domain: DomainRecord): boolean {
    return this.heap[domain.eventsWord + USES_FIFO] !== 0;
  }

  /** Adds a page of records. Returns false, and nothing has changed, when Xen's heap is used up. */
  addPage(domain: DomainRecord): boolean {
    const page = this.#machine.takePages(1);
    if (page === 0) return false;
    const valid = this.validPorts(domain);
    this.heap[this.heap[domain.eventsWord + DIRECTORY] + (valid >>> PAGE_SHIFT)] = page;
    // Last: who sees the port finds its page.
    Atomics.store(this.heap, domain.eventsWord + VALID, valid + PORTS_PER_PAGE);
    return true;
  }

  /** Has a domain that is going have no ports any more. */
  invalidate(domain: DomainRecord): void {
    Atomics.store(this.heap, domain.eventsWord + VALID, 0);
  }

  /** Gives back all that a domain has, some pages a turn; it has no ports and nobody is delivering to it any more. */
  *giveBack(domain: DomainRecord): Generator<void> {
    const { heap } = this;
    const directory = heap[domain.eventsWord + DIRECTORY];
    for (let index = 0; index < PAGE_WORDS && heap[directory + index] !== 0; index++) {
      this.#machine.givePages(heap[directory + index], 1);
      if (index % GIVE_SLICE === GIVE_SLICE - 1) yield;
    }
    this.#machine.givePages(heap[domain.eventsWord + DETAILS], 1);
    this.#machine.givePages(directory, 1);
  }

  /** Word that holds the port to which a virtual interrupt of a processor is bound, or 0. */
  virqWord(domain: DomainRecord, vcpu: number, virq: number): number {
    return this.heap[domain.eventsWord + DETAILS] + VIRQS + vcpu * NR_VIRQS + virq;
  }

  /** Word that holds where a processor's control block is: an index in the machine's words of memory, or 0. */
  controlBlockWord(domain: DomainRecord, vcpu: number): number {
    return this.heap[domain.eventsWord + DETAILS] + CONTROL_BLOCKS + vcpu;
  }

  /** Two words of a queue, which only Xen has: its lock, and the port at its tail. */
  queue(domain: DomainRecord, index: number): number {
    return this.heap[domain.eventsWord + DETAILS] + QUEUES + index * QUEUE_WORDS;
  }

  /** Word that holds where a page of event words is: an index in the machine's words of memory. */
  eventPageWord(domain: DomainRecord, page: number): number {
    return this.heap[domain.eventsWord + DETAILS] + EVENT_ARRAY + page;
  }

  /** Forgets control blocks, queues and event words. */
  forgetFifo(domain: DomainRecord): void {
    Atomics.store(this.heap, domain.eventsWord + FIFO_PORTS, 0);
    const details = this.heap[domain.eventsWord + DETAILS];
    this.heap.fill(0, details + CONTROL_BLOCKS, details + EVENT_ARRAY + EVENT_ARRAY_PAGES);
  }
}
