// The FIFO ABI: an event word for each port and a control block for each processor, in pages of the guest, and 16
// queues for each processor, one a priority, linked through the event words (Xen common/event_fifo.c). Of a queue the
// guest sees head and links; Xen goes by the tail that it keeps itself and never follows a link. After delivery.ts.

import {
  CONTROL_BLOCK_HEADS,
  CONTROL_BLOCK_READY,
  EVTCHN_FIFO_BUSY,
  EVTCHN_FIFO_LINK_MASK,
  EVTCHN_FIFO_LINKED,
  EVTCHN_FIFO_MASKED,
  EVTCHN_FIFO_PENDING,
  EVTCHN_FIFO_QUEUES,
  EVTCHN_FIFO_WORDS_PER_PAGE,
} from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import { lock, unlock } from '../lock.ts';
import type { Machine } from '../state.ts';
import { type Channels, FIFO_PORTS, PORT_LAST_QUEUE, PORT_PRIORITY, PORT_SAVED } from './channels.ts';

// Words of a queue.
const LOCK = 0;
const TAIL = 1;

/** How often the queues that a port belongs to may change while they are being locked. */
const LOCK_TRIES = 3;
/**
 * What a guest may do to the word at a tail: set or clear MASKED, clear PENDING, clear LINKED. While BUSY keeps it
 * from unmasking, these are four changes; a guest that makes more breaks its own queue.
 */
const LINK_TRIES = 4;

const NO_WORD = 0;

/** Hypervisor's side of the ABI. */
export class Fifo {
  readonly #channels: Channels;
  readonly #heap: Int32Array;
  readonly #memory: Int32Array;

  constructor(machine: Machine, channels: Channels) {
    this.#channels = channels;
    this.#heap = machine.heap;
    this.#memory = machine.memory.i32;
  }

  /** Makes a port pending and puts it on its queue. Returns whether the processor is to be told. */
  setPending(domain: DomainRecord, port: number, vcpu: number): boolean {
    const heap = this.#heap;
    const entry = this.#channels.entry(domain, port);
    if (this.#word(domain, port) === NO_WORD) {
      heap[entry + PORT_SAVED] = 1;
      return false;
    }
    for (let tries = 0; tries < LOCK_TRIES; tries++) {
      const priority = Atomics.load(heap, entry + PORT_PRIORITY);
      const queue = vcpu * EVTCHN_FIFO_QUEUES + priority;
      const last = Atomics.load(heap, entry + PORT_LAST_QUEUE);
      this.#lock(domain, queue, last);
      const settled =
        Atomics.load(heap, entry + PORT_PRIORITY) === priority &&
        Atomics.load(heap, entry + PORT_LAST_QUEUE) === last;
      const isHead = settled && this.#enqueue(domain, port, vcpu, queue, last);
      this.#unlock(domain, queue, last);
      if (settled) return isHead && this.#markReady(domain, vcpu, priority);
    }
    // The event is lost, as it is in Xen for a guest that keeps changing priorities.
    return false;
  }

  /** The port stays on its queue: the guest takes it off and finds nothing pending. */
  clearPending(domain: DomainRecord, port: number): void {
    const word = this.#word(domain, port);
    if (word !== NO_WORD) Atomics.and(this.#memory, word, ~EVTCHN_FIFO_PENDING);
  }

  isPending(domain: DomainRecord, port: number): boolean {
    return this.#has(domain, port, EVTCHN_FIFO_PENDING);
  }

  /** Whether a port that was closed still stands on a queue, and cannot be given out before it is off. */
  isBusy(domain: DomainRecord, port: number): boolean {
    return this.#has(domain, port, EVTCHN_FIFO_LINKED);
  }

  /** Clears a port's mask. Returns whether the processor is to be told of an event that waited for it. */
  unmask(domain: DomainRecord, port: number, vcpu: number): boolean {
    const word = this.#word(domain, port);
    if (word === NO_WORD) return false;
    const before = Atomics.and(this.#memory, word, ~EVTCHN_FIFO_MASKED);
    return (before & EVTCHN_FIFO_PENDING) !== 0 && this.setPending(domain, port, vcpu);
  }

  #has(domain: DomainRecord, port: number, bit: number): boolean {
    const word = this.#word(domain, port);
    return word !== NO_WORD && (Atomics.load(this.#memory, word) & bit) !== 0;
  }

  /** Index in the machine's words of a port's event word; NO_WORD while the guest has given no page for it. */
  #word(domain: DomainRecord, port: number): number {
    if (port >= Atomics.load(this.#heap, domain.eventsWord + FIFO_PORTS)) return NO_WORD;
    const page = this.#channels.eventPageWord(domain, Math.floor(port / EVTCHN_FIFO_WORDS_PER_PAGE));
    return this.#heap[page] + (port % EVTCHN_FIFO_WORDS_PER_PAGE);
  }

  /** With both queues locked. Returns whether the port has become the head of its queue. */
  #enqueue(domain: DomainRecord, port: number, vcpu: number, queue: number, last: number): boolean {
    const heap = this.#heap;
    const word = this.#word(domain, port);
    const control = Atomics.load(heap, this.#channels.controlBlockWord(domain, vcpu));
    // No guest unmasks events of a processor that has no control block yet: there is nothing to be told (XSA-107).
    if (control === 0 || word === NO_WORD) return false;
    if (Atomics.or(this.#memory, word, EVTCHN_FIFO_PENDING) & EVTCHN_FIFO_MASKED) return false;
    if (Atomics.or(this.#memory, word, EVTCHN_FIFO_LINKED) & EVTCHN_FIFO_LINKED) return false;
    const lastTail = this.#channels.queue(domain, last) + TAIL;
    // A tail that was taken off its queue and comes back must not have the next event linked to it there.
    if (heap[lastTail] === port) heap[lastTail] = 0;
    Atomics.store(heap, this.#channels.entry(domain, port) + PORT_LAST_QUEUE, queue);
    const tail = this.#channels.queue(domain, queue) + TAIL;
    const isHead = heap[tail] === 0 || !this.#link(this.#word(domain, heap[tail]), port);
    heap[tail] = port;
    const head = control + CONTROL_BLOCK_HEADS / 4 + (queue % EVTCHN_FIFO_QUEUES);
    if (isHead) Atomics.store(this.#memory, head, port);
    return isHead;
  }

  /** Links the word of a queue's tail to `port`. Returns false where the guest has taken the tail off: it is empty. */
  #link(word: number, port: number): boolean {
    let linked = this.#tryLink(word, port);
    if (linked !== undefined) return linked;
    Atomics.or(this.#memory, word, EVTCHN_FIFO_BUSY);
    for (let tries = 0; linked === undefined && tries < LINK_TRIES; tries++)
      linked = this.#tryLink(word, port);
    if (linked !== true) Atomics.and(this.#memory, word, ~EVTCHN_FIFO_BUSY);
    // A guest that never leaves its word alone loses what comes after it.
    return linked ?? true;
  }

  /** Returns whether the word is linked now, or undefined when it changed in between. */
  #tryLink(word: number, port: number): boolean | undefined {
    const before = Atomics.load(this.#memory, word);
    if ((before & EVTCHN_FIFO_LINKED) === 0) return false;
    const after = (before & ~(EVTCHN_FIFO_BUSY | EVTCHN_FIFO_LINK_MASK)) | port;
    return Atomics.compareExchange(this.#memory, word, before, after) === before ? true : undefined;
  }

  /** Sets a queue's bit in the control block. Returns whether it was clear. */
  #markReady(domain: DomainRecord, vcpu: number, priority: number): boolean {
    const control = Atomics.load(this.#heap, this.#channels.controlBlockWord(domain, vcpu));
    if (control === 0) return false;
    const bit = 1 << priority;
    return (Atomics.or(this.#memory, control + CONTROL_BLOCK_READY / 4, bit) & bit) === 0;
  }

  /** Locks a port's queue and the one it was on before, the lower index first. */
  #lock(domain: DomainRecord, queue: number, last: number): void {
    lock(this.#heap, this.#channels.queue(domain, Math.min(queue, last)) + LOCK);
    if (queue !== last) lock(this.#heap, this.#channels.queue(domain, Math.max(queue, last)) + LOCK);
  }

  #unlock(domain: DomainRecord, queue: number, last: number): void {
    unlock(this.#heap, this.#channels.queue(domain, queue) + LOCK);
    if (queue !== last) unlock(this.#heap, this.#channels.queue(domain, last) + LOCK);
  }
}
