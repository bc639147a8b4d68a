// Unix sockets that carry file descriptors (SCM_RIGHTS), which Node's own do not. After libc.ts.
//
// Every descriptor that arrives is the receiver's to close, also those of a message it refuses: they are
// handed out with the bytes, and closed here only where the message is not handed out.

import { assert } from '../../errors.ts';
import type { Arena, Scratch } from './arena.ts';
import { checked, type Libc, SystemError } from './libc.ts';

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0x80001;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const EINTR = 4;
const EAGAIN = 11;

/** struct msghdr and struct cmsghdr of 64-bit Linux. */
const MSGHDR_SIZE = 56;
const CMSG_HEADER = 16;
/** Descriptors of one message: more than any message of ours or of vhost-user has. */
const MAX_FDS = 32;
/** Connections that wait to be taken. */
const BACKLOG = 16;
/** Room for descriptors, and for what a descriptor that we were given may have switched on besides (credentials). */
const CONTROL_SIZE = 256;
const SOCKADDR_SIZE = 110;
const FLAGS_OFFSET = 48;

/** What came in one read. */
export interface Received {
  /** Bytes read; 0 at the end of the stream, -1 when there is nothing yet. */
  readonly length: number;
  readonly fds: number[];
}

/** One end of a connection, blocking or not as its descriptor is. */
export class FdSocket {
  readonly fd: number;
  readonly #libc: Libc;
  readonly #arena: Arena;
  readonly #header: Scratch;
  readonly #vector: Scratch;
  readonly #control: Scratch;
  readonly #data: Scratch;

  /** @param most longest message, in bytes */
  constructor(libc: Libc, arena: Arena, fd: number, most: number) {
    this.fd = fd;
    this.#libc = libc;
    this.#arena = arena;
    this.#header = arena.take(MSGHDR_SIZE);
    this.#vector = arena.take(16);
    this.#control = arena.take(CONTROL_SIZE);
    this.#data = arena.take(most);
  }

  /**
   * Reads what there is, up to `target.length` bytes, into `target`. A message with more descriptors than any has
   * is the end of the stream; those that came are closed.
   *
   * @param wait false to return -1 rather than wait
   */
  receive(target: Uint8Array, wait: boolean): Received {
    const most = Math.min(target.length, this.#data.length);
    const length = this.#receive(most, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    // A peer that is gone resets the connection: that is its end.
    if (length < 0) return { length: this.#libc.errno() === EAGAIN ? -1 : 0, fds: [] };
    const fds = this.#receivedFds();
    if (this.#header.view.getInt32(FLAGS_OFFSET, true) & MSG_CTRUNC) {
      this.closeAll(fds);
      return { length: 0, fds: [] };
    }
    target.set(this.#data.u8.subarray(0, length));
    return { length, fds };
  }

  /**
   * Sends all of `bytes`, and `fds` with the first of them, without waiting for the peer to make room.
   *
   * @returns false when the peer is gone or takes nothing: part of the message may be out, so the connection is over
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    assert(fds.length <= MAX_FDS, 'descriptors of a message', fds.length, MAX_FDS);
    assert(fds.length === 0 || bytes.length > 0, 'descriptors travel with bytes');
    for (let done = 0; done < bytes.length; ) {
      const piece = Math.min(bytes.length - done, this.#data.length);
      this.#data.u8.set(bytes.subarray(done, done + piece));
      this.#prepare(piece, done === 0 ? this.#putFds(fds) : 0);
      const sent = this.#libc.sendmsg(this.fd, this.#header.address, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && this.#libc.errno() !== EINTR) return false;
      if (sent > 0) done += sent;
    }
    return true;
  }

  closeAll(fds: readonly number[]): void {
    for (const fd of fds) this.#libc.close(fd);
  }

  /** Closes the connection, and gives back what it took of the arena. */
  close(): void {
    this.#libc.close(this.fd);
    for (const piece of [this.#header, this.#vector, this.#control, this.#data]) this.#arena.giveBack(piece);
  }

  #receive(most: number, flags: number): number {
    for (;;) {
      this.#prepare(most, this.#control.length);
      const length = this.#libc.recvmsg(this.fd, this.#header.address, flags);
      if (length >= 0 || this.#libc.errno() !== EINTR) return length;
    }
  }

  #prepare(length: number, controlLength: number): void {
    const { view } = this.#header;
    this.#header.u8.fill(0);
    setAddress(this.#vector.view, 0, this.#data.address);
    setAddress(this.#vector.view, 8, length);
    setAddress(view, 16, this.#vector.address);
    view.setUint32(24, 1, true);
    if (controlLength === 0) return;
    setAddress(view, 32, this.#control.address);
    view.setUint32(40, controlLength, true);
  }

  #putFds(fds: readonly number[]): number {
    if (fds.length === 0) return 0;
    const { view } = this.#control;
    const length = CMSG_HEADER + fds.length * 4;
    setAddress(view, 0, length);
    view.setInt32(8, SOL_SOCKET, true);
    view.setInt32(12, SCM_RIGHTS, true);
    for (const [index, fd] of fds.entries()) view.setInt32(CMSG_HEADER + index * 4, fd, true);
    return (length + 7) & ~7;
  }

  /** Descriptors of all control messages, of which others may come before them. */
  #receivedFds(): number[] {
    const { view } = this.#control;
    const end = this.#header.view.getUint32(40, true);
    const fds: number[] = [];
    for (let at = 0; at + CMSG_HEADER <= end; ) {
      const length = view.getUint32(at, true);
      if (length < CMSG_HEADER) break;
      const isRights =
        view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS;
      const last = isRights ? Math.min(at + length, end) - 4 : -1;
      for (let fd = at + CMSG_HEADER; fd <= last; fd += 4) fds.push(view.getInt32(fd, true));
      at += (length + 7) & ~7;
    }
    return fds;
  }
}

/** A 64-bit word whose value is an address or a length. */
function setAddress(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function putPath(scratch: Scratch, path: string): void {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > SOCKADDR_SIZE - 3)
    throw new RangeError(`socket path ${path}: ${bytes.length} bytes, expected 1 to ${SOCKADDR_SIZE - 3}`);
  scratch.u8.fill(0);
  scratch.view.setUint16(0, AF_UNIX, true);
  scratch.u8.set(bytes, 2);
}

/** Connects to the socket at `path`. Throws SystemError, RangeError for a path that no socket can have. */
export function connectTo(libc: Libc, arena: Arena, path: string): number {
  const address = arena.take(SOCKADDR_SIZE);
  try {
    putPath(address, path);
    const fd = checked(libc, 'socket', libc.socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0), `socket ${path}`);
    if (libc.connect(fd, address.address, SOCKADDR_SIZE) >= 0) return fd;
    const errno = libc.errno();
    libc.close(fd);
    throw new SystemError('connect', errno, `socket ${path}`);
  } finally {
    arena.giveBack(address);
  }
}

/** Makes a socket that listens at `path`, which nothing has yet. Throws SystemError, RangeError as `connectTo` does. */
export function listenOn(libc: Libc, arena: Arena, path: string): number {
  const address = arena.take(SOCKADDR_SIZE);
  putPath(address, path);
  const fd = checked(libc, 'socket', libc.socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0), path);
  // With room to spare the name would have zero bytes in it.
  const length = 2 + new TextEncoder().encode(path).length + 1;
  if (libc.bind(fd, address.address, length) >= 0 && libc.listen(fd, BACKLOG) >= 0) return fd;
  const errno = libc.errno();
  libc.close(fd);
  throw new SystemError('bind', errno, `socket ${path}`);
}

/** Takes the next connection of a listening socket; reading it blocks unless it is told not to. Returns its descriptor, or -1 when there is none. */
export function acceptFrom(libc: Pick<Libc, 'accept4'>, listening: number): number {
  return libc.accept4(listening, 0, 0, 0x80000);
}
