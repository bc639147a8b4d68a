// The 2-level ABI: a bit for each port in shared_info that it is pending, one that it is masked, and for each
// processor a selector with a bit for each 64 ports (Xen common/event_2l.c). After delivery.ts.

import {
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  VCPU_INFO_PENDING_SEL,
  VCPU_INFO_STRIDE,
} from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';

/** Index of the word of shared_info that holds the port's pending bit. */
function pendingWord(domain: DomainRecord, port: number): number {
  return (domain.sharedInfo + SHARED_INFO_EVTCHN_PENDING) / 4 + (port >>> 5);
}

function maskWord(domain: DomainRecord, port: number): number {
  return (domain.sharedInfo + SHARED_INFO_EVTCHN_MASK) / 4 + (port >>> 5);
}

/** Hypervisor's side of the ABI. Ports are below EVTCHN_2L_PORTS. */
export class TwoLevel {
  readonly #memory: Int32Array;

  constructor(machine: Machine) {
    this.#memory = machine.memory.i32;
  }

  /** Makes a port pending. Returns whether the processor is to be told. */
  setPending(domain: DomainRecord, port: number, vcpu: number): boolean {
    const bit = 1 << (port & 31);
    if (Atomics.or(this.#memory, pendingWord(domain, port), bit) & bit) return false;
    if (Atomics.load(this.#memory, maskWord(domain, port)) & bit) return false;
    this.#select(domain, port, vcpu);
    return true;
  }

  clearPending(domain: DomainRecord, port: number): void {
    Atomics.and(this.#memory, pendingWord(domain, port), ~(1 << (port & 31)));
  }

  isPending(domain: DomainRecord, port: number): boolean {
    return (Atomics.load(this.#memory, pendingWord(domain, port)) & (1 << (port & 31))) !== 0;
  }

  /** Clears a port's mask. Returns whether the processor is to be told of an event that waited for it. */
  unmask(domain: DomainRecord, port: number, vcpu: number): boolean {
    const bit = 1 << (port & 31);
    if ((Atomics.and(this.#memory, maskWord(domain, port), ~bit) & bit) === 0) return false;
    if (!this.isPending(domain, port)) return false;
    this.#select(domain, port, vcpu);
    return true;
  }

  /** A selector's bit stands for 64 ports; selectors are two of our words. */
  #select(domain: DomainRecord, port: number, vcpu: number): void {
    const selector = (domain.sharedInfo + vcpu * VCPU_INFO_STRIDE + VCPU_INFO_PENDING_SEL) / 4;
    Atomics.or(this.#memory, selector + (port >>> 11), 1 << ((port >>> 6) & 31));
  }
}
