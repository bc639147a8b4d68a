// Locks by which programs keep each other out of a file: they belong to an open file and not to a process (fcntl(2), "Open
// file description locks"), and the system drops them when the last process that has it open ends, however it ends.
// Used by image-lock.ts and serving/xen-claims.ts.

import type { Arena } from './arena.ts';
import { checked, type Libc } from './libc.ts';

const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
/** struct flock of 64-bit Linux: type, whence (0: from the start), start, length, pid (has to be 0). */
const FLOCK_SIZE = 32;
const START_OFFSET = 8;
const LENGTH_OFFSET = 16;
const EAGAIN = 11;
const EACCES = 13;

/** Bytes of a file. */
export interface FileRange {
  readonly start: number;
  /** 0 for all from there on. */
  readonly length: number;
}

const WHOLE: FileRange = { start: 0, length: 0 };

/**
 * Locks bytes of an open file, against all others or only against those who want them for themselves. Others are also
 * those in this process who have opened the file anew.
 *
 * @returns 'held' when somebody else has them, 'unavailable' where the file system has no locks
 */
export function lockFile(
  libc: Libc,
  arena: Arena,
  fd: number,
  kind: 'exclusive' | 'shared',
  range = WHOLE,
): 'locked' | 'held' | 'unavailable' {
  if (setLock(libc, arena, fd, kind === 'shared' ? F_RDLCK : F_WRLCK, range) === 0) return 'locked';
  const errno = libc.errno();
  return errno === EAGAIN || errno === EACCES ? 'held' : 'unavailable';
}

/** Gives locked bytes back. Throws SystemError. */
export function unlockFile(libc: Libc, arena: Arena, fd: number, range: FileRange): void {
  checked(libc, 'fcntl', setLock(libc, arena, fd, F_UNLCK, range), 'giving back a lock');
}

function setLock(libc: Libc, arena: Arena, fd: number, type: number, { start, length }: FileRange): number {
  const lock = arena.take(FLOCK_SIZE);
  lock.view.setInt16(0, type, true);
  lock.view.setBigInt64(START_OFFSET, BigInt(start), true);
  lock.view.setBigInt64(LENGTH_OFFSET, BigInt(length), true);
  const result = libc.fcntl(fd, F_OFD_SETLK, lock.address);
  arena.giveBack(lock);
  return result;
}
