// A disk that hangs, for as long as a test wants: the memory of a request waits for whoever touches it, which is the
// kernel in a system call (userfaultfd(2)).

import { readFileSync } from 'node:fs';
import { Arena } from '../../src/hosts/linux/arena.ts';
import { checked, type Libc, loadLibc } from '../../src/hosts/linux/libc.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import type { DiskGuest } from './vhost-guest.test.helper.ts';

const SYS_USERFAULTFD = process.arch === 'x64' ? 323 : 282;
const O_CLOEXEC_NONBLOCK = 0x80800;
const UFFDIO_API = 0xc018aa3f;
const UFFD_API = 0xaan;
const UFFDIO_REGISTER = 0xc020aa00;
const MODE_MISSING = 1n;
const PAGE = 4096;

function open(libc: Libc): number {
  return libc.syscall(SYS_USERFAULTFD, O_CLOEXEC_NONBLOCK, 0, 0, 0, 0, 0);
}

function whyNot(): string | boolean {
  if (native.skip !== false) return native.skip;
  const libc = loadLibc();
  const fd = open(libc);
  if (fd >= 0) libc.close(fd);
  return fd >= 0 ? false : 'this system lets no test catch page faults of the kernel (userfaultfd)';
}

/** Options of a test that makes system calls hang. */
export const hangable = { skip: whyNot() };

/**
 * Has the request of head `head` hang, of a guest whose backend is in this process and has its memory: the data of this
 * head must never have been written.
 *
 * @returns a descriptor that can be read when the request hangs; it goes on when it is closed
 */
export function hangRequest(guest: DiskGuest, head: number): number {
  const { frontend, memory } = guest;
  const { libc } = frontend;
  const [address] = addressesOf('/memfd:grantio-guest').filter((at) => at !== memory.region.address);
  const arena = new Arena(libc, 4096);
  const fd = checked(libc, 'userfaultfd', open(libc), 'page faults');
  const call = (request: number, words: readonly bigint[]): void => {
    const place = arena.take(words.length * 8);
    for (const [i, word] of words.entries()) place.view.setBigUint64(i * 8, word, true);
    checked(libc, 'ioctl', libc.ioctl(fd, request, place.address), 'page faults');
  };
  call(UFFDIO_API, [UFFD_API, 0n, 0n]);
  call(UFFDIO_REGISTER, [BigInt(address + guest.dataAt(head)), BigInt(PAGE), MODE_MISSING, 0n]);
  arena.close();
  return fd;
}

/** Where this process maps files whose name has `name`. */
function addressesOf(name: string): number[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return lines.filter((line) => line.includes(name)).map((line) => Number.parseInt(line, 16));
}
