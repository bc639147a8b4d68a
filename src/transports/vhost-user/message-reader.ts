// Cuts what comes over the socket into vhost-user messages, however it was cut into reads (cases T1, T2).
// After hosts/linux/fd-socket.ts, before session.ts.
//
// A header is read by itself and then exactly its payload, so that file descriptors, which come with the first
// byte of a message, never belong to the one before.

import {
  VHOST_USER_MAX_FDS,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
  vhostUserHeader,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';

/** Longest payload of a message that we know: a memory table of the most regions, or configuration space. */
export const MAX_PAYLOAD = 4096;

/** One message. Its descriptors belong to whoever takes it. */
export interface VhostMessage {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: readonly number[];
}

/** Puts one message after the other together. */
export class MessageReader {
  readonly #bytes = new Uint8Array(vhostUserHeader.size + MAX_PAYLOAD);
  readonly #header = vhostUserHeader.over(this.#bytes);
  #have = 0;
  #need = vhostUserHeader.size;
  #fds: number[] = [];

  /** Where the next bytes belong: read no more than this. */
  get room(): Uint8Array {
    return this.#bytes.subarray(this.#have, this.#need);
  }

  /** Descriptors of a message that is not complete, for when the connection ends in it. */
  get pendingFds(): readonly number[] {
    return this.#fds;
  }

  /** Whether the stream stands between two messages. */
  get isBetween(): boolean {
    return this.#have === 0;
  }

  /**
   * Takes note of `length` bytes that were read into `room`, and of the descriptors that came with them.
   *
   * @returns the message that they complete, if they do
   * @throws ProtocolViolation when no message looks like that; descriptors are then still in `pendingFds`
   */
  advance(length: number, fds: readonly number[]): VhostMessage | undefined {
    this.#fds.push(...fds);
    this.#have += length;
    if (this.#fds.length > VHOST_USER_MAX_FDS)
      throw new ProtocolViolation('vhost-user', `${this.#fds.length} file descriptors in a message`);
    if (this.#have < this.#need) return undefined;
    if (this.#need === vhostUserHeader.size) this.#measure();
    return this.#have === this.#need ? this.#finish() : undefined;
  }

  #measure(): void {
    const { request, flags, size } = this.#header;
    if ((flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION)
      throw new ProtocolViolation(
        'vhost-user',
        `request ${request} is of version ${flags & VHOST_USER_VERSION_MASK}, expected ${VHOST_USER_VERSION}`,
      );
    if (size > MAX_PAYLOAD)
      throw new ProtocolViolation(
        'vhost-user',
        `request ${request} has ${size} bytes, expected at most ${MAX_PAYLOAD}`,
      );
    this.#need = vhostUserHeader.size + size;
  }

  #finish(): VhostMessage {
    const { request, flags } = this.#header;
    const message = {
      request,
      flags,
      payload: this.#bytes.slice(vhostUserHeader.size, this.#need),
      fds: this.#fds,
    };
    this.#have = 0;
    this.#need = vhostUserHeader.size;
    this.#fds = [];
    return message;
  }
}
