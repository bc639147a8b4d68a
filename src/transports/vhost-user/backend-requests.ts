// What a backend asks of its frontend, on a socket of its own, from the frontend's end. Used by frontend.ts; the other
// end is backend-channel.ts.

import {
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
  VHOST_USER_NEED_REPLY,
  VHOST_USER_REPLY,
  vhostUserU64,
} from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import { messageBytes } from './backend-channel.ts';
import type { FrontendPlatform } from './frontend-port.ts';
import { MessageReader, type VhostMessage } from './message-reader.ts';

/** Reads in one look; what a backend sends beyond has to wait for the next one. */
const READS = 32;

/** The frontend's end of the socket that SET_BACKEND_REQ_FD gave to the backend. */
export class BackendRequests {
  readonly socket: number;
  readonly #platform: FrontendPlatform;
  readonly #reader = new MessageReader();
  #ended = false;
  #configChanged = false;

  constructor(platform: FrontendPlatform, socket: number) {
    this.#platform = platform;
    this.socket = socket;
  }

  /** Whether the backend has closed its end, and nothing more will come. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether the configuration space has changed since the last call. */
  takeConfigChange(): boolean {
    const changed = this.#configChanged;
    this.#configChanged = false;
    return changed;
  }

  /** Deals with what has come. Throws ProtocolViolation for what the backend may not ask. */
  look(): void {
    for (let reads = 0; reads < READS && !this.#ended; reads++) {
      const { length, fds } = this.#platform.receive(this.socket, this.#reader.room, 0);
      for (const fd of fds) this.#platform.close(fd);
      if (length < 0) return;
      if (length === 0) this.#ended = true;
      else {
        const message = this.#reader.advance(length, []);
        if (message !== undefined) this.#serve(message);
      }
    }
  }

  #serve({ request, flags }: VhostMessage): void {
    // Everything else belongs to protocol features that were not negotiated.
    if (request !== VHOST_USER_BACKEND_CONFIG_CHANGE_MSG || flags & VHOST_USER_REPLY)
      throw new ProtocolViolation('vhost-user backend request', `request ${request} with flags ${flags}`);
    this.#configChanged = true;
    if ((flags & VHOST_USER_NEED_REPLY) === 0) return;
    const answer = messageBytes(request, VHOST_USER_REPLY, vhostUserU64.make({ value: 0n }).bytes);
    // A backend that does not read its answers has none.
    this.#platform.send(this.socket, answer, []);
  }
}
