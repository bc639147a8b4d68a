// The port over the wire protocol: a client of any xenstored, over any channel of bytes. In the embedded Xen
// the channel is the guest's ring page (ring.ts), in the tools a Unix socket (cli/xenstore-socket.ts).

import * as xs from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import { type Unwatch, type Xenstore, XenstoreError, type XenstoreNodes } from '../xen/xenstore.ts';
import { retried } from './retried.ts';
import { MessageReader, MessageWriter, stringsIn, terminated, textOf } from './wire.ts';
import { REPLY, textBytes, WireNodes } from './wire-nodes.ts';

/** Who gets what comes out of a channel. */
export interface ByteReceiver {
  /** Bytes have come; they are valid during the call only. */
  received(bytes: Uint8Array): void;
  /** Nothing will come any more, and nothing can be sent. */
  closed(reason: Error): void;
}

/** A reliable stream of bytes in both directions. */
export interface ByteChannel {
  /** Sets the receiver, before anything is sent. */
  attach(receiver: ByteReceiver): void;
  /** Sends the bytes after all earlier ones; it may keep them, so they must not change. */
  send(bytes: Uint8Array): void;
  /** Ends it from this side. */
  close(): void;
}

/** A request on its way. */
interface Pending {
  readonly type: number;
  readonly transactionId: number;
  readonly path: string;
  resolve(payload: Uint8Array): void;
  reject(reason: Error): void;
}

/** What the message of a refusal calls a request. */
const operations = new Map<number, string>([
  [xs.XS_READ, 'read'],
  [xs.XS_WRITE, 'write'],
  [xs.XS_DIRECTORY, 'read'],
  [xs.XS_DIRECTORY_PART, 'read'],
  [xs.XS_RM, 'remove'],
  [xs.XS_GET_PERMS, 'get permissions of'],
  [xs.XS_SET_PERMS, 'set permissions of'],
  [xs.XS_WATCH, 'watch'],
  [xs.XS_UNWATCH, 'unwatch'],
  [xs.XS_IS_DOMAIN_INTRODUCED, 'look for'],
  [xs.XS_TRANSACTION_START, 'start'],
  [xs.XS_TRANSACTION_END, 'end'],
]);

/**
 * A client. It trusts the store's answers but not their form: replies to nobody, replies of another type and
 * messages without end close the channel and reject whatever waits.
 */
export class XenstoreClient extends WireNodes implements Xenstore {
  readonly #channel: ByteChannel;
  readonly #reader = new MessageReader();
  readonly #pending = new Map<number, Pending>();
  readonly #watches = new Map<string, (path: string) => void>();
  #lastRequest = 0;
  #lastToken = 0;
  #closed: Error | undefined;

  constructor(channel: ByteChannel) {
    super();
    this.#channel = channel;
    channel.attach({
      received: (bytes) => this.#received(bytes),
      closed: (reason) => this.#end(reason),
    });
  }

  async watch(path: string, changed: (path: string) => void): Promise<Unwatch> {
    const token = `${++this.#lastToken}`;
    const payload = textBytes(terminated([path, token]));
    this.#watches.set(token, changed);
    try {
      await this.ask(xs.XS_WATCH, path, payload);
    } catch (error) {
      this.#watches.delete(token);
      throw error;
    }
    return async () => {
      if (this.#watches.delete(token)) await this.ask(xs.XS_UNWATCH, path, payload);
    };
  }

  transaction<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    return retried(() => this.#attempt(body));
  }

  /**
   * Whether the store knows a domain of that id, which it forgets when the domain is taken apart. Rejects with
   * XenstoreError where the store tells that to domain 0 only.
   */
  async isIntroduced(domain: number): Promise<boolean> {
    const payload = textBytes(`${domain}\0`);
    return textOf(await this.ask(xs.XS_IS_DOMAIN_INTRODUCED, `domain ${domain}`, payload)) === 'T\0';
  }

  /** Ends the conversation; whatever waits rejects with EIO. */
  close(): void {
    this.#end(new XenstoreError('EIO', 'use', 'a closed client'));
  }

  protected override ask(type: number, path: string, payload: Uint8Array): Promise<Uint8Array> {
    return this.#request(type, 0, path, payload);
  }

  async #attempt<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    const id = await this.#startTransaction();
    const end = (verdict: 'T' | 'F') =>
      this.#request(xs.XS_TRANSACTION_END, id, `transaction ${id}`, textBytes(`${verdict}\0`));
    let result: T;
    try {
      result = await body(
        new TransactionNodes((type, path, payload) => this.#request(type, id, path, payload)),
      );
    } catch (error) {
      // If even this fails the channel is gone, and the transaction with it; the body's error tells more.
      await end('F').catch(() => undefined);
      throw error;
    }
    await end('T');
    return result;
  }

  async #startTransaction(): Promise<number> {
    const reply = textOf(await this.ask(xs.XS_TRANSACTION_START, 'transaction', textBytes('\0')));
    const id = Number(reply.slice(0, -1));
    if (!/^\d{1,10}\0$/.test(reply) || id < 1 || id > 0xffff_ffff)
      throw this.#violated(`transaction id "${reply}", expected a number from 1 to 4294967295`);
    return id;
  }

  #request(type: number, transactionId: number, path: string, payload: Uint8Array): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) return reject(this.#closed);
      // The wire ends a path at its first NUL: the store would take the rest for the next argument.
      if (path.includes('\0')) return reject(refusal('EINVAL', type, path));
      if (payload.length > xs.XENSTORE_PAYLOAD_MAX) return reject(refusal('E2BIG', type, path));
      this.#lastRequest = (this.#lastRequest + 1) >>> 0;
      this.#pending.set(this.#lastRequest, { type, transactionId, path, resolve, reject });
      const writer = new MessageWriter();
      writer.add(type, this.#lastRequest, transactionId, payload);
      this.#channel.send(writer.take());
    });
  }

  #received(bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length && this.#closed === undefined; at += this.#reader.taken)
        if (this.#reader.take(bytes, at)) this.#message();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#end(error);
    }
  }

  #message(): void {
    const { type, requestId, transactionId, payload } = this.#reader;
    if (type === xs.XS_WATCH_EVENT) {
      this.#event(stringsIn(payload));
      return;
    }
    const pending = this.#pending.get(requestId);
    if (pending === undefined || pending.transactionId !== transactionId)
      throw new ProtocolViolation(REPLY, `xenstore reply to request ${requestId}, which is not waiting`);
    this.#pending.delete(requestId);
    if (type === xs.XS_ERROR) pending.reject(refusal(errorName(payload), pending.type, pending.path));
    else if (type === pending.type) pending.resolve(payload.slice());
    else pending.reject(this.#violated(`reply of type ${type} to a request of type ${pending.type}`));
  }

  #event([path, token, ...more]: string[]): void {
    if (path === undefined || token === undefined || more.length > 0)
      throw new ProtocolViolation(REPLY, 'xenstore watch event without a path and a token');
    const changed = this.#watches.get(token);
    if (changed !== undefined) queueMicrotask(() => changed(path));
  }

  /** Ends the conversation with a peer that does not keep to the protocol; returns the reason. */
  #violated(detail: string): ProtocolViolation {
    const violation = new ProtocolViolation(REPLY, `xenstore ${detail}`);
    this.#end(violation);
    return violation;
  }

  #end(reason: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#channel.close();
    this.#watches.clear();
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }
}

/** The operations inside one transaction; once it has ended the store refuses them. */
class TransactionNodes extends WireNodes {
  protected override readonly ask: WireNodes['ask'];

  constructor(ask: TransactionNodes['ask']) {
    super();
    this.ask = ask;
  }
}

function refusal(code: string, type: number, path: string): XenstoreError {
  return new XenstoreError(code, operations.get(type) ?? `request ${type}`, path);
}

/** The name in an error reply; one that the protocol does not have is EIO. */
function errorName(payload: Uint8Array): string {
  const [name = ''] = stringsIn(payload);
  return xs.XSD_ERRORS.find((each) => each === name) ?? 'EIO';
}
