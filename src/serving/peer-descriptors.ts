// Descriptors that a frontend sends with its messages to be waited on, or written to: only kinds that cannot keep a
// thread of ours waiting are taken. Between vhost-connection.ts and transports/vhost-user/session.ts.

import { readlinkSync } from 'node:fs';
import {
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ERR,
  VHOST_USER_SET_VRING_KICK,
} from '../abi/vhost-user.ts';
import { ProtocolViolation } from '../errors.ts';
import { makeNonBlocking } from '../hosts/linux/epoll.ts';
import type { Libc } from '../hosts/linux/libc.ts';
import type { VhostMessage } from '../transports/vhost-user/message-reader.ts';

const O_WRONLY_NONBLOCK_CLOEXEC = 0x80801;

/** What a descriptor is of, in the words of /proc. Asking this way asks no driver, which might not answer. */
type Kind = 'eventfd' | 'pipe' | 'socket' | 'something else';

const KINDS: readonly (readonly [start: string, Kind])[] = [
  ['anon_inode:[eventfd]', 'eventfd'],
  ['pipe:[', 'pipe'],
  ['socket:[', 'socket'],
];

function kindOf(fd: number): Kind {
  const name = readlinkSync(`/proc/self/fd/${fd}`);
  return KINDS.find(([start]) => name.startsWith(start))?.[1] ?? 'something else';
}

/**
 * The message with descriptors that can be used, which are the caller's as those of `message` were.
 *
 * @param shared whether guests share this process that do not trust each other: then only eventfds do, since whoever
 *   holds a pipe's lock keeps all its writers waiting
 * @throws ProtocolViolation for kinds that are not taken; the descriptors stay the caller's
 */
export function usable(libc: Libc, message: VhostMessage, shared: boolean): VhostMessage {
  const { request, fds } = message;
  switch (request) {
    case VHOST_USER_SET_VRING_KICK:
      for (const fd of fds) refuseOthers(fd, shared ? ['eventfd'] : ['eventfd', 'pipe']);
      return message;
    case VHOST_USER_SET_VRING_CALL:
    case VHOST_USER_SET_VRING_ERR:
      for (const fd of fds) refuseOthers(fd, shared ? ['eventfd'] : ['eventfd', 'pipe']);
      return { ...message, fds: fds.map((fd) => (kindOf(fd) === 'pipe' ? ownEnd(libc, fd) : fd)) };
    case VHOST_USER_SET_BACKEND_REQ_FD:
      for (const fd of fds) refuseOthers(fd, ['socket']);
      return message;
    default:
      return message;
  }
}

function refuseOthers(fd: number, kinds: readonly Kind[]): void {
  const kind = kindOf(fd);
  if (!kinds.includes(kind))
    throw new ProtocolViolation(
      'vhost-user descriptor',
      `a descriptor of ${kind}, expected ${kinds.join(' or ')}`,
    );
}

/** A pipe that never blocks, whatever the peer does to its own end; User-Mode Linux is interrupted by pipes. */
function ownEnd(libc: Libc, fd: number): number {
  const own = libc.open(`/proc/self/fd/${fd}`, O_WRONLY_NONBLOCK_CLOEXEC, 0);
  if (own >= 0) {
    libc.close(fd);
    return own;
  }
  // Another user's pipe cannot be opened anew: its end stays shared.
  makeNonBlocking(libc, fd);
  return fd;
}
