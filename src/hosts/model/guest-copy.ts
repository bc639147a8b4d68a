// Arguments of hypercalls, which lie in memory of the caller: copied in before they are looked at and copied out
// when the call is done, through the caller's own address space. A caller whose pointer leads nowhere gets -EFAULT.

import type { AddressSpace } from './address-space.ts';
import { PageFault } from './address-space.ts';

/** The hypervisor's hands on one caller's memory. */
export class GuestCopy {
  readonly #space: AddressSpace;

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /** Copies bytes in; undefined where the caller has no memory. */
  from(address: number, length: number): Uint8Array | undefined {
    try {
      return this.#space.read(address, length);
    } catch (error) {
      if (error instanceof PageFault) return undefined;
      throw error;
    }
  }

  /** Copies bytes out. Returns false where the caller has no memory that it may write. */
  to(address: number, bytes: Uint8Array): boolean {
    try {
      this.#space.write(address, bytes);
      return true;
    } catch (error) {
      if (error instanceof PageFault) return false;
      throw error;
    }
  }
}
