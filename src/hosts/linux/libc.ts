// The C library, called through koffi: what Node has no function for, and what must not cost an event loop.
// koffi is an optional dependency; everything that needs it says so in one sentence when it is not there.
//
// Pointers are numbers (addresses of today's machines have 47 bits). A call that fails returns what C returns;
// `errno` then has the reason, until the next call.
//
// open, fcntl, ioctl and syscall are variadic in C and are bound with as many integers as are passed: 64-bit Linux passes
// those in the same registers either way, on x86-64, Arm and RISC-V alike.

import { createRequire } from 'node:module';
import { constants } from 'node:os';

/** The functions that are used, with the meaning they have in C. */
export interface Libc {
  mmap(
    address: number,
    length: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ): number;
  munmap(address: number, length: number): number;
  memfd_create(name: string, flags: number): number;
  ftruncate(fd: number, length: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  ioctl(fd: number, request: number, argument: number): number;
  statx(directory: number, path: string, flags: number, mask: number, address: number): number;
  getpagesize(): number;
  /** A system call that has no function; arguments that it does not take are 0. */
  syscall(number: number, a: number, b: number, c: number, d: number, e: number, f: number): number;
  open(path: string, flags: number, mode: number): number;
  close(fd: number): number;
  dup(fd: number): number;
  eventfd(initial: number, flags: number): number;
  read(fd: number, address: number, length: number): number;
  write(fd: number, address: number, length: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  preadv(fd: number, vectors: number, count: number, offset: number): number;
  pwritev(fd: number, vectors: number, count: number, offset: number): number;
  preadv2(fd: number, vectors: number, count: number, offset: number, flags: number): number;
  fdatasync(fd: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  inotify_init1(flags: number): number;
  inotify_add_watch(inotify: number, path: string, events: number): number;
  epoll_create1(flags: number): number;
  epoll_ctl(epoll: number, operation: number, fd: number, event: number): number;
  epoll_wait(epoll: number, events: number, most: number, milliseconds: number): number;
  socket(domain: number, type: number, protocol: number): number;
  socketpair(domain: number, type: number, protocol: number, fds: number): number;
  setsockopt(fd: number, level: number, name: number, value: number, length: number): number;
  pipe2(fds: number, flags: number): number;
  bind(fd: number, address: number, length: number): number;
  listen(fd: number, backlog: number): number;
  getsockopt(fd: number, level: number, name: number, value: number, length: number): number;
  accept4(fd: number, address: number, length: number, flags: number): number;
  connect(fd: number, address: number, length: number): number;
  shutdown(fd: number, how: number): number;
  send(fd: number, address: number, length: number, flags: number): number;
  sendmsg(fd: number, message: number, flags: number): number;
  recvmsg(fd: number, message: number, flags: number): number;
  /** Ends the process at once, with all of its threads: nothing is done before. */
  _exit(status: number): void;
  /** Why the last call failed. */
  errno(): number;
  /**
   * An ArrayBuffer over `length` bytes at `address`, which must stay mapped for as long as it is used. Throws
   * RangeError for more than MOST_VIEWED.
   */
  view(address: number, length: number): ArrayBuffer;
}

/**
 * Bytes that one ArrayBuffer may show, on every Node that is supported: more than an engine can show would not throw in
 * koffi, but end the process.
 */
export const MOST_VIEWED = 2 ** 32;

const PROTOTYPES = [
  'int64_t mmap(int64_t, size_t, int, int, int, int64_t)',
  'int munmap(int64_t, size_t)',
  'int memfd_create(const char *, unsigned int)',
  'int ftruncate(int, int64_t)',
  'int fcntl(int, int, int64_t)',
  'int ioctl(int, unsigned long, int64_t)',
  'int statx(int, const char *, int, unsigned int, int64_t)',
  'int getpagesize()',
  'int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)',
  'int open(const char *, int, int)',
  'int close(int)',
  'int dup(int)',
  'int eventfd(unsigned int, int)',
  'int64_t read(int, int64_t, size_t)',
  'int64_t write(int, int64_t, size_t)',
  'int64_t pread(int, int64_t, size_t, int64_t)',
  'int64_t pwrite(int, int64_t, size_t, int64_t)',
  'int64_t preadv(int, int64_t, int, int64_t)',
  'int64_t pwritev(int, int64_t, int, int64_t)',
  'int64_t preadv2(int, int64_t, int, int64_t, int)',
  'int fdatasync(int)',
  'int fallocate(int, int, int64_t, int64_t)',
  'int inotify_init1(int)',
  'int inotify_add_watch(int, const char *, unsigned int)',
  'int epoll_create1(int)',
  'int epoll_ctl(int, int, int, int64_t)',
  'int epoll_wait(int, int64_t, int, int)',
  'int socket(int, int, int)',
  'int socketpair(int, int, int, int64_t)',
  'int setsockopt(int, int, int, int64_t, unsigned int)',
  'int pipe2(int64_t, int)',
  'int bind(int, int64_t, unsigned int)',
  'int listen(int, int)',
  'int getsockopt(int, int, int, int64_t, int64_t)',
  'int accept4(int, int64_t, int64_t, int)',
  'int connect(int, int64_t, unsigned int)',
  'int shutdown(int, int)',
  'int64_t send(int, int64_t, size_t, int)',
  'int64_t sendmsg(int, int64_t, int)',
  'int64_t recvmsg(int, int64_t, int)',
  'void _exit(int)',
] as const;

/** What of koffi is used. */
interface Koffi {
  load(path: null): { func(prototype: string): unknown };
  errno(): number;
  view(address: number, length: number): ArrayBuffer;
}

/** The system's C library cannot be called on this machine. */
export class NativeUnavailable extends Error {
  constructor(what: string, cause?: unknown) {
    super(what, { cause });
    this.name = 'NativeUnavailable';
  }
}

let bound: Libc | undefined;

/**
 * The C library of this process, bound once for each thread, whoever asks for it there. Throws NativeUnavailable where it cannot be called.
 *
 * @param user what needs it, in that error's sentence
 */
export function loadLibc(user = 'grantio'): Libc {
  const koffi = loadKoffi(user);
  bound ??= bind(koffi);
  return bound;
}

function loadKoffi(user: string): Koffi {
  if (process.platform !== 'linux')
    throw new NativeUnavailable(`${user} is for Linux only, this is ${process.platform}`);
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new NativeUnavailable(
      `${user} needs the optional package koffi, which ${whyMissing(error)}`,
      error,
    );
  }
}

function whyMissing(error: unknown): string {
  const isMissing = error instanceof Error && 'code' in error && error.code === 'MODULE_NOT_FOUND';
  if (isMissing) return 'is not installed: npm install koffi';
  return `cannot be loaded: ${error instanceof Error ? error.message : error}`;
}

function bind(koffi: Koffi): Libc {
  const library = koffi.load(null);
  const functions = PROTOTYPES.map((prototype) => {
    const name = /(\w+)\(/.exec(prototype)![1];
    return [name, library.func(prototype)] as const;
  });
  const view = (address: number, length: number): ArrayBuffer => {
    if (length > MOST_VIEWED)
      throw new RangeError(`memory of ${length} bytes: at most ${MOST_VIEWED} can be seen as one piece`);
    return koffi.view(address, length);
  };
  // The prototypes have the interface's names and types; nothing can check that they do.
  return { ...Object.fromEntries(functions), errno: koffi.errno, view } as unknown as Libc;
}

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** A system call that failed, in words that name it and its reason. */
export class SystemError extends Error {
  /** "ENOENT" and so on. */
  readonly code: string;

  constructor(call: string, errno: number, about: string) {
    const code = ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
    super(`${about}: ${call} failed: ${code}`);
    this.name = 'SystemError';
    this.code = code;
  }
}

/** Hands on the result of a call; throws a SystemError, which says what it was about, when it is negative. */
export function checked(libc: Libc, call: string, result: number, about: string): number {
  if (result < 0) throw new SystemError(call, libc.errno(), about);
  return result;
}
