// A guest's memory in this process, whose last part is a file that can be handed to another process: all that it is
// to reach. After libc.ts; used by parallel/vhost-guest.ts.
//
// Both parts are one range of addresses, so that a driver reaches them through one set of views.

import { type Region, regionOver } from '../../abi/region.ts';
import { checked, type Libc } from './libc.ts';
import { sealedFile } from './sealed-file.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FIXED = 0x10;

/** Memory that is private but for a window. */
export class WindowMemory {
  /** All of it; the window comes last. */
  readonly region: Region;
  readonly #libc: Libc;
  readonly #windowSize: number;
  #fd: number;

  /**
   * @param size bytes of memory; whole pages
   * @param windowSize bytes of the window among them; whole pages
   * @throws SystemError
   */
  constructor(libc: Libc, size: number, windowSize: number) {
    this.#libc = libc;
    this.#windowSize = windowSize;
    const address = libc.mmap(0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    checked(libc, 'mmap', address, "the guest's memory");
    this.region = regionOver(libc.view(address, size), 0, size, address);
    this.#fd = this.#mapNewFile();
  }

  /** Descriptor of the window's file, until `renew`. */
  get fd(): number {
    return this.#fd;
  }

  /** Puts a new file of zeroes in the window's place: whoever has the old one reaches nothing of ours any more. */
  renew(): void {
    this.#libc.close(this.#fd);
    this.#fd = this.#mapNewFile();
  }

  /** Ends the mapping: `region` must not be looked at after that. */
  close(): void {
    const { address, byteLength } = this.region;
    this.#libc.close(this.#fd);
    checked(this.#libc, 'munmap', this.#libc.munmap(address, byteLength), "the guest's memory");
  }

  #mapNewFile(): number {
    const libc = this.#libc;
    const about = 'the memory that is shared with the backend';
    const fd = sealedFile(libc, 'grantio-window', this.#windowSize, about);
    try {
      const at = this.region.address + this.region.byteLength - this.#windowSize;
      const flags = MAP_SHARED | MAP_FIXED;
      checked(libc, 'mmap', libc.mmap(at, this.#windowSize, PROT_READ_WRITE, flags, fd, 0), about);
      return fd;
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }
}
