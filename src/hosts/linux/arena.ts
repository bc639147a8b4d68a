// Scratch memory for the arguments of system calls: vectors, message headers, events. Mapped once and never
// moved, because an address that is kept as a number does not keep its memory alive.

import { checked, type Libc } from './libc.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** A piece of an arena. */
export interface Scratch {
  readonly address: number;
  readonly length: number;
  readonly view: DataView;
  readonly u8: Uint8Array;
}

/** Memory that lives as long as its thread. */
export class Arena {
  readonly #address: number;
  readonly #buffer: ArrayBuffer;
  #used = 0;

  constructor(libc: Libc, length: number) {
    const address = libc.mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    this.#address = checked(libc, 'mmap', address, 'memory for system calls');
    this.#buffer = libc.view(address, length);
  }

  /** Takes `length` zeroed bytes, aligned to 16, which are never given back. Throws RangeError when none are left. */
  take(length: number): Scratch {
    const at = this.#used;
    if (at + length > this.#buffer.byteLength) throw new RangeError(`an arena has no ${length} bytes left`);
    this.#used = (at + length + 15) & ~15;
    return {
      address: this.#address + at,
      length,
      view: new DataView(this.#buffer, at, length),
      u8: new Uint8Array(this.#buffer, at, length),
    };
  }
}
