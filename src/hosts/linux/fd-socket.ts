// Unix sockets that carry file descriptors (SCM_RIGHTS), which Node's own do not. After libc.ts.
//
// Every descriptor that arrives is the receiver's to close, also those of a message it refuses: they are
// handed out with the bytes, and closed here only where the message is not handed out.

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
const MAX_FDS = 32;
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
  readonly #header: Scratch;
  readonly #vector: Scratch;
  readonly #control: Scratch;
  readonly #data: Scratch;

  /** @param most longest message, in bytes */
  constructor(libc: Libc, arena: Arena, fd: number, most: number) {
    this.fd = fd;
    this.#libc = libc;
    this.#header = arena.take(MSGHDR_SIZE);
    this.#vector = arena.take(16);
    this.#control = arena.take(CMSG_HEADER + MAX_FDS * 4);
    this.#data = arena.take(most);
  }

  /**
   * Reads what there is, up to `target.length` bytes, into `target`.
   *
   * @param wait false to return -1 rather than wait
   */
  receive(target: Uint8Array, wait: boolean): Received {
    const most = Math.min(target.length, this.#data.length);
    this.#prepare(most, this.#control.length);
    const flags = MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT);
    const length = this.#libc.recvmsg(this.fd, this.#header.address, flags);
    if (length < 0) {
      const errno = this.#libc.errno();
      if (errno === EAGAIN || errno === EINTR) return { length: -1, fds: [] };
      // A peer that is gone resets the connection: that is its end.
      return { length: 0, fds: [] };
    }
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

  #receivedFds(): number[] {
    const controlLength = this.#header.view.getUint32(40, true);
    const { view } = this.#control;
    const fds: number[] = [];
    if (controlLength < CMSG_HEADER) return fds;
    if (view.getInt32(8, true) !== SOL_SOCKET || view.getInt32(12, true) !== SCM_RIGHTS) return fds;
    const end = Math.min(view.getUint32(0, true), controlLength);
    for (let at = CMSG_HEADER; at + 4 <= end; at += 4) fds.push(view.getInt32(at, true));
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
  putPath(address, path);
  const fd = checked(libc, 'socket', libc.socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0), path);
  const result = libc.connect(fd, address.address, SOCKADDR_SIZE);
  if (result >= 0) return fd;
  const errno = libc.errno();
  libc.close(fd);
  throw new SystemError('connect', errno, `socket ${path}`);
}

/** Takes the next connection of a listening socket. Returns its descriptor, or -1 when there is none. */
export function acceptFrom(libc: Libc, listening: number): number {
  return libc.accept4(listening, 0, 0, 0x80000);
}
