// Event channel operations of the embedded Xen, 2-level ABI (Xen common/event_channel.c, event_2l.c), and
// waking: a domain sleeps on one word that every new event changes.

import {
  EVTCHN_2L_PORTS,
  EVTCHNSTAT_CLOSED,
  EVTCHNSTAT_INTERDOMAIN,
  EVTCHNSTAT_UNBOUND,
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  SHARED_INFO_PENDING_SEL,
  SHARED_INFO_UPCALL_PENDING,
} from '../../abi/event-channel.ts';
import { EVENT_PAGES } from './domain-builder.ts';
import type { DomainRecord } from './domain-record.ts';
import type { Domains } from './domains.ts';
import { EINVAL, ENOSPC, ESRCH } from './errno.ts';
import { lock, unlock } from './lock.ts';
import type { Machine } from './state.ts';

// Words of an event channel.
const STATE = 0;
const REMOTE_DOMAIN = 1;
const REMOTE_PORT = 2;

/** Event channel hypercalls as one thread makes them. */
export class EventOps {
  readonly #machine: Machine;
  readonly #domains: Domains;
  readonly #heap: Int32Array;
  readonly #shared: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #lockWord: number;

  constructor(machine: Machine, domains: Domains) {
    this.#machine = machine;
    this.#domains = domains;
    this.#heap = machine.heap;
    this.#shared = machine.memory.i32;
    this.#bytes = machine.memory.u8;
    this.#lockWord = machine.eventLockWord;
  }

  /** EVTCHNOP_alloc_unbound: a port of `domain` that `remote` may bind. Port 0 is never given out. */
  allocateUnbound(domain: DomainRecord, remote: number): number {
    return this.#locked(() => {
      const port = this.#freePort(domain);
      if (port > 0) this.#set(domain, port, EVTCHNSTAT_UNBOUND, remote, 0);
      return port;
    });
  }

  /** EVTCHNOP_bind_interdomain: joins a new port of `domain` to an unbound one of `remoteId` that is for it. */
  bindInterdomain(domain: DomainRecord, remoteId: number, remotePort: number): number {
    const remote = this.#domains.find(remoteId);
    if (remote === undefined) return ESRCH;
    if (!isPort(remotePort)) return EINVAL;
    const port = this.#locked(() => {
      const near = this.#freePort(domain);
      if (near < 0) return near;
      if (!this.#is(remote, remotePort, EVTCHNSTAT_UNBOUND, domain.id, 0)) return EINVAL;
      this.#set(remote, remotePort, EVTCHNSTAT_INTERDOMAIN, domain.id, near);
      this.#set(domain, near, EVTCHNSTAT_INTERDOMAIN, remoteId, remotePort);
      return near;
    });
    // Events may have been sent before the far end knew where to: let the binder look once.
    if (port > 0) this.raise(domain, port);
    return port;
  }

  /** EVTCHNOP_close: frees a port; the far end becomes unbound again. */
  close(domain: DomainRecord, port: number): number {
    if (!isPort(port)) return EINVAL;
    return this.#locked(() => {
      const entry = domain.eventEntry(port);
      if (this.#heap[entry + STATE] === EVTCHNSTAT_CLOSED) return EINVAL;
      const remote = this.#domains.find(this.#heap[entry + REMOTE_DOMAIN]);
      const remotePort = this.#heap[entry + REMOTE_PORT];
      this.#set(domain, port, EVTCHNSTAT_CLOSED, 0, 0);
      // An event that nobody has taken would make the port's next channel deaf: `raise` finds it pending.
      Atomics.and(this.#shared, pendingWord(domain, port), ~(1 << (port & 31)));
      if (remote && this.#is(remote, remotePort, EVTCHNSTAT_INTERDOMAIN, domain.id, port))
        this.#set(remote, remotePort, EVTCHNSTAT_UNBOUND, domain.id, 0);
      return 0;
    });
  }

  /** EVTCHNOP_send. To an unbound port it succeeds and does nothing, as in Xen. */
  send(domain: DomainRecord, port: number): number {
    if (!isPort(port)) return EINVAL;
    const entry = domain.eventEntry(port);
    const state = Atomics.load(this.#heap, entry + STATE);
    if (state === EVTCHNSTAT_UNBOUND) return 0;
    if (state !== EVTCHNSTAT_INTERDOMAIN) return EINVAL;
    const remote = this.#domains.find(this.#heap[entry + REMOTE_DOMAIN]);
    if (remote !== undefined) this.raise(remote, Atomics.load(this.#heap, entry + REMOTE_PORT));
    return 0;
  }

  /** Closes all ports of a domain that is going, some at a time. */
  *release(domain: DomainRecord): Generator<void> {
    for (let port = 1; port < EVTCHN_2L_PORTS; port++) {
      this.close(domain, port);
      if (port % 256 === 0) yield;
    }
    this.#machine.givePages(this.#heap[domain.eventsWord], EVENT_PAGES);
  }

  /** Makes a port pending and wakes its domain, as Xen does for its own events too. */
  raise(domain: DomainRecord, port: number): void {
    const info = domain.sharedInfo;
    const bit = 1 << (port & 31);
    const word = port >>> 5;
    const before = Atomics.or(this.#shared, pendingWord(domain, port), bit);
    if (before & bit) return;
    if (Atomics.load(this.#shared, (info + SHARED_INFO_EVTCHN_MASK) / 4 + word) & bit) return;
    // A selector bit stands for 64 ports, two of our words.
    Atomics.or(this.#shared, (info + SHARED_INFO_PENDING_SEL) / 4 + (word >>> 6), 1 << ((word >>> 1) & 31));
    Atomics.store(this.#bytes, info + SHARED_INFO_UPCALL_PENDING, 1);
    this.wake(domain);
  }

  /** Ends the sleep of a domain's thread, or keeps it from falling asleep. */
  wake(domain: DomainRecord): void {
    Atomics.add(this.#heap, domain.wakeWord, 1);
    if (Atomics.load(this.#heap, domain.sleepingWord) !== 0) Atomics.notify(this.#heap, domain.wakeWord);
  }

  /** Runs an operation that changes channels while no other one does: both ends change together. */
  #locked(operation: () => number): number {
    lock(this.#heap, this.#lockWord);
    const result = operation();
    unlock(this.#heap, this.#lockWord);
    return result;
  }

  #freePort(domain: DomainRecord): number {
    for (let port = 1; port < EVTCHN_2L_PORTS; port++) {
      if (this.#heap[domain.eventEntry(port) + STATE] === EVTCHNSTAT_CLOSED) return port;
    }
    return ENOSPC;
  }

  #is(domain: DomainRecord, port: number, state: number, remoteDomain: number, remotePort: number): boolean {
    const entry = domain.eventEntry(port);
    return (
      this.#heap[entry + STATE] === state &&
      this.#heap[entry + REMOTE_DOMAIN] === remoteDomain &&
      this.#heap[entry + REMOTE_PORT] === remotePort
    );
  }

  #set(domain: DomainRecord, port: number, state: number, remoteDomain: number, remotePort: number): void {
    const entry = domain.eventEntry(port);
    this.#heap[entry + REMOTE_DOMAIN] = remoteDomain;
    this.#heap[entry + REMOTE_PORT] = remotePort;
    Atomics.store(this.#heap, entry + STATE, state);
  }
}

/** Index of the word of shared_info that holds the port's pending bit. */
function pendingWord(domain: DomainRecord, port: number): number {
  return (domain.sharedInfo + SHARED_INFO_EVTCHN_PENDING) / 4 + (port >>> 5);
}

function isPort(port: number): boolean {
  return port > 0 && port < EVTCHN_2L_PORTS;
}
