// An image opened for the system calls of this folder: also block devices, and past the page cache (O_DIRECT).
// After storage/image.ts, before vectored-image.ts, uring-image.ts and mapped-image.ts.

import { constants } from 'node:fs';
import type { StoreResult } from '../../storage/block-store.ts';
import { Image, ImageError } from '../../storage/image.ts';
import type { Arena } from './arena.ts';
import { checked, type Libc } from './libc.ts';

const BLKGETSIZE64 = 0x8008_1272;
const BLKSSZGET = 0x1268;
const F_GETFL = 3;
const F_SETFL = 4;
const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;
/** struct statx (linux/stat.h): its size, and what is read of it. */
const STATX_SIZE = 256;
const MASK_OFFSET = 0;
const DIO_MEMORY_OFFSET = 152;
const DIO_FILE_OFFSET = 156;
/** What all disks and file systems accept that have direct I/O, for kernels before 6.1 that do not tell. */
const CAUTIOUS = 4096;
const SECTOR = 512;

/** The kernel cannot use the memory. */
export const EFAULT = 14;
const EINTR = 4;
const EAGAIN = 11;
const ENOSPC = 28;
const EDQUOT = 122;

/** How an image is opened. */
export interface HostImageOptions {
  readonly readOnly: boolean;
  /** Past the host's page cache. */
  readonly direct?: boolean;
}

/** What direct I/O wants addresses and places to be multiples of, in bytes; 1 where it may be anything. */
export interface Alignment {
  /** Of addresses and lengths in memory. */
  readonly memory: number;
  /** Of offsets and lengths in the image. */
  readonly file: number;
}

/** An open image, and how its bytes may be moved. */
export interface HostImage {
  readonly image: Image;
  readonly alignment: Alignment;
}

/** What an error number is to the guest. */
export function resultOfErrno(errno: number): StoreResult {
  return errno === ENOSPC || errno === EDQUOT ? 'ENOSPC' : 'EIO';
}

/** Whether a call that failed so has done nothing, and is to be repeated. */
export function isInterrupted(errno: number): boolean {
  return errno === EINTR || errno === EAGAIN;
}

/**
 * Opens the image or block device at `path`. Throws ImageError when it cannot be a disk, or direct I/O is asked for
 * where there is none.
 */
export function openHostImage(
  libc: Libc,
  arena: Arena,
  path: string,
  { readOnly, direct = false }: HostImageOptions,
): HostImage {
  const image = new Image(path, {
    readOnly,
    // As the options of a device are called, on the command line and in files.
    readOnlyHint: 'say --read-only',
    flags: direct ? constants.O_DIRECT : 0,
    deviceSize: (fd) => deviceSize(libc, arena, fd),
  });
  try {
    settle(libc, image);
    return { image, alignment: direct ? directAlignment(libc, arena, image) : { memory: 1, file: 1 } };
  } catch (error) {
    image.close();
    throw error;
  }
}

/** Gives an open image the flags with which it is used. */
function settle(libc: Libc, { fd, path }: Image): void {
  // O_NONBLOCK was for opening only: with it, io_uring would give up where it has to wait.
  const flags = checked(libc, 'fcntl', libc.fcntl(fd, F_GETFL, 0), path) & ~constants.O_NONBLOCK;
  // A read need not note its time, which costs a few percent. Only the image's owner may have it so.
  if (libc.fcntl(fd, F_SETFL, flags | constants.O_NOATIME) >= 0) return;
  checked(libc, 'fcntl', libc.fcntl(fd, F_SETFL, flags), path);
}

/** Makes what was written to an image survive a power cut, and says whether that can be vouched for. */
export function flushImage(libc: Libc, image: Image): StoreResult {
  const known = image.knownFlush();
  if (known !== undefined) return known;
  const failed = libc.fdatasync(image.fd) < 0;
  return image.flushed(failed ? resultOfErrno(libc.errno()) : 'ok');
}

/** Has `call` fill scratch memory of `length` bytes, and gives what `read` finds there. */
function ask<T>(
  arena: Arena,
  length: number,
  call: (address: number) => number,
  read: (view: DataView, result: number) => T,
): T {
  const place = arena.take(length);
  try {
    return read(place.view, call(place.address));
  } finally {
    arena.giveBack(place);
  }
}

function deviceSize(libc: Libc, arena: Arena, fd: number): number {
  const call = (address: number) =>
    checked(libc, 'ioctl', libc.ioctl(fd, BLKGETSIZE64, address), 'size of a block device');
  return ask(arena, 8, call, (view) => Number(view.getBigUint64(0, true)));
}

function directAlignment(libc: Libc, arena: Arena, image: Image): Alignment {
  const told = toldAlignment(libc, arena, image.fd) ?? {
    memory: CAUTIOUS,
    file: image.isDevice ? sectorOf(libc, arena, image.fd) : CAUTIOUS,
  };
  if (told.file === 0)
    throw new ImageError(
      `disk image ${image.path}: its file system has no direct I/O; serve it through the page cache`,
    );
  // Less would do for some disks, but not for pieces of any length; drivers send pieces of whole sectors.
  return { memory: Math.max(told.memory, SECTOR), file: told.file };
}

/** As the kernel tells it; undefined where it does not. */
function toldAlignment(libc: Libc, arena: Arena, fd: number): Alignment | undefined {
  const call = (address: number) => libc.statx(fd, '', AT_EMPTY_PATH, STATX_DIOALIGN, address);
  return ask(arena, STATX_SIZE, call, (view, result) => {
    const isTold = result === 0 && (view.getUint32(MASK_OFFSET, true) & STATX_DIOALIGN) !== 0;
    if (!isTold) return undefined;
    return { memory: view.getUint32(DIO_MEMORY_OFFSET, true), file: view.getUint32(DIO_FILE_OFFSET, true) };
  });
}

function sectorOf(libc: Libc, arena: Arena, fd: number): number {
  const call = (address: number) =>
    checked(libc, 'ioctl', libc.ioctl(fd, BLKSSZGET, address), 'sectors of a block device');
  return ask(arena, 8, call, (view) => view.getUint32(0, true));
}
