// A raw image mapped into memory: for what the page cache holds no system call is left, only a copy. To be asked for,
// never chosen by itself: an image that somebody truncates, a disk that fails to read, or a full file system under a
// sparse image ends the process with SIGBUS, where other stores answer with an error. After host-image.ts.

import type { Segments } from '../../memory/segments.ts';
import type { BlockStore, StoreResult } from '../../storage/block-store.ts';
import type { Image } from '../../storage/image.ts';
import { flushImage, openHostImage } from './host-image.ts';
import { checked, type Libc } from './libc.ts';
import { Space } from './space.ts';
import type { ImageHost } from './vectored-image.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
/** Bytes that one array shows of the image. */
const WINDOW = 2 ** 30;

/** A raw image in memory. */
export class MappedImage implements BlockStore {
  readonly size: number;
  readonly readOnly: boolean;
  readonly freesZeroes: boolean;
  readonly image: Image;
  readonly #libc: Libc;
  readonly #space: Space;
  readonly #address: number;
  readonly #windows: Uint8Array[] = [];

  /** @throws ImageError when the image cannot be a disk, SystemError when it cannot be mapped */
  constructor({ libc, arena }: Pick<ImageHost, 'libc' | 'arena'>, path: string, readOnly: boolean) {
    const { image } = openHostImage(libc, arena, path, { readOnly });
    this.#libc = libc;
    this.image = image;
    this.size = image.size;
    this.readOnly = readOnly;
    this.#space = new Space(libc, image);
    this.freesZeroes = this.#space.freed;
    this.#address = mapAll(libc, image);
    for (let at = 0; at < this.size; at += WINDOW)
      this.#windows.push(new Uint8Array(libc.view(this.#address + at, Math.min(WINDOW, this.size - at))));
  }

  read(offset: number, into: Segments): StoreResult {
    this.#eachPiece(offset, into.byteLength, (piece, done) => into.copyFrom(piece, done));
    return 'ok';
  }

  write(offset: number, from: Segments): StoreResult {
    if (this.readOnly) return 'EROFS';
    this.#eachPiece(offset, from.byteLength, (piece, done) => from.copyTo(piece, done, piece.length));
    return 'ok';
  }

  /** The kernel knows which pages were written through the mapping: fdatasync writes those as well. */
  flush(): StoreResult {
    return flushImage(this.#libc, this.image);
  }

  discard(offset: number, length: number): StoreResult {
    return this.readOnly ? 'EROFS' : this.#space.discard(offset, length);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean): StoreResult {
    if (this.readOnly) return 'EROFS';
    const result = this.#space.zero(offset, length, mayUnmap);
    if (result !== undefined) return result;
    this.#eachPiece(offset, length, (piece) => piece.fill(0));
    return 'ok';
  }

  close(): void {
    checked(
      this.#libc,
      'munmap',
      this.#libc.munmap(this.#address, this.size),
      'ending the mapping of an image',
    );
    this.image.close();
  }

  /** A range is in several pieces where it goes from one window into the next. */
  #eachPiece(offset: number, length: number, use: (piece: Uint8Array, done: number) => void): void {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const start = at % WINDOW;
      const end = Math.min(start + length - done, WINDOW);
      use(this.#windows[Math.floor(at / WINDOW)].subarray(start, end), done);
      done += end - start;
    }
  }
}

function mapAll(libc: Libc, image: Image): number {
  const { path, size, readOnly, fd } = image;
  const protection = PROT_READ | (readOnly ? 0 : PROT_WRITE);
  try {
    return checked(libc, 'mmap', libc.mmap(0, size, protection, MAP_SHARED, fd, 0), `disk image ${path}`);
  } catch (error) {
    image.close();
    throw error;
  }
}
