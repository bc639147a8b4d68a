// One client from its first byte to its last: handshake, transmission, and the time limits that keep a
// silent client from holding buffers. Before it: server.ts. After it: handshake.ts, transmission.ts.

import type { Duplex } from 'node:stream';
import { ProtocolViolation } from '../errors.ts';
import type { ServedExport, ServedExports } from './export.ts';
import { Handshake } from './handshake.ts';
import { Sender } from './sender.ts';
import { StreamReader } from './stream-reader.ts';
import { type Agreement, Transmission } from './transmission.ts';

/** Calls `action` once after so many milliseconds; the function it returns calls that off. */
export type After = (milliseconds: number, action: () => void) => () => void;

/** Time for a handshake. */
export const HANDSHAKE_MILLISECONDS = 10_000;
/** How long a client may owe us payload, or leave replies untaken, without a byte moving. */
export const STALL_MILLISECONDS = 30_000;
/** How long a client that was told goodbye may keep its end open. */
export const LINGER_MILLISECONDS = 5_000;

/** The server's end of one client's connection. */
export class Connection {
  readonly #socket: Duplex;
  readonly #exports: ServedExports;
  readonly #after: After;
  readonly #reader: StreamReader;
  readonly #sender: Sender;
  readonly #closed: Promise<void>;
  #transmission: Transmission | undefined;
  #reason: Error | undefined;

  /** The export that the client has chosen; undefined before that. */
  target: ServedExport | undefined;

  /** Takes over `socket`, which must let each side end by itself (allowHalfOpen). */
  constructor(socket: Duplex, exports: ServedExports, after: After) {
    this.#socket = socket;
    this.#exports = exports;
    this.#after = after;
    this.#reader = new StreamReader(socket);
    this.#sender = new Sender(socket);
    this.#closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('data', (chunk: Uint8Array) => this.#reader.push(chunk));
    socket.on('end', () => this.#reader.end());
    socket.on('error', (error) => this.abort(error));
    socket.on('close', () => this.#reader.discard());
  }

  /**
   * Serves the client. Resolves when the connection is closed and nothing that it started is under way,
   * to the reason if it did not end in good order.
   */
  async run(): Promise<Error | undefined> {
    try {
      const agreement = await this.#shakeHands();
      if (agreement) await this.#transmit(agreement);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.abort(error);
      await this.#transmission?.idle();
    }
    // What breaks from here on breaks a connection that is over.
    const reason = this.#reason;
    await this.#hangUp();
    return reason;
  }

  /** Finishes what is under way, refuses anything new and hangs up; a client in its handshake at once. */
  async stop(): Promise<void> {
    if (!this.#transmission) return this.abort(new Error('the server is shutting down'));
    this.#transmission.stop();
    await this.#transmission.idle();
    this.#reader.discard();
  }

  /** Hangs up now. Requests under way still end on the disk, then run() resolves. */
  abort(reason: Error): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }

  async #shakeHands(): Promise<Agreement | undefined> {
    const cancel = this.#after(HANDSHAKE_MILLISECONDS, () =>
      this.abort(new ProtocolViolation('NBD server', `no handshake in ${HANDSHAKE_MILLISECONDS} ms`)),
    );
    try {
      return await new Handshake(this.#reader, this.#sender, this.#exports).run();
    } finally {
      cancel();
    }
  }

  async #transmit(agreement: Agreement): Promise<void> {
    this.target = agreement.target;
    const transmission = new Transmission(this.#reader, this.#sender, agreement);
    this.#transmission = transmission;
    const unwatch = this.#watch(transmission);
    try {
      await transmission.run();
      await transmission.idle();
    } finally {
      unwatch();
    }
  }

  /** Hangs up on a client that owes us something and moves nothing from one look to the next. */
  #watch(transmission: Transmission): () => void {
    let before: number | undefined;
    let cancel = (): void => undefined;
    const look = (): void => {
      const owes = transmission.awaitsPayload || this.#sender.pending > 0;
      const moved = this.#reader.received + this.#sender.completed;
      if (owes && moved === before) {
        const stalled = `payload or room for replies owed and nothing moved in ${STALL_MILLISECONDS} ms`;
        this.abort(new ProtocolViolation('NBD server', stalled));
      } else {
        before = owes ? moved : undefined;
        cancel = this.#after(STALL_MILLISECONDS, look);
      }
    };
    look();
    return () => cancel();
  }

  async #hangUp(): Promise<void> {
    this.#reader.discard();
    this.#sender.end();
    const cancel = this.#after(LINGER_MILLISECONDS, () => this.#socket.destroy());
    await this.#closed;
    cancel();
  }
}
