// Memory of a file mapped into this process: a guest's memory, a log, a ring that survives us.
// After libc.ts; used by transports/vhost-user/ and the workers that serve rings.

import { fstatSync } from 'node:fs';
import { type Region, regionOver } from '../../abi/region.ts';
import { checked, type Libc, MOST_VIEWED } from './libc.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
/** Largest page that any machine has. */
const LARGEST_PAGE = 2 ** 30;

/** A mapping of this process. Views of its memory must not be used after `close`: there is nothing there. */
export class MemoryMap {
  /** Where it begins in this process's address space. */
  readonly address: number;
  /** Bytes that were asked for; a multiple of 8. */
  readonly length: number;
  readonly region: Region;
  readonly #libc: Libc;
  /** What is mapped, which begins with a page. */
  readonly #mapped: { readonly address: number; readonly length: number };
  #open = true;

  private constructor(libc: Libc, mapped: { address: number; length: number }, skip: number, length: number) {
    this.#libc = libc;
    this.#mapped = mapped;
    this.address = mapped.address + skip;
    this.length = length;
    this.region = regionOver(libc.view(this.address, length), 0, length, this.address);
  }

  /**
   * Maps `length` bytes of `fd` from `offset`, shared with all others who map the file; `fd` may be closed
   * afterwards. Offsets need not be of a page. Throws SystemError, RangeError for more than can be seen at once.
   */
  static of(libc: Libc, fd: number, offset: number, length: number, about: string): MemoryMap {
    if (length > MOST_VIEWED)
      throw new RangeError(`${about}: ${length} bytes, at most ${MOST_VIEWED} can be mapped in one piece`);
    const page = pageOf(libc, fd);
    const skip = offset % page;
    // Whole pages: memory of huge pages cannot be unmapped in parts of them.
    const size = Math.ceil((skip + length) / page) * page;
    const address = libc.mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset - skip);
    checked(libc, 'mmap', address, about);
    return new MemoryMap(libc, { address, length: size }, skip, length);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const { address, length } = this.#mapped;
    checked(this.#libc, 'munmap', this.#libc.munmap(address, length), 'ending a mapping of ours');
  }
}

/** Bytes of a page of this file: files of huge pages call it their block size. */
function pageOf(libc: Libc, fd: number): number {
  const page = libc.getpagesize();
  const { blksize } = fstatSync(fd);
  const isHugePage = blksize > page && blksize <= LARGEST_PAGE && Number.isInteger(Math.log2(blksize));
  return isHugePage ? blksize : page;
}
