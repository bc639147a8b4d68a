// What a backend asks of its frontend, over a socket of its own: after SET_BACKEND_REQ_FD, which brings it.
// Used by session.ts. The descriptor stays open while the session lasts: User-Mode Linux breaks the device if not.

import {
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
  VHOST_USER_BACKEND_IOTLB_MSG,
  VHOST_USER_BACKEND_VRING_CALL,
  VHOST_USER_BACKEND_VRING_ERR,
  VHOST_IOTLB_MISS,
  VHOST_USER_NEED_REPLY,
  VHOST_USER_REPLY,
  VHOST_USER_VERSION,
  vhostUserHeader,
  vhostUserIotlb,
  vhostUserU64,
  vhostUserVringState,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { VhostMessage } from './message-reader.ts';
import { OwnedFd } from './owned-fd.ts';
import type { VhostPlatform } from './platform.ts';

const HIGH = 2 ** 32;

/** A whole message. */
export function messageBytes(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vhostUserHeader.size + payload.length);
  Object.assign(vhostUserHeader.over(bytes), {
    request,
    flags: VHOST_USER_VERSION | flags,
    size: payload.length,
  });
  bytes.set(payload, vhostUserHeader.size);
  return bytes;
}

/** Answers that are waited for at a time: as many addresses as two queues miss (iotlb.ts). */
const MOST_EXPECTED = 2048;

/** An answer that is to come. They come in the order of the requests. */
interface Expected {
  readonly request: number;
  readonly answered: (value: bigint) => void;
}

/** The backend's requests. Without a socket they are not sent: the frontend did not want them. */
export class BackendChannel {
  readonly #platform: VhostPlatform;
  readonly #socket: OwnedFd;
  readonly #onNoTranslation: (iova: number) => void;
  readonly #expected: Expected[] = [];
  /** Whether the frontend has not answered the last change of configuration, and whether there was one since. */
  #changeAsked = false;
  #changedAgain = false;

  /** @param onNoTranslation the frontend answers that an address that was missed has no translation */
  constructor(platform: VhostPlatform, onNoTranslation: (iova: number) => void) {
    this.#onNoTranslation = onNoTranslation;
    this.#platform = platform;
    this.#socket = new OwnedFd(platform);
  }

  /** The socket's descriptor, -1 when there is none. */
  get fd(): number {
    return this.#socket.fd;
  }

  /** Takes the socket, -1 for none, in place of the one before. */
  open(fd: number): void {
    this.#socket.replace(fd);
    this.#expected.length = 0;
    this.#changeAsked = false;
  }

  /** The configuration space has changed. With `acknowledged`, one message at a time is under way. */
  configChanged(acknowledged: boolean): void {
    if (this.#changeAsked) {
      this.#changedAgain = true;
      return;
    }
    const request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG;
    const nothing = new Uint8Array(0);
    if (acknowledged) this.#changeAsked = this.#ask(request, nothing, () => this.#changeAnswered());
    else this.#send(request, 0, nothing);
  }

  /**
   * Asks for the translation of an address of the guest's IOMMU. With `acknowledged`, for a word if there is none.
   *
   * @returns whether there will be an answer in any case
   */
  iotlbMiss(iova: number, permission: number, acknowledged: boolean): boolean {
    const { bytes } = vhostUserIotlb.make({
      iovaLow: iova % HIGH,
      iovaHigh: Math.floor(iova / HIGH),
      permission,
      type: VHOST_IOTLB_MISS,
    });
    const answered = (value: bigint): void => {
      if (value !== 0n) this.#onNoTranslation(iova);
    };
    if (acknowledged) return this.#ask(VHOST_USER_BACKEND_IOTLB_MSG, bytes, answered);
    this.#send(VHOST_USER_BACKEND_IOTLB_MSG, 0, bytes);
    return false;
  }

  /** Interrupts the driver of a ring that has no call descriptor. */
  vringCall(index: number): void {
    this.#send(VHOST_USER_BACKEND_VRING_CALL, 0, vhostUserVringState.make({ index }).bytes);
  }

  /** Says that a ring has failed, where it has no error descriptor. */
  vringError(index: number): void {
    this.#send(VHOST_USER_BACKEND_VRING_ERR, 0, vhostUserVringState.make({ index }).bytes);
  }

  /** Takes an answer of the frontend's. Throws ProtocolViolation for one that nobody asked for. */
  answered({ request, flags, payload }: VhostMessage): void {
    const [expected] = this.#expected;
    const isAnswer = (flags & VHOST_USER_REPLY) !== 0 && payload.length === vhostUserU64.size;
    if (!isAnswer || expected?.request !== request)
      throw new ProtocolViolation('vhost-user backend request', `an answer ${request} that nobody asked for`);
    this.#expected.shift();
    expected.answered(vhostUserU64.over(payload).value);
  }

  #changeAnswered(): void {
    this.#changeAsked = false;
    if (!this.#changedAgain) return;
    this.#changedAgain = false;
    this.configChanged(true);
  }

  /** Sends a request that is answered; one too many is sent without. Returns whether an answer will come. */
  #ask(request: number, payload: Uint8Array, answered: Expected['answered']): boolean {
    const isAnswered = this.#expected.length < MOST_EXPECTED;
    if (!this.#send(request, isAnswered ? VHOST_USER_NEED_REPLY : 0, payload) || !isAnswered) return false;
    this.#expected.push({ request, answered });
    return true;
  }

  /** Returns whether it was sent. */
  #send(request: number, flags: number, payload: Uint8Array): boolean {
    return this.fd >= 0 && this.#platform.send(this.fd, messageBytes(request, flags, payload));
  }
}
