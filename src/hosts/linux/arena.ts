// Scratch memory for the arguments of system calls: vectors, message headers, events. Mapped once and never
// moved, because an address that is kept as a number does not keep its memory alive.

import { assert } from '../../errors.ts';
import { checked, type Libc } from './libc.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

const PAGE = 4096;

/** A piece of an arena. */
export interface Scratch {
  readonly address: number;
  readonly length: number;
  readonly view: DataView;
  readonly u8: Uint8Array;
}

/** Memory for as long as its owner: a thread, a connection. */
export class Arena {
  readonly #libc: Libc;
  readonly #address: number;
  readonly #buffer: ArrayBuffer;
  #used = 0;
  /** Pieces that were given back. */
  readonly #free: Scratch[] = [];

  /** @param length bytes; those that are never taken cost nothing */
  constructor(libc: Libc, length: number) {
    this.#libc = libc;
    const address = libc.mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    this.#address = checked(libc, 'mmap', address, 'memory for system calls');
    this.#buffer = libc.view(address, length);
  }

  /**
   * Takes `length` zeroed bytes. Throws RangeError when none are left.
   *
   * @param alignment of the address: a power of two up to a page
   */
  take(length: number, alignment = 16): Scratch {
    assert(alignment <= PAGE && (alignment & (alignment - 1)) === 0, 'an alignment of an arena', alignment);
    return this.#takeAgain(length, alignment) ?? this.#takeNew(length, alignment);
  }

  /** Gives back what is not used any more: no system call is under way with it, and nobody has its address. */
  giveBack(scratch: Scratch): void {
    this.#free.push(scratch);
  }

  #takeAgain(length: number, alignment: number): Scratch | undefined {
    const index = this.#free.findIndex((piece) => piece.length === length && piece.address % alignment === 0);
    if (index < 0) return undefined;
    const [scratch] = this.#free.splice(index, 1);
    scratch.u8.fill(0);
    return scratch;
  }

  #takeNew(length: number, alignment: number): Scratch {
    const at = Math.ceil(this.#used / alignment) * alignment;
    if (at + length > this.#buffer.byteLength)
      throw new RangeError(
        `scratch memory: ${length} bytes asked for, ${this.#buffer.byteLength - this.#used} of ` +
          `${this.#buffer.byteLength} left`,
      );
    this.#used = at + length;
    return {
      address: this.#address + at,
      length,
      view: new DataView(this.#buffer, at, length),
      u8: new Uint8Array(this.#buffer, at, length),
    };
  }

  /** Gives all of it back: nothing that was taken may be used any more. */
  close(): void {
    this.#libc.munmap(this.#address, this.#buffer.byteLength);
  }
}
