// What each request is called, how long its payload is, and how many descriptors it brings (cases T2, T4). Before
// session.ts and frontend-link.ts.

import * as user from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { VhostMessage } from './message-reader.ts';

/** Bytes of the payload, and descriptors; `rest` where more bytes may follow. */
interface Shape {
  readonly bytes: number;
  readonly rest?: boolean;
  /** Whether it needs one descriptor. Those that nobody needs are closed (case T4). */
  readonly withFd?: boolean;
}

const NOTHING: Shape = { bytes: 0, rest: true };
const NUMBER: Shape = { bytes: user.vhostUserU64.size };
const STATE: Shape = { bytes: user.vhostUserVringState.size };
const RING_FD: Shape = { bytes: user.vhostUserU64.size };
const CONFIG: Shape = { bytes: user.vhostUserConfigHeader.size, rest: true };
const REGION: Shape = {
  bytes: user.vhostUserSingleRegionHeader.size + user.vhostUserMemoryRegion.size,
  rest: true,
};

const SHAPES: ReadonlyMap<number, Shape> = new Map([
  [user.VHOST_USER_GET_FEATURES, NOTHING],
  [user.VHOST_USER_SET_FEATURES, NUMBER],
  [user.VHOST_USER_SET_OWNER, NOTHING],
  [user.VHOST_USER_RESET_OWNER, NOTHING],
  [user.VHOST_USER_SET_MEM_TABLE, { bytes: user.vhostUserMemoryHeader.size, rest: true }],
  [user.VHOST_USER_SET_LOG_BASE, { bytes: user.vhostUserLog.size, withFd: true }],
  [user.VHOST_USER_SET_LOG_FD, { bytes: 0, rest: true }],
  [user.VHOST_USER_SET_VRING_NUM, STATE],
  [user.VHOST_USER_SET_VRING_ADDR, { bytes: user.vhostUserVringAddr.size }],
  [user.VHOST_USER_SET_VRING_BASE, STATE],
  [user.VHOST_USER_GET_VRING_BASE, STATE],
  [user.VHOST_USER_SET_VRING_KICK, RING_FD],
  [user.VHOST_USER_SET_VRING_CALL, RING_FD],
  [user.VHOST_USER_SET_VRING_ERR, RING_FD],
  [user.VHOST_USER_GET_PROTOCOL_FEATURES, NOTHING],
  [user.VHOST_USER_SET_PROTOCOL_FEATURES, NUMBER],
  [user.VHOST_USER_GET_QUEUE_NUM, NOTHING],
  [user.VHOST_USER_SET_VRING_ENABLE, STATE],
  [user.VHOST_USER_SET_BACKEND_REQ_FD, { bytes: 0, rest: true, withFd: true }],
  [user.VHOST_USER_IOTLB_MSG, { bytes: user.vhostUserIotlb.size }],
  [user.VHOST_USER_GET_CONFIG, CONFIG],
  [user.VHOST_USER_SET_CONFIG, CONFIG],
  [user.VHOST_USER_GET_INFLIGHT_FD, { bytes: user.vhostUserInflight.size, rest: true }],
  [user.VHOST_USER_SET_INFLIGHT_FD, { bytes: user.vhostUserInflight.size, rest: true, withFd: true }],
  [user.VHOST_USER_RESET_DEVICE, NOTHING],
  [user.VHOST_USER_VRING_KICK, STATE],
  [user.VHOST_USER_GET_MAX_MEM_SLOTS, NOTHING],
  [user.VHOST_USER_ADD_MEM_REG, REGION],
  [user.VHOST_USER_REM_MEM_REG, REGION],
  [user.VHOST_USER_SET_STATUS, NUMBER],
  [user.VHOST_USER_GET_STATUS, NOTHING],
]);

/** Names of requests in the protocol's text; those of the backend have the same numbers. */
const REQUEST_NAME = /^VHOST_USER_((GET|SET|RESET|ADD|REM)_.*|IOTLB_MSG|VRING_KICK)$/;

/** A request's name as the protocol's text has it, for messages to people. */
export function requestName(request: number): string {
  for (const [name, value] of Object.entries(user)) {
    const found = value === request ? REQUEST_NAME.exec(name) : null;
    if (found !== null) return found[1];
  }
  return `request ${request}`;
}

/** Throws ProtocolViolation for a request that there is not, or that cannot look like that. */
export function checkShape({ request, payload, fds }: VhostMessage): void {
  const shape = SHAPES.get(request);
  if (shape === undefined) throw new ProtocolViolation('vhost-user', `request ${request} is unknown`);
  const { bytes, rest = false } = shape;
  if (payload.length < bytes || (payload.length > bytes && !rest))
    throw new ProtocolViolation(
      'vhost-user',
      `${requestName(request)} with ${payload.length} bytes, expected ${bytes}`,
    );
  if (shape.withFd && fds.length !== 1)
    throw new ProtocolViolation(
      'vhost-user',
      `${requestName(request)} with ${fds.length} descriptors, expected 1`,
    );
}
