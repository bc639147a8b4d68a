// One frontend's conversation with a device: every request of the vhost-user protocol and its answer (QEMU,
// docs/interop/vhost-user.rst). After message-reader.ts, before vrings.ts and guest-memory.ts.
//
// A request that is refused leaves everything as it was. If the frontend asked for an acknowledgement it gets one
// that is not zero; if not, the ProtocolViolation goes to whoever owns the connection, who closes it.

import {
  VHOST_F_LOG_ALL,
  VHOST_USER_ADD_MEM_REG,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_CONFIG,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_INFLIGHT_FD,
  VHOST_USER_GET_MAX_MEM_SLOTS,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_QUEUE_NUM,
  VHOST_USER_GET_STATUS,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_IOTLB_MSG,
  VHOST_USER_MAX_CONFIG_SIZE,
  VHOST_USER_NEED_REPLY,
  VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_REM_MEM_REG,
  VHOST_USER_REPLY,
  VHOST_USER_RESET_DEVICE,
  VHOST_USER_RESET_OWNER,
  VHOST_USER_SET_BACKEND_REQ_FD,
  VHOST_USER_SET_CONFIG,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_INFLIGHT_FD,
  VHOST_USER_SET_LOG_BASE,
  VHOST_USER_SET_LOG_FD,
  VHOST_USER_SET_MEM_TABLE,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_STATUS,
  vhostUserConfigHeader,
  vhostUserU64,
  vhostUserVringState,
} from '../../abi/vhost-user.ts';
import { VIRTIO_F_ACCESS_PLATFORM, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../abi/virtio.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { DeviceOffer } from '../../virtio/device.ts';
import { BackendChannel, messageBytes } from './backend-channel.ts';
import { GuestMemory } from './guest-memory.ts';
import { InflightBuffer } from './inflight-buffer.ts';
import type { VhostMessage } from './message-reader.ts';
import { MAX_SLOTS, type MemoryChange } from './memory-slots.ts';
import { Negotiation, type OfferOptions } from './negotiation.ts';
import { MessageFds } from './owned-fd.ts';
import type { RingEvents, RingRunner, VhostPlatform } from './platform.ts';
import { checkShape, requestName } from './request-shapes.ts';
import { applyToRing } from './ring-requests.ts';
import { Vrings } from './vrings.ts';

/** What a session is made of. */
export interface SessionParts extends OfferOptions {
  readonly device: DeviceOffer;
  readonly platform: VhostPlatform;
  /** Makes the runner of the session's rings. */
  readonly runner: (events: RingEvents) => RingRunner;
  /** Sends bytes to the frontend, and descriptors with them, which stay the session's. */
  readonly send: (bytes: Uint8Array, fds: readonly number[]) => void;
  /** A request was answered with a failure, of which the frontend does not learn why. */
  readonly onRefused: (request: string, why: ProtocolViolation) => void;
}

/** A payload to answer with, and a descriptor that goes with it and is closed after. */
interface Answer {
  readonly payload: Uint8Array;
  readonly fd?: number;
}

const EMPTY = new Uint8Array(0);

/** A session, from the connection's first message to its end. */
export class VhostUserSession {
  readonly #device: DeviceOffer;
  #config: Uint8Array;
  readonly #platform: VhostPlatform;
  readonly #send: SessionParts['send'];
  readonly #onRefused: SessionParts['onRefused'];
  readonly #negotiation: Negotiation;
  readonly #channel: BackendChannel;
  readonly #memory: GuestMemory;
  readonly #inflight: InflightBuffer;
  readonly #runner: RingRunner;
  readonly #rings: Vrings;
  /** Whether there was a miss to which no answer will come, though the frontend answers. */
  #missLost = false;
  #status = 0;
  #closed = false;

  constructor(parts: SessionParts) {
    const { device, platform } = parts;
    this.#device = device;
    this.#config = device.config;
    this.#platform = platform;
    this.#send = parts.send;
    this.#onRefused = parts.onRefused;
    this.#negotiation = new Negotiation(device, parts);
    this.#channel = new BackendChannel(platform, (iova) => this.#hasNoTranslation(iova));
    this.#memory = new GuestMemory(platform);
    this.#inflight = new InflightBuffer(platform, device.queueSizes);
    this.#runner = parts.runner({
      interrupt: (index) => this.#interrupt(index),
      failed: (index, violation) => this.#rings.fail(index, violation),
      miss: (iova, right) => {
        const isAnswered = this.#channel.iotlbMiss(iova, right, this.#acknowledged);
        if (this.#acknowledged && !isAnswered) this.#missLost = true;
      },
      configChanged: (config) => this.configChanged(config),
    });
    const session = this;
    this.#rings = new Vrings(device.queueSizes, platform, this.#runner, {
      get needsEnable() {
        return session.#negotiation.has(VHOST_USER_F_PROTOCOL_FEATURES);
      },
      get kicksAreMessages() {
        return session.#inBand;
      },
      inflightArea: (index, size) => this.#inflight.area(index, size),
      reportError: (index) => {
        if (this.#inBand) this.#channel.vringError(index);
      },
    });
  }

  /** Descriptor of the socket on which the frontend answers our requests; -1 when there is none. */
  get channelFd(): number {
    return this.#channel.fd;
  }

  /**
   * Deals with a request, answers it, and closes those of its descriptors that nobody keeps.
   *
   * @throws ProtocolViolation for a request after which the connection is to be closed: call `close`
   */
  handle(message: VhostMessage): void {
    const fds = new MessageFds(this.#platform, message.fds);
    try {
      const answer = this.#answerOrRefuse(message, fds);
      if (answer !== undefined) this.#reply(message.request, answer);
      // After it was dealt with: User-Mode Linux asks already with the request that negotiates acknowledgements.
      else if (this.#wantsAck(message)) this.#reply(message.request, u64(0n));
    } finally {
      fds.closeRest();
    }
  }

  /** Deals with an answer to a request of ours. Throws ProtocolViolation as `handle` does. */
  handleAnswer(message: VhostMessage): void {
    new MessageFds(this.#platform, message.fds).closeRest();
    this.#channel.answered(message);
  }

  /** The device's configuration space has changed to `config`: that of the instance that serves, not of ours. */
  configChanged(config: Uint8Array): void {
    this.#config = config;
    this.#channel.configChanged(this.#acknowledged);
  }

  /** Ends the session: rings first, then mappings, then what else is open. Once is enough. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rings.close();
    this.#runner.reset();
    this.#inflight.close();
    this.#memory.close();
    this.#channel.open(-1);
  }

  get #inBand(): boolean {
    return this.#negotiation.hasProtocol(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
  }

  get #acknowledged(): boolean {
    return this.#negotiation.hasProtocol(VHOST_USER_PROTOCOL_F_REPLY_ACK);
  }

  #interrupt(index: number): void {
    if (this.#inBand) this.#channel.vringCall(index);
  }

  #wantsAck({ flags }: VhostMessage): boolean {
    const asked = (flags & VHOST_USER_NEED_REPLY) !== 0;
    return asked && this.#acknowledged;
  }

  #answerOrRefuse(message: VhostMessage, fds: MessageFds): Answer | undefined {
    if (message.flags & VHOST_USER_REPLY)
      throw new ProtocolViolation('vhost-user', `an answer ${message.request} that nobody asked for`);
    try {
      checkShape(message);
      return this.#serve(message, fds);
    } catch (error) {
      if (!this.#wantsAck(message) || !(error instanceof ProtocolViolation)) throw error;
      this.#onRefused(requestName(message.request), error);
      return u64(1n);
    }
  }

  #reply(request: number, { payload, fd }: Answer): void {
    try {
      this.#send(messageBytes(request, VHOST_USER_REPLY, payload), fd === undefined ? [] : [fd]);
    } finally {
      if (fd !== undefined) this.#platform.close(fd);
    }
  }

  /** Requests that have an answer of their own, in the order of their numbers; `#apply` has the others. */
  #serve(message: VhostMessage, fds: MessageFds): Answer | undefined {
    const { request, payload } = message;
    switch (request) {
      case VHOST_USER_GET_FEATURES:
        return u64(this.#negotiation.offered);
      case VHOST_USER_SET_LOG_BASE:
        return this.#setLogBase(message);
      case VHOST_USER_GET_VRING_BASE:
        return this.#getVringBase(payload);
      case VHOST_USER_GET_PROTOCOL_FEATURES:
        return u64(this.#negotiation.offeredProtocol);
      case VHOST_USER_GET_QUEUE_NUM:
        return u64(BigInt(this.#device.queueSizes.length));
      case VHOST_USER_GET_CONFIG:
        return this.#getConfig(payload);
      case VHOST_USER_GET_INFLIGHT_FD:
        return this.#inflight.create(message);
      case VHOST_USER_GET_MAX_MEM_SLOTS:
        return u64(BigInt(MAX_SLOTS));
      case VHOST_USER_GET_STATUS:
        return u64(
          BigInt(this.#rings.failed ? this.#status | VIRTIO_STATUS_DEVICE_NEEDS_RESET : this.#status),
        );
      default:
        this.#apply(message, fds);
        return undefined;
    }
  }

  #apply(message: VhostMessage, fds: MessageFds): void {
    const { request, payload } = message;
    const { slots } = this.#memory;
    switch (request) {
      case VHOST_USER_SET_FEATURES:
        this.#setFeatures(numberIn(payload));
        break;
      case VHOST_USER_SET_OWNER:
        break;
      case VHOST_USER_RESET_OWNER:
      case VHOST_USER_RESET_DEVICE:
        this.#reset();
        break;
      case VHOST_USER_SET_MEM_TABLE:
        this.#changeMemory(slots.replacement(message, this.#negotiation.xen));
        break;
      case VHOST_USER_SET_LOG_FD:
        // The log is looked at when it suits the frontend; nobody has to be told that it has changed.
        break;
      case VHOST_USER_SET_PROTOCOL_FEATURES:
        this.#negotiation.acceptProtocol(numberIn(payload));
        break;
      case VHOST_USER_SET_BACKEND_REQ_FD:
        this.#channel.open(fds.take());
        break;
      case VHOST_USER_IOTLB_MSG:
        this.#translate(message);
        break;
      case VHOST_USER_SET_CONFIG:
        this.#setConfig(payload);
        break;
      case VHOST_USER_SET_INFLIGHT_FD:
        this.#rings.pausing(this.#inflight.adopt(message));
        break;
      case VHOST_USER_ADD_MEM_REG:
        this.#changeMemory(slots.addition(message, this.#negotiation.xen));
        break;
      case VHOST_USER_REM_MEM_REG:
        this.#changeMemory(slots.removal(message, this.#negotiation.xen));
        break;
      case VHOST_USER_SET_STATUS:
        this.#setStatus(numberIn(payload));
        break;
      default:
        applyToRing(this.#rings, message, fds);
    }
  }

  #setFeatures(features: bigint): void {
    this.#negotiation.accept(features);
    this.#rings.pausing(() => this.#tellRunner());
  }

  /** What rings need to know, while none runs. */
  #tellRunner(): void {
    this.#runner.setFeatures(
      this.#negotiation.features & ~(VHOST_F_LOG_ALL | VHOST_USER_F_PROTOCOL_FEATURES),
    );
    this.#runner.setMemory(
      this.#memory.forRings({
        translated: this.#negotiation.has(VIRTIO_F_ACCESS_PLATFORM),
        missesAnswered: this.#acknowledged && !this.#missLost,
        logged: this.#negotiation.has(VHOST_F_LOG_ALL),
      }),
    );
  }

  #changeMemory(change: MemoryChange): void {
    this.#rings.pausing(() => {
      this.#memory.change(change);
      this.#tellRunner();
    });
  }

  #setLogBase(message: VhostMessage): Answer {
    if (!this.#negotiation.hasProtocol(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
      throw new ProtocolViolation('vhost-user SET_LOG_BASE', 'LOG_SHMFD was not negotiated');
    const take = this.#memory.newLog(message);
    this.#rings.pausing(() => {
      take();
      this.#tellRunner();
    });
    return u64(0n);
  }

  /** A chain may be in the middle of what an invalidation takes away, so rings are stopped for it. */
  #translate(message: VhostMessage): void {
    if (GuestMemory.isInvalidation(message)) {
      this.#rings.pausing(() => {
        if (this.#missLost) this.#tellRunner();
        GuestMemory.translate(message, this.#runner);
      });
      return;
    }
    GuestMemory.translate(message, this.#runner);
    this.#rings.startReady();
  }

  /** A request of whichever ring waits for it fails, instead of waiting for what never comes. */
  #hasNoTranslation(iova: number): void {
    this.#runner.refuse(iova);
    this.#rings.startReady();
  }

  #getVringBase(payload: Uint8Array): Answer {
    const { index } = vhostUserVringState.over(payload);
    return { payload: vhostUserVringState.make({ index, num: this.#rings.takeBase(index) }).bytes };
  }

  /** What lies behind the device's configuration space reads as zero. A request that makes no sense gets nothing. */
  #getConfig(payload: Uint8Array): Answer {
    const { offset, size } = vhostUserConfigHeader.over(payload);
    if (configFault(payload) !== undefined) return { payload: EMPTY };
    const answer = payload.slice(0, vhostUserConfigHeader.size + size).fill(0, vhostUserConfigHeader.size);
    answer.set(this.#config.subarray(offset, offset + size), vhostUserConfigHeader.size);
    return { payload: answer };
  }

  /** §2.5: no device has a field that its driver writes; what is written is ignored as with other transports. */
  #setConfig(payload: Uint8Array): void {
    const fault = configFault(payload);
    if (fault !== undefined) throw new ProtocolViolation('vhost-user SET_CONFIG', fault);
  }

  #setStatus(value: bigint): void {
    if (value > 0xffn)
      throw new ProtocolViolation('vhost-user SET_STATUS', `status 0x${value.toString(16)}, expected a byte`);
    if (value === 0n) this.#reset();
    else this.#status = Number(value);
  }

  /** Back to the beginning. Memory and protocol features stay: they are the frontend's, not the device's. */
  #reset(): void {
    this.#rings.reset();
    this.#runner.reset();
    this.#negotiation.forget();
    // The IOMMU tells anew.
    this.#runner.invalidate(0, Number.POSITIVE_INFINITY);
    // What was under way is nobody's any more; a new beginning must not take it up.
    this.#inflight.close();
    this.#status = 0;
  }
}

function u64(value: bigint): Answer {
  return { payload: vhostUserU64.make({ value }).bytes };
}

function numberIn(payload: Uint8Array): bigint {
  return vhostUserU64.over(payload).value;
}

/** Why a message about configuration space makes no sense; undefined if it does. */
function configFault(payload: Uint8Array): string | undefined {
  const { offset, size } = vhostUserConfigHeader.over(payload);
  const sent = payload.length - vhostUserConfigHeader.size;
  if (sent === size && offset + size <= VHOST_USER_MAX_CONFIG_SIZE) return undefined;
  return `${size} bytes at ${offset} in a message of ${sent}, expected at most ${VHOST_USER_MAX_CONFIG_SIZE}`;
}
