// A raw image file: byte n of the disk is byte n of the file. Reads go from the page cache straight into
// the guest's memory.

import { fdatasyncSync, readSync, readvSync, writeSync, writevSync } from 'node:fs';
import type { Segments } from '../memory/segments.ts';
import type { BlockStore, StoreResult } from './block-store.ts';
import { errnoOf, Image, resultOf } from './image.ts';

const ZEROES = new Uint8Array(256 * 1024);
/** So often a call is repeated that was interrupted before it had moved anything. */
const MOST_TRIES = 10_000;

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
  readonly freesZeroes = false;
  readonly #image: Image;
  readonly #fd: number;

  /** @throws ImageError when the image is missing, no file, empty, or no whole number of sectors */
  constructor(path: string, readOnly: boolean) {
    this.#image = new Image(path, { readOnly, readOnlyHint: 'add ",ro"' });
    this.#fd = this.#image.fd;
    this.size = this.#image.size;
    this.readOnly = readOnly;
  }

  read(offset: number, into: Segments): StoreResult {
    try {
      const result = transfer(this.#fd, offset, into, readSync, readvSync);
      // No system call has failed: the file has ended.
      return result === 'ok' ? result : this.#image.ended();
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
    const known = this.#image.knownFlush();
    if (known !== undefined) return known;
    try {
      fdatasyncSync(this.#fd);
      return this.#image.flushed('ok');
    } catch (error) {
      return this.#image.flushed(resultOf(error));
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
    this.#image.close();
  }
}
