// A kernel's side of the 2-level ABI: it looks at the selector, then at the words of pending bits that it names.
// After domain-events.ts; the hypervisor's side is two-level.ts.

import {
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  VCPU_INFO_PENDING_SEL,
  VCPU_INFO_STRIDE,
} from '../../../abi/event-channel.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';
import type { KernelAbi } from './kernel-abi.ts';

export class TwoLevelKernel implements KernelAbi {
  readonly #shared: Int32Array;
  /** Index of the first word of shared_info. */
  readonly #info: number;

  constructor(machine: Machine, domain: DomainRecord) {
    this.#shared = machine.memory.i32;
    this.#info = domain.sharedInfo / 4;
  }

  /** Nothing is masked unless the kernel has done it. */
  open(): number {
    return 0;
  }

  take(vcpu: number, handle: (port: number) => void): void {
    const selectors = this.#info + (vcpu * VCPU_INFO_STRIDE + VCPU_INFO_PENDING_SEL) / 4;
    for (let half = 0; half < 2; half++) {
      if (this.#shared[selectors + half] === 0) continue;
      for (let selector = Atomics.exchange(this.#shared, selectors + half, 0); selector !== 0; ) {
        const bit = 31 - Math.clz32(selector & -selector);
        selector &= selector - 1;
        this.#takeWord(half * 64 + bit * 2, handle);
        this.#takeWord(half * 64 + bit * 2 + 1, handle);
      }
    }
  }

  #takeWord(word: number, handle: (port: number) => void): void {
    const at = this.#info + SHARED_INFO_EVTCHN_PENDING / 4 + word;
    let pending = Atomics.load(this.#shared, at);
    if (pending === 0) return;
    pending &= ~Atomics.load(this.#shared, this.#info + SHARED_INFO_EVTCHN_MASK / 4 + word);
    for (; pending !== 0; pending &= pending - 1) {
      const bit = 31 - Math.clz32(pending & -pending);
      // Cleared before the handler looks: what comes while it runs is a new event.
      Atomics.and(this.#shared, at, ~(1 << bit));
      handle(word * 32 + bit);
    }
  }
}
