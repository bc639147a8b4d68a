// What a backend offers and what it accepts of it: virtio features and protocol features. Used by session.ts.

import {
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
} from '../../abi/vhost-user.ts';
import { VHOST_USER_PROTOCOL_F_XEN_MMAP } from '../../abi/vhost-user-xen.ts';
import {
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_VERSION_1,
} from '../../abi/virtio.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { DeviceOffer } from '../../virtio/device.ts';

/** How a device is offered. */
export interface OfferOptions {
  /** Offer VIRTIO_F_ACCESS_PLATFORM and accept no driver without: the device reaches what the IOMMU maps. */
  readonly restricted: boolean;
  /** Offer XEN_MMAP: memory of Xen domains. */
  readonly xen: boolean;
}

const PROTOCOL_FEATURES =
  VHOST_USER_PROTOCOL_F_MQ |
  VHOST_USER_PROTOCOL_F_LOG_SHMFD |
  VHOST_USER_PROTOCOL_F_REPLY_ACK |
  VHOST_USER_PROTOCOL_F_BACKEND_REQ |
  VHOST_USER_PROTOCOL_F_CONFIG |
  VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD |
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD |
  VHOST_USER_PROTOCOL_F_RESET_DEVICE |
  VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS |
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS |
  VHOST_USER_PROTOCOL_F_STATUS;

const XEN_MMAP = 1n << BigInt(VHOST_USER_PROTOCOL_F_XEN_MMAP);

/** The features of one session, offered and chosen. */
export class Negotiation {
  readonly offered: bigint;
  readonly offeredProtocol: bigint;
  readonly #restricted: boolean;
  #features = 0n;
  #protocol = 0n;

  constructor(device: DeviceOffer, { restricted, xen }: OfferOptions) {
    this.#restricted = restricted;
    this.offered =
      device.features |
      VIRTIO_F_VERSION_1 |
      VIRTIO_F_INDIRECT_DESC |
      VIRTIO_F_EVENT_IDX |
      VHOST_F_LOG_ALL |
      VHOST_USER_F_PROTOCOL_FEATURES |
      (restricted ? VIRTIO_F_ACCESS_PLATFORM : 0n);
    this.offeredProtocol = PROTOCOL_FEATURES | (xen ? XEN_MMAP : 0n);
  }

  /** What the driver chose. */
  get features(): bigint {
    return this.#features;
  }

  /** Takes the driver's choice; throws ProtocolViolation when we did not offer it. */
  accept(features: bigint): void {
    const unknown = features & ~this.offered;
    if (unknown !== 0n)
      throw new ProtocolViolation(
        'vhost-user SET_FEATURES',
        `features 0x${unknown.toString(16)} are not offered, expected some of 0x${this.offered.toString(16)}`,
      );
    if (this.#restricted && (features & VIRTIO_F_ACCESS_PLATFORM) === 0n)
      throw new ProtocolViolation('§6.1', 'a restricted device needs VIRTIO_F_ACCESS_PLATFORM');
    this.#features = features;
  }

  /** Takes the frontend's choice; throws ProtocolViolation when it makes no sense (case T13). */
  acceptProtocol(features: bigint): void {
    const unknown = features & ~this.offeredProtocol;
    if (unknown !== 0n)
      throw new ProtocolViolation(
        'vhost-user SET_PROTOCOL_FEATURES',
        `protocol features 0x${unknown.toString(16)} are not offered, expected some of 0x${this.offeredProtocol.toString(16)}`,
      );
    const needed = VHOST_USER_PROTOCOL_F_BACKEND_REQ | VHOST_USER_PROTOCOL_F_REPLY_ACK;
    if (features & VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS && (features & needed) !== needed)
      throw new ProtocolViolation(
        'vhost-user SET_PROTOCOL_FEATURES',
        'INBAND_NOTIFICATIONS needs BACKEND_REQ and REPLY_ACK',
      );
    this.#protocol = features;
  }

  /** Whether a feature was chosen. */
  has(feature: bigint): boolean {
    return (this.#features & feature) !== 0n;
  }

  /** Whether a protocol feature was chosen. */
  hasProtocol(feature: bigint): boolean {
    return (this.#protocol & feature) !== 0n;
  }

  get xen(): boolean {
    return this.hasProtocol(XEN_MMAP);
  }

  /** The device was reset: the driver chooses anew. */
  forget(): void {
    this.#features = 0n;
  }
}
