// Files in memory that are shared with a peer, who maps them and need not fear that they shrink (case R7).
// After libc.ts.

import { checked, type Libc } from './libc.ts';

const MFD_CLOEXEC_ALLOW_SEALING = 0x3;
const F_ADD_SEALS = 1033;
/** Nobody changes the file's size any more, and nobody changes that. */
const SEAL_SEAL_SHRINK_GROW = 0x7;

/**
 * Makes a file of `length` zeroed bytes. Returns its descriptor, which is the caller's.
 *
 * @param name what it is called in /proc
 * @param about what it is for, in the words of an error
 * @throws SystemError
 */
export function sealedFile(libc: Libc, name: string, length: number, about: string): number {
  const fd = checked(libc, 'memfd_create', libc.memfd_create(name, MFD_CLOEXEC_ALLOW_SEALING), about);
  try {
    checked(libc, 'ftruncate', libc.ftruncate(fd, length), about);
    checked(libc, 'fcntl', libc.fcntl(fd, F_ADD_SEALS, SEAL_SEAL_SHRINK_GROW), about);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}
