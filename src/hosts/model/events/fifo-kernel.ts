// A kernel's side of the FIFO ABI, as Linux has it (drivers/xen/events/events_fifo.c): it follows the links of each
// queue, the highest priority first, from where it was or from the head. After domain-events.ts; the hypervisor's
// side is fifo.ts.

import {
  CONTROL_BLOCK_HEADS,
  CONTROL_BLOCK_READY,
  EVTCHN_FIFO_BUSY,
  EVTCHN_FIFO_LINK_MASK,
  EVTCHN_FIFO_LINKED,
  EVTCHN_FIFO_MASKED,
  EVTCHN_FIFO_PENDING,
  EVTCHN_FIFO_PORTS,
  EVTCHN_FIFO_QUEUES,
  EVTCHN_FIFO_WORDS_PER_PAGE,
} from '../../../abi/event-channel.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { GuestMemory } from '../../../dma/guest-memory.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EINVAL, ENOMEM } from '../errno.ts';
import type { Machine } from '../state.ts';
import type { EventOps } from './event-ops.ts';
import type { KernelAbi } from './kernel-abi.ts';

/** Bytes from one processor's control block to the next, in one page. */
const CONTROL_BLOCK_STRIDE = 128;
/** Events that are taken before others of the kernel have a turn. */
const MOST_EVENTS = 1024;

export class FifoKernel implements KernelAbi {
  readonly #ops: EventOps;
  readonly #domain: DomainRecord;
  readonly #memory: GuestMemory;
  readonly #words: Int32Array;
  /** Index of the first word of the page of control blocks. */
  #controls = 0;
  /** Index of the first word of each page of event words. */
  readonly #pages: number[] = [];
  /** The port that is next in each queue; 0 where the control block's head says it. */
  readonly #heads: Uint32Array;
  readonly #upcall: (vcpu: number) => void;

  /** @param upcall has a processor look for events again */
  constructor(
    machine: Machine,
    ops: EventOps,
    domain: DomainRecord,
    memory: GuestMemory,
    upcall: (vcpu: number) => void,
  ) {
    this.#ops = ops;
    this.#domain = domain;
    this.#memory = memory;
    this.#words = machine.memory.i32;
    this.#heads = new Uint32Array(domain.vcpus * EVTCHN_FIFO_QUEUES);
    this.#upcall = upcall;
  }

  /** Gives each processor a control block, which switches the domain to this ABI. Returns 0 or a negative errno. */
  start(): number {
    const page = this.#memory.allocatePages(1);
    if (page === undefined) return ENOMEM;
    this.#controls = this.#wordOfPage(page);
    for (let vcpu = 0; vcpu < this.#domain.vcpus; vcpu++) {
      const offset = vcpu * CONTROL_BLOCK_STRIDE;
      const result = this.#ops.initControl(this.#domain, vcpu, this.#frameOfPage(page), offset);
      if (result < 0) {
        // Xen knows none of it: the first processor's refusal leaves the other ABI in place.
        this.#memory.freePages(page, 1);
        return result;
      }
    }
    return 0;
  }

  open(port: number): number {
    if (port >= EVTCHN_FIFO_PORTS) return EINVAL;
    while (port >= this.#pages.length * EVTCHN_FIFO_WORDS_PER_PAGE) {
      const result = this.#addPage();
      if (result < 0) return result;
    }
    const word = this.#wordOf(port);
    for (;;) {
      // While Xen is linking an event behind this one, unmasking waits.
      const before = Atomics.load(this.#words, word) & ~EVTCHN_FIFO_BUSY;
      const after = before & ~EVTCHN_FIFO_MASKED;
      if (Atomics.compareExchange(this.#words, word, before, after) === before) break;
    }
    return this.#has(word, EVTCHN_FIFO_PENDING) ? this.#ops.unmask(this.#domain, port) : 0;
  }

  take(vcpu: number, handle: (port: number) => void): void {
    const readyWord = this.#controlBlock(vcpu) + CONTROL_BLOCK_READY / 4;
    let ready = Atomics.exchange(this.#words, readyWord, 0);
    for (let taken = 0; ready !== 0; taken++) {
      if (taken === MOST_EVENTS) {
        Atomics.or(this.#words, readyWord, ready);
        this.#upcall(vcpu);
        return;
      }
      const priority = 31 - Math.clz32(ready & -ready);
      if (this.#takeOne(vcpu, priority, handle)) ready &= ~(1 << priority);
      ready |= Atomics.exchange(this.#words, readyWord, 0);
    }
  }

  /** Takes the next event off a queue. Returns whether the queue is empty then. */
  #takeOne(vcpu: number, priority: number, handle: (port: number) => void): boolean {
    const queue = vcpu * EVTCHN_FIFO_QUEUES + priority;
    const head = this.#controlBlock(vcpu) + CONTROL_BLOCK_HEADS / 4 + priority;
    const port = this.#heads[queue] || Atomics.load(this.#words, head);
    if (!this.#isOpen(port)) {
      this.#heads[queue] = 0;
      return true;
    }
    const word = this.#wordOf(port);
    const next = this.#unlink(word);
    this.#heads[queue] = next;
    if (this.#has(word, EVTCHN_FIFO_PENDING) && !this.#has(word, EVTCHN_FIFO_MASKED)) {
      // Cleared before the handler looks: what comes while it runs is a new event.
      Atomics.and(this.#words, word, ~EVTCHN_FIFO_PENDING);
      handle(port);
    }
    return next === 0;
  }

  /** Takes a word off its queue. Returns the port that follows, or 0. */
  #unlink(word: number): number {
    for (;;) {
      const before = Atomics.load(this.#words, word);
      const after = before & ~(EVTCHN_FIFO_LINKED | EVTCHN_FIFO_LINK_MASK);
      if (Atomics.compareExchange(this.#words, word, before, after) === before)
        return before & EVTCHN_FIFO_LINK_MASK;
    }
  }

  /** Adds a page of event words, all masked. */
  #addPage(): number {
    const page = this.#memory.allocatePages(1);
    if (page === undefined) return ENOMEM;
    const word = this.#wordOfPage(page);
    this.#words.fill(EVTCHN_FIFO_MASKED, word, word + EVTCHN_FIFO_WORDS_PER_PAGE);
    const result = this.#ops.expandArray(this.#domain, this.#frameOfPage(page));
    if (result < 0) this.#memory.freePages(page, 1);
    else this.#pages.push(word);
    return result;
  }

  #isOpen(port: number): boolean {
    return port > 0 && port < this.#pages.length * EVTCHN_FIFO_WORDS_PER_PAGE;
  }

  #has(word: number, bit: number): boolean {
    return (Atomics.load(this.#words, word) & bit) !== 0;
  }

  #wordOf(port: number): number {
    const page = this.#pages[Math.floor(port / EVTCHN_FIFO_WORDS_PER_PAGE)];
    return page + (port % EVTCHN_FIFO_WORDS_PER_PAGE);
  }

  #controlBlock(vcpu: number): number {
    return this.#controls + (vcpu * CONTROL_BLOCK_STRIDE) / 4;
  }

  /** Index of the first word of a page of the guest's memory. */
  #wordOfPage(address: number): number {
    return (this.#domain.ramFrame * XEN_PAGE_SIZE + address) / 4;
  }

  /** What the guest calls the frame of a page: a PV guest knows its frames by the machine's numbers. */
  #frameOfPage(address: number): number {
    const index = address / XEN_PAGE_SIZE;
    return index + (this.#domain.translated ? this.#domain.map.ram : this.#domain.ramFrame);
  }
}
