// The requests that are about one ring and have no answer. After session.ts, before vrings.ts.

import {
  VHOST_USER_SET_VRING_ADDR,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_ERR,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
  VHOST_USER_VRING_INDEX_MASK,
  VHOST_USER_VRING_KICK,
  VHOST_USER_VRING_NOFD,
  VHOST_VRING_F_LOG,
  vhostUserU64,
  vhostUserVringAddr,
  vhostUserVringState,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { VhostMessage } from './message-reader.ts';
import type { MessageFds } from './owned-fd.ts';
import type { VringPlaces, Vrings } from './vrings.ts';

const HIGH = 2 ** 32;

/** Applies a request to its ring. Throws ProtocolViolation, also for a request that there is not (case T2). */
export function applyToRing(rings: Vrings, message: VhostMessage, fds: MessageFds): void {
  const { request, payload } = message;
  switch (request) {
    case VHOST_USER_SET_VRING_NUM:
      withState(payload, (index, num) => rings.setSize(index, num));
      break;
    case VHOST_USER_SET_VRING_ADDR:
      rings.setPlaces(vhostUserVringAddr.over(payload).index, placesIn(payload));
      break;
    case VHOST_USER_SET_VRING_BASE:
      withState(payload, (index, num) => rings.setBase(index, num));
      break;
    case VHOST_USER_SET_VRING_KICK:
      withFd(rings, message, fds, (index, fd) => rings.setKick(index, fd));
      break;
    case VHOST_USER_SET_VRING_CALL:
      withFd(rings, message, fds, (index, fd) => rings.setCall(index, fd));
      break;
    case VHOST_USER_SET_VRING_ERR:
      withFd(rings, message, fds, (index, fd) => rings.setError(index, fd));
      break;
    case VHOST_USER_SET_VRING_ENABLE:
      withState(payload, (index, num) => rings.enable(index, num !== 0));
      break;
    case VHOST_USER_VRING_KICK:
      withState(payload, (index) => rings.kick(index));
      break;
    default:
      throw new ProtocolViolation('vhost-user', `request ${request} is unknown`);
  }
}

function withState(payload: Uint8Array, apply: (index: number, num: number) => void): void {
  const { index, num } = vhostUserVringState.over(payload);
  apply(index, num);
}

/** A number with the ring and whether a descriptor comes with it, which is the ring's from now on. */
function withFd(
  rings: Vrings,
  message: VhostMessage,
  fds: MessageFds,
  apply: (index: number, fd: number) => void,
): void {
  const { value } = vhostUserU64.over(message.payload);
  const expected = value & VHOST_USER_VRING_NOFD ? 0 : 1;
  if (message.fds.length !== expected)
    throw new ProtocolViolation(
      'vhost-user vring descriptor',
      `${message.fds.length} descriptors, expected ${expected}`,
    );
  const index = Number(value & VHOST_USER_VRING_INDEX_MASK);
  // A ring that is not there must not take the descriptor.
  rings.check(index);
  apply(index, fds.take());
}

function placesIn(payload: Uint8Array): VringPlaces {
  const address = vhostUserVringAddr.over(payload);
  const logged = (address.flags & VHOST_VRING_F_LOG) !== 0;
  return {
    places: {
      descriptorLow: address.descriptorLow,
      descriptorHigh: address.descriptorHigh,
      driverLow: address.availableLow,
      driverHigh: address.availableHigh,
      deviceLow: address.usedLow,
      deviceHigh: address.usedHigh,
    },
    logAddress: logged ? address.logHigh * HIGH + address.logLow : undefined,
  };
}
