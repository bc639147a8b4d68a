// Keeps two programs from writing one image: a lock on the open file that others ask for, as QEMU does. After
// host-image.ts.

import { type Image, ImageError } from '../../storage/image.ts';
import type { Arena } from './arena.ts';
import type { Libc } from './libc.ts';

/** Locks that belong to an open file, not to a process (fcntl(2), "Open file description locks"). */
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
/** struct flock of 64-bit Linux: type, whence, start, length, pid. All zero but the type is the whole file. */
const FLOCK_SIZE = 32;
const EAGAIN = 11;
const EACCES = 13;

/**
 * Locks an image for as long as it is open: against all others where it is written, otherwise against writers. To be
 * called for one of the stores that serve a disk, since those of other threads are others as well. The system drops
 * the lock when the process ends, however it ends.
 *
 * @returns false where the file system has no locks: nothing keeps others out
 * @throws ImageError when somebody else has the image open
 */
export function lockImage(libc: Libc, arena: Arena, { fd, path, readOnly }: Image): boolean {
  const lock = arena.take(FLOCK_SIZE);
  lock.view.setInt16(0, readOnly ? F_RDLCK : F_WRLCK, true);
  const result = libc.fcntl(fd, F_OFD_SETLK, lock.address);
  arena.giveBack(lock);
  if (result === 0) return true;
  const errno = libc.errno();
  if (errno !== EAGAIN && errno !== EACCES) return false;
  throw new ImageError(
    `disk image ${path}: another program ${readOnly ? 'writes it' : 'uses it'}; end that, or serve a copy`,
  );
}
