// What the driver's side negotiates with a backend beside the features of the device: protocol features and the
// number of queues. Used by frontend.ts.

import {
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_QUEUE_NUM,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  vhostUserU64,
} from '../../abi/vhost-user.ts';
import { VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_RING_RESET } from '../../abi/virtio.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { FrontendLink } from './frontend-link.ts';

/**
 * What is used where it is offered. Not the inflight buffer: what a dead backend has not answered is asked again by
 * the driver itself, of any backend, and without a record that the backend could have written anything into.
 */
const WANTED =
  VHOST_USER_PROTOCOL_F_MQ |
  VHOST_USER_PROTOCOL_F_REPLY_ACK |
  VHOST_USER_PROTOCOL_F_BACKEND_REQ |
  VHOST_USER_PROTOCOL_F_CONFIG |
  VHOST_USER_PROTOCOL_F_RESET_DEVICE |
  VHOST_USER_PROTOCOL_F_STATUS;

/**
 * What a driver does not get to see: what is the transport's business; a reset of single queues, which the protocol
 * has no message for; and an IOMMU, which the window of shared memory makes unnecessary.
 */
const HIDDEN =
  VHOST_USER_F_PROTOCOL_FEATURES | VHOST_F_LOG_ALL | VIRTIO_F_RING_RESET | VIRTIO_F_ACCESS_PLATFORM;

/** Most queues that the messages about rings can name. */
const MOST_QUEUES = 256;

/** What a connection can do. */
export interface Agreement {
  /** Features of the device as its driver sees them. */
  readonly features: bigint;
  /** VHOST_USER_PROTOCOL_F_ bits in use. */
  readonly protocol: bigint;
  readonly queues: number;
}

/** Agrees with a backend. Throws ProtocolViolation or ConnectionLost. */
export function agree(link: FrontendLink): Agreement {
  const features = link.askNumber(VHOST_USER_GET_FEATURES);
  if ((features & VHOST_USER_F_PROTOCOL_FEATURES) === 0n)
    throw new ProtocolViolation('vhost-user', 'the backend does not offer VHOST_USER_F_PROTOCOL_FEATURES');
  // Bits that nobody knows yet are no reason to refuse a backend; they are not used.
  const protocol = link.askNumber(VHOST_USER_GET_PROTOCOL_FEATURES) & WANTED;
  link.tell(VHOST_USER_SET_PROTOCOL_FEATURES, vhostUserU64.make({ value: protocol }).bytes);
  link.acknowledges = (protocol & VHOST_USER_PROTOCOL_F_REPLY_ACK) !== 0n;
  const queues = protocol & VHOST_USER_PROTOCOL_F_MQ ? link.askNumber(VHOST_USER_GET_QUEUE_NUM) : 1n;
  if (queues === 0n)
    throw new ProtocolViolation('vhost-user GET_QUEUE_NUM', 'the backend says that it has no queues');
  return {
    features: features & ~HIDDEN,
    protocol,
    queues: queues > MOST_QUEUES ? MOST_QUEUES : Number(queues),
  };
}
