// Asks the host to free or zero a range of an image without writing it: holes in files, discards of disks.
// After host-image.ts, used by vectored-image.ts, uring-image.ts and mapped-image.ts.

import type { StoreResult } from '../../storage/block-store.ts';
import type { Image } from '../../storage/image.ts';
import { isInterrupted, resultOfErrno } from './host-image.ts';
import type { Libc } from './libc.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 0x10;
const EINVAL = 22;
const ENOSYS = 38;
const EOPNOTSUPP = 95;
const MOST_TRIES = 1000;
/** Where a file's blocks may begin: past its end it owns nothing. */
const PROBE = 4096;

/** What fallocate(2) does to a range: its space is given back, and it reads as zero. */
export const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
/** What fallocate(2) does to a range: its space stays, and it reads as zero. */
export const ZERO = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

/** The space that an image takes of its host. */
export class Space {
  /** Whether ranges that are no longer needed are given back to the host. */
  readonly freed: boolean;
  readonly #libc: Libc;
  readonly #image: Image;
  /** What this file system or disk does not do at all. */
  readonly #missing = new Set<number>();

  constructor(libc: Libc, image: Image) {
    this.#libc = libc;
    this.#image = image;
    const { fd, size, readOnly, isDevice } = image;
    // A hole past the end of a file changes nothing, but is refused where there are no holes.
    this.freed = !readOnly && !isDevice && libc.fallocate(fd, PUNCH, size, PROBE) === 0;
    if (!readOnly && !isDevice && !this.freed) this.#missing.add(PUNCH);
  }

  /** Gives the range back to the host where that can be done; a discard permits to do nothing. */
  discard(offset: number, length: number): StoreResult {
    return this.#ask(PUNCH, offset, length) ?? 'ok';
  }

  /**
   * Makes the range read as zero, and gives it back to the host if it may.
   *
   * @returns undefined when the host cannot do it: zeroes have to be written
   */
  zero(offset: number, length: number, mayFree: boolean): StoreResult | undefined {
    const punched = mayFree ? this.#ask(PUNCH, offset, length) : undefined;
    return punched ?? this.#ask(ZERO, offset, length);
  }

  /** Whether the host has been found not to do so at all. */
  lacks(mode: number): boolean {
    return this.#missing.has(mode);
  }

  #ask(mode: number, offset: number, length: number): StoreResult | undefined {
    if (length === 0) return 'ok';
    if (this.#missing.has(mode)) return undefined;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (this.#libc.fallocate(this.#image.fd, mode, offset, length) === 0) return 'ok';
      const errno = this.#libc.errno();
      if (this.isRefused(mode, errno)) return undefined;
      if (!isInterrupted(errno)) return resultOfErrno(errno);
    }
    return 'EIO';
  }

  /** Whether a call of this kind that failed so will never do, or not for this range: something else has to. */
  isRefused(mode: number, errno: number): boolean {
    if (errno === EOPNOTSUPP || errno === ENOSYS) this.#missing.add(mode);
    // A disk refuses ranges that are not of its sectors so.
    return errno === EOPNOTSUPP || errno === ENOSYS || errno === EINVAL;
  }
}
