// The way out of a connection: messages queue here, go to the socket in batches, and whoever lent the bytes
// learns when the socket no longer needs them. Before it: handshake.ts and transmission.ts.

import process from 'node:process';
import type { Duplex } from 'node:stream';

/** Bytes given to the socket and not yet taken by the kernel, beyond which the rest waits here. */
const SOCKET_BUFFER = 1 << 20;

interface Message {
  readonly header: Uint8Array;
  /** Sent after the header, not copied. */
  readonly payload: Uint8Array | undefined;
  readonly sent: (() => void) | undefined;
}

/**
 * Sends in the order of calls. Small portions reach the socket, so that a client which takes the data
 * slowly can be told from one that takes none.
 */
export class Sender {
  readonly #socket: Duplex;
  readonly #queue: Message[] = [];
  #scheduled = false;
  #ending = false;
  #pending = 0;
  #completed = 0;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** Messages that the kernel has not taken yet. */
  get pending(): number {
    return this.#pending;
  }

  /** Messages that are done with; grows as long as the client takes what it is sent. */
  get completed(): number {
    return this.#completed;
  }

  /**
   * Sends a message. `sent` is called exactly once, when the bytes are no longer needed: the kernel has
   * them, or the connection is gone.
   */
  send(header: Uint8Array, payload?: Uint8Array, sent?: () => void): void {
    this.#pending++;
    this.#queue.push({ header, payload, sent });
    this.#schedule();
  }

  /** Ends the stream after what was sent so far; nothing may be sent after that. */
  end(): void {
    this.#ending = true;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // After the promises that are being settled now, so that what they send leaves in one system call.
    process.nextTick(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    let count = 0;
    this.#socket.cork();
    while (count < this.#queue.length && this.#socket.writableLength < SOCKET_BUFFER)
      this.#write(this.#queue[count++]);
    this.#queue.splice(0, count);
    this.#socket.uncork();
    if (this.#ending && this.#queue.length === 0) this.#socket.end();
  }

  #write({ header, payload, sent }: Message): void {
    if (payload) this.#socket.write(header);
    // Called with an error too, once the stream is destroyed; that error is the stream's 'error' event.
    this.#socket.write(payload ?? header, () => {
      this.#pending--;
      this.#completed++;
      sent?.();
      if (this.#queue.length > 0) this.#pump();
    });
  }
}
