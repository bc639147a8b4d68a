// A processor of a fake kernel's guest, which reads and writes registers as Xen would have them served: by a request in
// the page of the server whose range they are in (Xen, common/ioreq.c).

import * as io from '../../../abi/ioreq.ts';
import type { FakeKernel } from './fake-kernel.test.helper.ts';

const DATA = io.ioreq.offsetOf('data');

/** One access. */
export interface Access {
  readonly address: number;
  readonly size?: number;
  readonly count?: number;
  /** IOREQ_READ and the others. */
  readonly flags?: number;
  readonly type?: number;
  readonly data?: number;
}

/** Processor `vcpu` of a guest. */
export class GuestProcessor {
  readonly #kernel: FakeKernel;
  readonly #guest: number;
  readonly #vcpu: number;
  #server = 0;

  constructor(kernel: FakeKernel, guest: number, vcpu = 0) {
    this.#kernel = kernel;
    this.#guest = guest;
    this.#vcpu = vcpu;
  }

  /** Asks whoever serves the address. Returns false when nobody does; Xen then answers itself. */
  ask({ address, size = 4, count = 1, flags = 0, type = io.IOREQ_TYPE_COPY, data = 0 }: Access): boolean {
    for (const [key, server] of this.#kernel.servers) {
      const [guest, id] = key.split(':').map(Number);
      const isHere = server.ranges.some(({ base, end }) => address >= base && address <= end);
      if (guest !== this.#guest || !server.enabled || !isHere) continue;
      this.#server = id;
      const slot = this.#slot;
      slot.addr = address;
      slot.data = data;
      slot.count = count;
      slot.size = size;
      slot.type = type;
      slot.state_dir = flags | io.STATE_IOREQ_READY;
      this.#kernel.wake(guest, this.#vcpu);
      return true;
    }
    return false;
  }

  /** STATE_ of the request. */
  get state(): number {
    return this.#slot.state_dir & io.IOREQ_STATE_MASK;
  }

  set state(state: number) {
    this.#slot.state_dir = (this.#slot.state_dir & ~io.IOREQ_STATE_MASK) | state;
  }

  /** Takes the answer, its lower half, and may ask again; undefined while there is none. */
  take(): number | undefined {
    if (this.state !== io.STATE_IORESP_READY) return undefined;
    this.#slot.state_dir = 0;
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset).getUint32(DATA, true);
  }

  get #slot() {
    return io.ioreq.over(this.#bytes);
  }

  get #bytes(): Uint8Array {
    const page = this.#kernel.serverPage(this.#guest, this.#server);
    return page.subarray(this.#vcpu * io.ioreq.size, (this.#vcpu + 1) * io.ioreq.size);
  }
}
