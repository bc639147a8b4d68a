// Switching a domain to the FIFO ABI: the control blocks of its processors and the pages of its event array, which are
// pages of its own memory (Xen common/event_fifo.c). EVTCHNOP_reset switches back. After event-ops.ts; before fifo.ts.

import {
  CONTROL_BLOCK_SIZE,
  EVTCHN_2L_PORTS,
  EVTCHN_FIFO_PORTS,
  EVTCHN_FIFO_WORDS_PER_PAGE,
} from '../../../abi/event-channel.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EINVAL, ENOENT, ENOSPC, EOPNOTSUPP } from '../errno.ts';
import type { Machine } from '../state.ts';
import { type Channels, FIFO_PORTS, PORT_SAVED, USES_FIFO } from './channels.ts';
import type { Delivery } from './delivery.ts';
import { TwoLevel } from './two-level.ts';

/** A control block begins at a multiple of this. */
const ALIGNMENT = 8;

/** Set-up of the ABI, for the holder of the event lock. */
export class FifoSetup {
  readonly #channels: Channels;
  readonly #delivery: Delivery;
  readonly #twoLevel: TwoLevel;
  readonly #heap: Int32Array;

  constructor(machine: Machine, channels: Channels, delivery: Delivery) {
    this.#channels = channels;
    this.#delivery = delivery;
    this.#twoLevel = new TwoLevel(machine);
    this.#heap = machine.heap;
  }

  /** EVTCHNOP_init_control: gives a processor a control block. The first one switches the domain to this ABI. */
  initControl(domain: DomainRecord, vcpu: number, gfn: number, offset: number): number {
    if (!(vcpu >= 0 && vcpu < domain.vcpus)) return ENOENT;
    if (!(offset >= 0 && offset <= XEN_PAGE_SIZE - CONTROL_BLOCK_SIZE)) return EINVAL;
    if (offset % ALIGNMENT !== 0) return EINVAL;
    const word = this.#channels.controlBlockWord(domain, vcpu);
    const frame = memoryFrame(domain, gfn);
    if (this.#heap[word] !== 0 || frame === 0) return EINVAL;
    Atomics.store(this.#heap, word, (frame * XEN_PAGE_SIZE + offset) / 4);
    if (!this.#channels.usesFifo(domain)) this.#switch(domain);
    return 0;
  }

  /** EVTCHNOP_expand_array: adds a page of event words. Events of its ports that have come before are delivered now. */
  expandArray(domain: DomainRecord, gfn: number): number {
    if (!this.#channels.usesFifo(domain)) return EOPNOTSUPP;
    const first = this.#heap[domain.eventsWord + FIFO_PORTS];
    if (first >= EVTCHN_FIFO_PORTS) return ENOSPC;
    const frame = memoryFrame(domain, gfn);
    if (frame === 0) return EINVAL;
    const page = first / EVTCHN_FIFO_WORDS_PER_PAGE;
    this.#heap[this.#channels.eventPageWord(domain, page)] = (frame * XEN_PAGE_SIZE) / 4;
    // Last: who sees the port finds its page.
    Atomics.store(this.#heap, domain.eventsWord + FIFO_PORTS, first + EVTCHN_FIFO_WORDS_PER_PAGE);
    const end = Math.min(first + EVTCHN_FIFO_WORDS_PER_PAGE, this.#channels.validPorts(domain));
    for (let port = first; port < end; port++)
      if (this.#heap[this.#channels.entry(domain, port) + PORT_SAVED] !== 0)
        this.#delivery.raiseLocked(domain, port);
    return 0;
  }

  /** What is pending is kept for when the ports' event words come. What is being sent at this moment is lost. */
  #switch(domain: DomainRecord): void {
    Atomics.store(this.#heap, domain.eventsWord + USES_FIFO, 1);
    const end = Math.min(EVTCHN_2L_PORTS, this.#channels.validPorts(domain));
    for (let port = 1; port < end; port++)
      if (this.#twoLevel.isPending(domain, port))
        this.#heap[this.#channels.entry(domain, port) + PORT_SAVED] = 1;
  }
}

/**
 * Machine frame behind a frame number of a guest's memory, or 0. Pages that Xen has lent the guest are refused, which
 * Xen would take: they are not the guest's for as long as it lives.
 */
function memoryFrame(domain: DomainRecord, gfn: number): number {
  const frame = domain.ownFrame(gfn);
  return frame >= domain.ramFrame && frame < domain.ramFrame + domain.ramFrames ? frame : 0;
}
