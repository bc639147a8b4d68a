// A raw image file: byte n of the disk is byte n of the file. Reads go from the page cache straight into
// the guest's memory.

import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  openSync,
  readSync,
  readvSync,
  writeSync,
  writevSync,
} from 'node:fs';
import type { Segments } from '../memory/segments.ts';
import type { BlockStore, StoreResult } from './block-store.ts';

/** Why an image cannot be a disk. `message` is one sentence for the user. */
export class ImageError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'ImageError';
  }
}

const SECTOR = 512;
const ZEROES = new Uint8Array(256 * 1024);
/** So often a call is repeated that was interrupted before it had moved anything. */
const MOST_TRIES = 10_000;

function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** What a failed system call is to the guest. Node's own complaints (ERR_) are about us, and are no I/O errors. */
function resultOf(error: unknown): StoreResult {
  const code = errnoOf(error);
  if (code === undefined || code.startsWith('ERR_')) throw error;
  return code === 'ENOSPC' || code === 'EDQUOT' ? 'ENOSPC' : 'EIO';
}

/** Opens `path`, and says in a sentence why it cannot be used. */
function openImage(path: string, readOnly: boolean): { fd: number; size: number } {
  let fd: number;
  try {
    // O_NONBLOCK: opening a named pipe to read from it would wait for a writer for ever.
    fd = openSync(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT') throw new ImageError(`disk image ${path}: no such file`, error);
    if (code === 'EISDIR') throw new ImageError(`disk image ${path}: is a directory, not an image`, error);
    if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')
      throw new ImageError(
        `disk image ${path}: may not be opened for writing; add ",ro" to serve it read-only`,
        error,
      );
    throw new ImageError(`disk image ${path}: cannot be opened (${code ?? error})`, error);
  }
  try {
    return { fd, size: checkedSize(fd, path) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function checkedSize(fd: number, path: string): number {
  const stat = fstatSync(fd);
  if (stat.isDirectory()) throw new ImageError(`disk image ${path}: is a directory, not an image`);
  if (!stat.isFile()) throw new ImageError(`disk image ${path}: is neither a file nor a directory`);
  if (stat.size === 0) throw new ImageError(`disk image ${path}: is empty`);
  if (stat.size % SECTOR !== 0)
    throw new ImageError(
      `disk image ${path}: ${stat.size} bytes is no multiple of ${SECTOR}; pad it with truncate(1)`,
    );
  return stat.size;
}

/** Moves all of `segments`, in as many steps as the kernel takes. Returns EIO where the file has ended. */
function transfer(
  fd: number,
  offset: number,
  segments: Segments,
  one: (fd: number, bytes: Uint8Array, from: number, length: number, position: number) => number,
  many: (fd: number, pieces: Uint8Array[], position: number) => number,
): StoreResult {
  let done = 0;
  if (segments.count > 1) {
    const pieces: Uint8Array[] = [];
    for (let i = 0; i < segments.count; i++) {
      const start = segments.offsets[i];
      pieces.push(segments.regions[i].u8.subarray(start, start + segments.lengths[i]));
    }
    done = retry(() => many(fd, pieces, offset));
    if (done === segments.byteLength) return 'ok';
  }
  // What a short step left over, or a single segment.
  let skip = done;
  for (let i = 0; i < segments.count; i++) {
    const length = segments.lengths[i];
    while (skip < length) {
      const start = segments.offsets[i] + skip;
      const moved = retry(() => one(fd, segments.regions[i].u8, start, length - skip, offset + done));
      if (moved === 0) return 'EIO';
      skip += moved;
      done += moved;
    }
    skip -= length;
  }
  return 'ok';
}

/** Repeats a system call that a signal interrupted, but not for ever. */
function retry(call: () => number): number {
  for (let tries = 1; ; tries++) {
    try {
      return call();
    } catch (error) {
      const code = errnoOf(error);
      if ((code !== 'EINTR' && code !== 'EAGAIN') || tries === MOST_TRIES) throw error;
    }
  }
}

/** A raw image. */
export class RawFile implements BlockStore {
  readonly size: number;
  readonly readOnly: boolean;
  readonly #fd: number;
  /**
   * Nothing written before can be vouched for any more. Linux reports a failed write-back once and then takes the
   * pages for clean: the next fdatasync succeeds, and the data are not on the disk (known as fsyncgate). The same holds
   * for an image that became shorter. So every flush fails until somebody opens the image again, and has seen to it.
   */
  #untrusted = false;

  /** @throws ImageError when the image is missing, no file, empty, or no whole number of sectors */
  constructor(path: string, readOnly: boolean) {
    const { fd, size } = openImage(path, readOnly);
    this.#fd = fd;
    this.size = size;
    this.readOnly = readOnly;
  }

  read(offset: number, into: Segments): StoreResult {
    try {
      const result = transfer(this.#fd, offset, into, readSync, readvSync);
      // No system call has failed: the file has ended.
      if (result !== 'ok') this.#untrusted = true;
      return result;
    } catch (error) {
      return resultOf(error);
    }
  }

  write(offset: number, from: Segments): StoreResult {
    if (this.readOnly) return 'EROFS';
    try {
      return transfer(this.#fd, offset, from, writeSync, writevSync);
    } catch (error) {
      return resultOf(error);
    }
  }

  flush(): StoreResult {
    if (this.readOnly) return 'ok';
    if (this.#untrusted) return 'EIO';
    try {
      this.#untrusted = fstatSync(this.#fd).size < this.size;
      fdatasyncSync(this.#fd);
      return this.#untrusted ? 'EIO' : 'ok';
    } catch (error) {
      this.#untrusted = true;
      return resultOf(error);
    }
  }

  /** Node has no call to punch a hole, so the bytes stay as they are, which a discard permits. */
  discard(): StoreResult {
    return this.readOnly ? 'EROFS' : 'ok';
  }

  writeZeroes(offset: number, length: number): StoreResult {
    if (this.readOnly) return 'EROFS';
    try {
      for (let done = 0; done < length; ) {
        const piece = Math.min(length - done, ZEROES.length);
        const moved = retry(() => writeSync(this.#fd, ZEROES, 0, piece, offset + done));
        if (moved === 0) return 'EIO';
        done += moved;
      }
      return 'ok';
    } catch (error) {
      return resultOf(error);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
