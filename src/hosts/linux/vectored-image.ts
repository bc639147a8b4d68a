// A raw image by blocking system calls straight from and into guest memory. For images in the page cache: what is
// there costs one call, and a worker has nothing better to do meanwhile. After host-image.ts, beside uring-image.ts.

import type { Segments } from '../../memory/segments.ts';
import type { BlockStore, StoreResult } from '../../storage/block-store.ts';
import type { Image } from '../../storage/image.ts';
import type { Arena } from './arena.ts';
import {
  type Alignment,
  EFAULT,
  flushImage,
  type HostImageOptions,
  isInterrupted,
  openHostImage,
  resultOfErrno,
} from './host-image.ts';
import type { Libc } from './libc.ts';
import { Space } from './space.ts';
import { MOST_VECTORS, putVectors, type TransferScratch } from './transfer-scratch.ts';

/** So often a call is repeated that was interrupted before it had moved anything. */
const MOST_TRIES = 10_000;
/** What every disk's guest may ask for. */
const SECTOR = 512;

/** What a thread has for its images. */
export interface ImageHost {
  readonly libc: Libc;
  readonly arena: Arena;
  readonly scratch: TransferScratch;
}

/** A raw image. */
export class VectoredImage implements BlockStore {
  readonly size: number;
  readonly readOnly: boolean;
  readonly freesZeroes: boolean;
  readonly image: Image;
  readonly alignment: Alignment;
  readonly space: Space;
  readonly #libc: Libc;
  readonly #scratch: TransferScratch;
  /** For ranges that direct I/O does not take: the same image through the page cache, which the kernel keeps in step. */
  readonly #cached: VectoredImage | undefined;

  /** @throws ImageError when the image cannot be a disk */
  constructor(host: ImageHost, path: string, options: HostImageOptions) {
    const { image, alignment } = openHostImage(host.libc, host.arena, path, options);
    this.image = image;
    this.alignment = alignment;
    this.size = image.size;
    this.readOnly = image.readOnly;
    this.#libc = host.libc;
    this.#scratch = host.scratch;
    this.space = new Space(host.libc, image);
    this.freesZeroes = this.space.freed;
    this.#cached = alignment.file > SECTOR ? openCached(host, this.image) : undefined;
  }

  read(offset: number, into: Segments): StoreResult {
    return this.#transfer(offset, into, false);
  }

  write(offset: number, from: Segments): StoreResult {
    return this.readOnly ? 'EROFS' : this.#transfer(offset, from, true);
  }

  flush(): StoreResult {
    return flushImage(this.#libc, this.image);
  }

  discard(offset: number, length: number): StoreResult {
    return this.readOnly ? 'EROFS' : this.space.discard(offset, length);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): StoreResult {
    if (this.readOnly) return 'EROFS';
    return this.space.zero(offset, length, mayUnmap) ?? this.putZeroes(offset, length);
  }

  /** Writes zeroes, where the host cannot do better. */
  putZeroes(offset: number, length: number): StoreResult {
    if (!this.takes(offset, length)) return this.#cached!.putZeroes(offset, length);
    const { zeroes } = this.#scratch;
    for (let done = 0, tries = 0; done < length; ) {
      const piece = Math.min(length - done, zeroes.length);
      const moved = this.#libc.pwrite(this.image.fd, zeroes.address, piece, offset + done);
      const failure = this.#failureOf(moved, tries++, true);
      if (failure !== undefined) return failure;
      if (moved > 0) tries = 0;
      done += Math.max(moved, 0);
    }
    return 'ok';
  }

  /** Whether direct I/O takes a range of the image; without it, anything is. */
  takes(offset: number, length: number): boolean {
    const { file } = this.alignment;
    return file <= SECTOR || (offset % file === 0 && length % file === 0);
  }

  /** Whether the kernel moves bytes from and to this memory itself. */
  reaches({ count, regions, offsets, lengths }: Segments): boolean {
    const { memory } = this.alignment;
    for (let i = 0; i < count; i++) {
      const { address } = regions[i];
      if (address === 0) return false;
      if (memory > 1 && ((address + offsets[i]) % memory !== 0 || lengths[i] % memory !== 0)) return false;
    }
    return true;
  }

  close(): void {
    this.image.close();
    this.#cached?.close();
  }

  #transfer(offset: number, segments: Segments, isWrite: boolean): StoreResult {
    const { byteLength } = segments;
    if (!this.takes(offset, byteLength)) return this.#cached!.#transfer(offset, segments, isWrite);
    let isReached = this.reaches(segments);
    for (let done = 0, tries = 0; done < byteLength; ) {
      const moved = isReached
        ? this.#move(offset, segments, done, isWrite)
        : this.#bounce(offset, segments, done, isWrite);
      if (moved < 0 && isReached && this.#isUnpinned()) {
        isReached = false;
        continue;
      }
      const failure = this.#failureOf(moved, tries++, isWrite);
      if (failure !== undefined) return failure;
      if (moved > 0) tries = 0;
      done += Math.max(moved, 0);
    }
    return 'ok';
  }

  /**
   * Whether direct I/O has failed because the kernel cannot have the memory stay for the disk, as that of another domain
   * of Xen which was mapped without grants.
   */
  #isUnpinned(): boolean {
    return this.alignment.memory > 1 && this.#libc.errno() === EFAULT;
  }

  /** What a system call has come to that returned `moved`; undefined where it goes on, or is to be repeated. */
  #failureOf(moved: number, tries: number, isWrite: boolean): StoreResult | undefined {
    if (moved > 0) return undefined;
    if (moved === 0) return isWrite ? 'EIO' : this.image.ended();
    const errno = this.#libc.errno();
    return isInterrupted(errno) && tries < MOST_TRIES ? undefined : resultOfErrno(errno);
  }

  #move(offset: number, segments: Segments, done: number, isWrite: boolean): number {
    const libc = this.#libc;
    const { fd } = this.image;
    if (segments.count === 1) {
      const address = segments.regions[0].address + segments.offsets[0] + done;
      const length = segments.byteLength - done;
      // A tenth faster than with a vector of one.
      return isWrite
        ? libc.pwrite(fd, address, length, offset + done)
        : libc.pread(fd, address, length, offset + done);
    }
    const { vectors, vectorWords } = this.#scratch;
    const count = putVectors(vectorWords, 0, MOST_VECTORS, segments, done);
    return isWrite
      ? libc.pwritev(fd, vectors.address, count, offset + done)
      : libc.preadv(fd, vectors.address, count, offset + done);
  }

  /** By way of our own memory. */
  #bounce(offset: number, segments: Segments, done: number, isWrite: boolean): number {
    const { bounce } = this.#scratch;
    const length = Math.min(segments.byteLength - done, bounce.length);
    if (isWrite) {
      segments.copyTo(bounce.u8, done, length);
      return this.#libc.pwrite(this.image.fd, bounce.address, length, offset + done);
    }
    const moved = this.#libc.pread(this.image.fd, bounce.address, length, offset + done);
    if (moved > 0) segments.copyFrom(bounce.u8.subarray(0, moved), done);
    return moved;
  }
}

/** The image once more, through the page cache. */
function openCached(host: ImageHost, image: Image): VectoredImage {
  try {
    return new VectoredImage(host, image.path, { readOnly: image.readOnly });
  } catch (error) {
    image.close();
    throw error;
  }
}
