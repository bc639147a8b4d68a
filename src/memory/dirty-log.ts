// Which pages of a guest a device has written, one bit each, for a live migration (QEMU, docs/interop/vhost-user.rst,
// "Migration"). The monitor takes and clears bits while we set others. Used by logged-memory.ts.

import type { Region } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';

const PAGE = 4096;

/** The log of one guest. */
export class DirtyLog {
  readonly #u8: Uint8Array;

  /** @param region the bits; bit n of byte m is page 8m + n */
  constructor(region: Region) {
    this.#u8 = region.u8;
  }

  /** Marks the pages of [address, address + length), guest-physical. Throws ProtocolViolation past the log's end. */
  mark(address: number, length: number): void {
    if (length === 0) return;
    const last = Math.floor((address + length - 1) / PAGE);
    if (last >= this.#u8.length * 8)
      throw new ProtocolViolation(
        'vhost-user SET_LOG_BASE',
        `the log has ${this.#u8.length * 8} pages, page ${last} was written`,
      );
    for (let page = Math.floor(address / PAGE); page <= last; page++)
      Atomics.or(this.#u8, Math.floor(page / 8), 1 << (page % 8));
  }
}
