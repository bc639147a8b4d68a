// An image as every store sees it that serves one: how it is opened, what is refused and in which words, what an
// error of the host is to the guest, and whether a flush may still vouch for the data. Before raw-file.ts and the
// stores of hosts/linux/.

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import type { StoreResult } from './block-store.ts';

/** Why an image cannot be a disk. `message` is one sentence for the user. */
export class ImageError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'ImageError';
  }
}

const SECTOR = 512;

/** The errno of a failed system call, such as "ENOSPC"; undefined for what is none. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** What a failed system call is to the guest. Node's own complaints (ERR_) are about us, and are no I/O errors. */
export function resultOf(error: unknown): StoreResult {
  const code = errnoOf(error);
  if (code === undefined || code.startsWith('ERR_')) throw error;
  return code === 'ENOSPC' || code === 'EDQUOT' ? 'ENOSPC' : 'EIO';
}

/** How an image is opened. */
export interface ImageOptions {
  readonly readOnly: boolean;
  /** What whoever asked for the image does to have it only read, for the message: "say ...". */
  readonly readOnlyHint: string;
  /** Further flags of open(2). */
  readonly flags?: number;
  /** Bytes of a block device; without it block devices are refused. */
  readonly deviceSize?: (fd: number) => number;
}

/** An image that is open. */
export class Image {
  readonly path: string;
  readonly fd: number;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly isDevice: boolean;
  /**
   * Nothing written before can be vouched for any more. Linux reports a failed write-back once and then takes the
   * pages for clean: the next fdatasync succeeds, and the data are not on the disk (known as fsyncgate). The same holds
   * for an image that became shorter. So every flush fails until somebody opens the image again, and has seen to it.
   */
  #untrusted = false;

  /** @throws ImageError when the image is missing, no file, empty, or no whole number of sectors */
  constructor(path: string, { readOnly, readOnlyHint, flags = 0, deviceSize }: ImageOptions) {
    this.path = path;
    this.readOnly = readOnly;
    this.fd = openDescriptor(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | flags, readOnlyHint);
    try {
      const stat = fstatSync(this.fd);
      this.isDevice = stat.isBlockDevice() && deviceSize !== undefined;
      if (stat.isDirectory()) throw new ImageError(`disk image ${path}: is a directory, not an image`);
      if (!stat.isFile() && !this.isDevice)
        throw new ImageError(`disk image ${path}: is neither a file nor a directory`);
      this.size = checkedSize(path, this.isDevice ? deviceSize!(this.fd) : stat.size);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  /** The host has moved nothing though there should be more: the image became shorter. */
  ended(): StoreResult {
    this.#untrusted = true;
    return 'EIO';
  }

  /** Before a flush: its outcome, if that is known without asking the host. */
  knownFlush(): StoreResult | undefined {
    if (this.readOnly) return 'ok';
    try {
      if (!this.isDevice && fstatSync(this.fd).size < this.size) this.#untrusted = true;
    } catch (error) {
      return this.flushed(resultOf(error));
    }
    return this.#untrusted ? 'EIO' : undefined;
  }

  /** After a flush: its outcome, where the host has answered `result`. */
  flushed(result: StoreResult): StoreResult {
    if (result !== 'ok') this.#untrusted = true;
    return this.#untrusted && result === 'ok' ? 'EIO' : result;
  }

  close(): void {
    closeSync(this.fd);
  }
}

function openDescriptor(path: string, flags: number, readOnlyHint: string): number {
  try {
    // O_NONBLOCK: opening a named pipe to read from it would wait for a writer for ever.
    return openSync(path, flags | constants.O_NONBLOCK);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT') throw new ImageError(`disk image ${path}: no such file`, error);
    if (code === 'EISDIR') throw new ImageError(`disk image ${path}: is a directory, not an image`, error);
    if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')
      throw new ImageError(
        `disk image ${path}: may not be opened for writing; ${readOnlyHint} to serve it read-only`,
        error,
      );
    if (code === 'EINVAL' && flags & constants.O_DIRECT)
      throw new ImageError(
        `disk image ${path}: its file system has no direct I/O; serve it through the page cache`,
        error,
      );
    throw new ImageError(`disk image ${path}: cannot be opened (${code ?? error})`, error);
  }
}

function checkedSize(path: string, size: number): number {
  if (size === 0) throw new ImageError(`disk image ${path}: is empty`);
  if (size % SECTOR !== 0)
    throw new ImageError(
      `disk image ${path}: ${size} bytes is no multiple of ${SECTOR}; pad it with truncate(1)`,
    );
  return size;
}
