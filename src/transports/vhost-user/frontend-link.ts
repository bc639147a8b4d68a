// A frontend's requests to a backend and their answers, one at a time and each within a time limit. After
// frontend.ts, before message-reader.ts. The other end is session.ts.

import * as user from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import { messageBytes } from './backend-channel.ts';
import type { FrontendPlatform } from './frontend-port.ts';
import { MessageReader, type VhostMessage } from './message-reader.ts';
import { requestName } from './request-shapes.ts';

/** Milliseconds that a backend has for a whole answer, however slowly it sends it. */
export const ANSWER_LIMIT = 10_000;
/** Milliseconds between two looks at what the backend asks meanwhile. */
const SLICE = 50;
const EMPTY = new Uint8Array(0);

/** The connection to the backend is over; the message says why. */
export class ConnectionLost extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'ConnectionLost';
  }
}

/** The socket of a connection. Methods throw ConnectionLost, or ProtocolViolation for what no backend may send. */
export class FrontendLink {
  /** Whether the backend acknowledges every request (REPLY_ACK). */
  acknowledges = false;
  readonly #platform: FrontendPlatform;
  readonly #socket: number;
  readonly #reader = new MessageReader();
  readonly #meanwhile: () => void;

  /** @param meanwhile called now and then while an answer is waited for: the backend may ask something itself */
  constructor(platform: FrontendPlatform, socket: number, meanwhile: () => void) {
    this.#platform = platform;
    this.#socket = socket;
    this.#meanwhile = meanwhile;
  }

  /** Asks, and returns the payload of the answer. */
  ask(request: number, payload: Uint8Array = EMPTY): Uint8Array {
    this.#send(request, 0, payload, []);
    return this.#answerTo(request);
  }

  /** The number that a request is answered with. */
  askNumber(request: number): bigint {
    const payload = this.ask(request);
    if (payload.length !== user.vhostUserU64.size)
      throw violation(
        `an answer to ${requestName(request)} of ${payload.length} bytes, expected a number of 8`,
      );
    return user.vhostUserU64.over(payload).value;
  }

  /**
   * Tells the backend something, with descriptors that stay the caller's. It has been done when the call returns.
   *
   * @returns false when the backend refuses, and nothing has changed
   */
  tell(request: number, payload: Uint8Array = EMPTY, fds: readonly number[] = []): boolean {
    this.#send(request, this.acknowledges ? user.VHOST_USER_NEED_REPLY : 0, payload, fds);
    if (!this.acknowledges) {
      // Requests are dealt with in order: this one's answer comes after the other has been.
      this.askNumber(user.VHOST_USER_GET_FEATURES);
      return true;
    }
    const answer = this.#answerTo(request);
    if (answer.length !== user.vhostUserU64.size)
      throw violation(`an acknowledgement of ${requestName(request)} of ${answer.length} bytes, expected 8`);
    return user.vhostUserU64.over(answer).value === 0n;
  }

  /** Notices when a backend has gone, or sends what nobody asked for. */
  look(): void {
    if (this.#read(0) === undefined && this.#reader.isBetween) return;
    throw violation('a message that nobody asked for');
  }

  #send(request: number, flags: number, payload: Uint8Array, fds: readonly number[]): void {
    if (!this.#platform.send(this.#socket, messageBytes(request, flags, payload), fds))
      throw new ConnectionLost(
        `the backend does not take request ${request} any more: it has ended or hangs`,
      );
  }

  #answerTo(request: number): Uint8Array {
    const deadline = this.#platform.now() + ANSWER_LIMIT;
    for (;;) {
      const left = deadline - this.#platform.now();
      if (left <= 0)
        throw new ConnectionLost(
          `the backend has not answered ${requestName(request)} for ${ANSWER_LIMIT / 1000} s`,
        );
      const answer = this.#read(Math.min(left, SLICE));
      if (answer !== undefined) return checkAnswer(request, answer);
      this.#meanwhile();
    }
  }

  /** Reads once. Returns the message that is complete now; its descriptors have been closed. */
  #read(milliseconds: number): VhostMessage | undefined {
    const { length, fds } = this.#platform.receive(this.#socket, this.#reader.room, milliseconds);
    for (const fd of fds) this.#platform.close(fd);
    if (length < 0) return undefined;
    if (length === 0)
      throw new ConnectionLost('the backend has closed the connection: it was ended or has crashed');
    if (fds.length > 0) throw violation('descriptors that nobody asked for');
    return this.#reader.advance(length, []);
  }
}

/** The payload of the answer to `request`, if it is that. */
function checkAnswer(expected: number, { request, flags, payload }: VhostMessage): Uint8Array {
  if (request !== expected || (flags & user.VHOST_USER_REPLY) === 0)
    throw violation(
      `message ${request} with flags ${flags}, expected the answer to ${requestName(expected)}`,
    );
  return payload;
}

function violation(detail: string): ProtocolViolation {
  return new ProtocolViolation('vhost-user', detail);
}
