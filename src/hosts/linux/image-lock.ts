// Keeps two programs from writing one image: a lock on the open file that others ask for, as QEMU does. After
// host-image.ts, before file-lock.ts.

import { type Image, ImageError } from '../../storage/image.ts';
import type { Arena } from './arena.ts';
import { lockFile } from './file-lock.ts';
import type { Libc } from './libc.ts';

/**
 * Locks an image for as long as it is open: against all others where it is written, otherwise against writers. To be
 * called for one of the stores that serve a disk, since those of other threads are others as well.
 *
 * @returns false where the file system has no locks: nothing keeps others out
 * @throws ImageError when somebody else has the image open
 */
export function lockImage(libc: Libc, arena: Arena, { fd, path, readOnly }: Image): boolean {
  const result = lockFile(libc, arena, fd, readOnly ? 'shared' : 'exclusive');
  if (result !== 'held') return result === 'locked';
  throw new ImageError(
    `disk image ${path}: another program ${readOnly ? 'writes it' : 'uses it'}; end that, or serve a copy`,
  );
}
