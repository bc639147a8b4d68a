// A domain's event channels and the loop that its thread runs: take pending events, call their handlers,
// sleep when there are none. Implements the port of xen/event-channels.ts.

import {
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  SHARED_INFO_PENDING_SEL,
  SHARED_INFO_UPCALL_PENDING,
} from '../../abi/event-channel.ts';
import type { EventChannels } from '../../xen/event-channels.ts';
import type { DomainId, EventPort } from '../../xen/ids.ts';
import type { DomainRecord } from './domain-record.ts';
import type { EventOps } from './event-ops.ts';
import type { Machine } from './state.ts';

export class DomainEvents implements EventChannels {
  readonly #heap: Int32Array;
  readonly #shared: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #ops: EventOps;
  readonly #domain: DomainRecord;
  readonly #info: number;
  readonly #handlers: ((() => void) | undefined)[] = [];

  constructor(machine: Machine, ops: EventOps, domain: DomainRecord) {
    this.#heap = machine.heap;
    this.#shared = machine.memory.i32;
    this.#bytes = machine.memory.u8;
    this.#ops = ops;
    this.#domain = domain;
    this.#info = domain.sharedInfo;
  }

  allocateUnbound(remote: DomainId): EventPort {
    return this.#ops.allocateUnbound(this.#domain, remote) as EventPort;
  }

  bindInterdomain(remote: DomainId, remotePort: EventPort): EventPort {
    return this.#ops.bindInterdomain(this.#domain, remote, remotePort) as EventPort;
  }

  close(port: EventPort): number {
    this.#handlers[port] = undefined;
    return this.#ops.close(this.#domain, port);
  }

  send(port: EventPort): number {
    return this.#ops.send(this.#domain, port);
  }

  onEvent(port: EventPort, handler: (() => void) | undefined): void {
    this.#handlers[port] = handler;
  }

  /** Whether an event waits for `poll`. */
  get pending(): boolean {
    return Atomics.load(this.#bytes, this.#info + SHARED_INFO_UPCALL_PENDING) !== 0;
  }

  /** Handles the events that are pending now. Returns whether there were any. */
  poll(): boolean {
    if (Atomics.exchange(this.#bytes, this.#info + SHARED_INFO_UPCALL_PENDING, 0) === 0) return false;
    for (let half = 0; half < 2; half++) {
      const selectorWord = (this.#info + SHARED_INFO_PENDING_SEL) / 4 + half;
      for (let selector = Atomics.exchange(this.#shared, selectorWord, 0); selector !== 0; ) {
        const bit = 31 - Math.clz32(selector & -selector);
        selector &= selector - 1;
        this.#handleWord(half * 64 + bit * 2);
        this.#handleWord(half * 64 + bit * 2 + 1);
      }
    }
    return true;
  }

  /**
   * Sleeps until an event comes or the domain is woken, `milliseconds` at most. For a thread that may block.
   *
   * @param stay looked at when waking can no longer be missed: the thread does not sleep when it is true
   */
  sleep(milliseconds: number, stay: () => boolean = () => false): void {
    const { wakeWord, sleepingWord } = this.#domain;
    Atomics.store(this.#heap, sleepingWord, 1);
    const seen = Atomics.load(this.#heap, wakeWord);
    // Whoever wakes this domain changes the word first and looks at `sleeping` after that.
    if (!this.pending && !stay()) Atomics.wait(this.#heap, wakeWord, seen, milliseconds);
    Atomics.store(this.#heap, sleepingWord, 0);
  }

  /** The same for a thread that has an event loop and must not block: a promise for the next event. */
  async nextEvent(milliseconds: number): Promise<void> {
    const { wakeWord, sleepingWord } = this.#domain;
    Atomics.store(this.#heap, sleepingWord, 1);
    const seen = Atomics.load(this.#heap, wakeWord);
    if (!this.pending) await Atomics.waitAsync(this.#heap, wakeWord, seen, milliseconds).value;
    Atomics.store(this.#heap, sleepingWord, 0);
  }

  #handleWord(word: number): void {
    const at = (this.#info + SHARED_INFO_EVTCHN_PENDING) / 4 + word;
    const masked = Atomics.load(this.#shared, (this.#info + SHARED_INFO_EVTCHN_MASK) / 4 + word);
    for (let pending = Atomics.load(this.#shared, at) & ~masked; pending !== 0; pending &= pending - 1) {
      const bit = 31 - Math.clz32(pending & -pending);
      // Cleared before the handler looks: what comes while it runs is a new event.
      Atomics.and(this.#shared, at, ~(1 << bit));
      this.#handlers[word * 32 + bit]?.();
    }
  }
}
