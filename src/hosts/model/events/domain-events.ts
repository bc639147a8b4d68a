// A domain's event channels and the loop that its thread runs: take pending events, call their handlers,
// sleep when there are none. Implements the port of xen/event-channels.ts.

import { VCPU_INFO_STRIDE, VCPU_INFO_UPCALL_PENDING } from '../../../abi/event-channel.ts';
import type { GuestMemory } from '../../../dma/guest-memory.ts';
import type { EventChannels } from '../../../xen/event-channels.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';
import type { EventOps } from './event-ops.ts';
import { FifoKernel } from './fifo-kernel.ts';
import type { KernelAbi } from './kernel-abi.ts';
import { TwoLevelKernel } from './two-level-kernel.ts';

export class DomainEvents implements EventChannels {
  readonly #machine: Machine;
  readonly #heap: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #ops: EventOps;
  readonly #domain: DomainRecord;
  readonly #vcpus: number;
  readonly #handlers: ((() => void) | undefined)[] = [];
  readonly #handle = (port: number): void => this.#handlers[port]?.();
  #abi: KernelAbi;

  constructor(machine: Machine, ops: EventOps, domain: DomainRecord) {
    this.#machine = machine;
    this.#heap = machine.heap;
    this.#bytes = machine.memory.u8;
    this.#ops = ops;
    this.#domain = domain;
    this.#vcpus = domain.vcpus;
    this.#abi = new TwoLevelKernel(machine, domain);
  }

  /**
   * Switches to the FIFO ABI, whose control blocks and event words are pages of `memory`. Returns 0, or a negative
   * errno and the ABI is the one that it was.
   */
  useFifo(memory: GuestMemory): number {
    const again = (vcpu: number): void => {
      Atomics.store(this.#bytes, this.#upcall(vcpu), 1);
    };
    const fifo = new FifoKernel(this.#machine, this.#ops, this.#domain, memory, again);
    const result = fifo.start();
    if (result < 0) return result;
    this.#abi = fifo;
    // A sparse array: only the ports that have a handler.
    for (const port in this.#handlers) this.#abi.open(Number(port));
    return 0;
  }

  allocateUnbound(remote: DomainId): EventPort {
    return this.#opened(this.#ops.allocateUnbound(this.#domain, remote));
  }

  bindInterdomain(remote: DomainId, remotePort: EventPort): EventPort {
    return this.#opened(this.#ops.bindInterdomain(this.#domain, remote, remotePort));
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
    if (handler) this.#abi.open(port);
  }

  /** Whether an event waits for `poll`. */
  get pending(): boolean {
    for (let vcpu = 0; vcpu < this.#vcpus; vcpu++)
      if (Atomics.load(this.#bytes, this.#upcall(vcpu)) !== 0) return true;
    return false;
  }

  /** Handles the events that are pending now, on all processors. Returns whether there were any. */
  poll(): boolean {
    let some = false;
    for (let vcpu = 0; vcpu < this.#vcpus; vcpu++) {
      if (Atomics.exchange(this.#bytes, this.#upcall(vcpu), 0) === 0) continue;
      some = true;
      this.#abi.take(vcpu, this.#handle);
    }
    return some;
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

  /** A port that is to deliver events; it is closed again where its event word has no place. */
  #opened(port: number): EventPort {
    const result = port > 0 ? this.#abi.open(port) : 0;
    if (result === 0) return port as EventPort;
    this.#ops.close(this.#domain, port);
    return result as EventPort;
  }

  #upcall(vcpu: number): number {
    return this.#domain.sharedInfo + vcpu * VCPU_INFO_STRIDE + VCPU_INFO_UPCALL_PENDING;
  }
}
