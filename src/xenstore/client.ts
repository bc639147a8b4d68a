// The port over the wire protocol: a client of any xenstored, over any channel of bytes. In the embedded Xen
// the channel is the guest's ring page (ring.ts), in the tools a Unix socket (cli/xenstore-socket.ts).

import * as xs from '../abi/xenstore.ts';
import { ProtocolViolation } from '../errors.ts';
import {
  type NodePermission,
  type Unwatch,
  type Xenstore,
  XenstoreError,
  type XenstoreNodes,
} from '../xen/xenstore.ts';
import { parsePermission } from './permissions.ts';
import { retried } from './retried.ts';
import { MessageReader, MessageWriter, stringsIn, terminated, textOf } from './wire.ts';

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

interface Pending {
  readonly type: number;
  readonly transactionId: number;
  readonly path: string;
  resolve(payload: Uint8Array): void;
  reject(reason: Error): void;
}

/** What messages call an operation; the path is added where there is one. */
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
  [xs.XS_TRANSACTION_START, 'start'],
  [xs.XS_TRANSACTION_END, 'end'],
]);

/** Parts that a list of children may come in, of up to 4096 bytes each. */
const PARTS_MAX = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
/** The clause that a peer breaks whose replies are no replies. */
const REPLY = 'xenstore.txt: replies';

/**
 * A client. It trusts the store's answers but not their form: replies to nobody, replies of another type and
 * messages without end close the channel and reject whatever waits.
 */
export class XenstoreClient implements Xenstore {
  readonly #channel: ByteChannel;
  readonly #reader = new MessageReader();
  readonly #pending = new Map<number, Pending>();
  readonly #watches = new Map<string, (path: string) => void>();
  readonly #nodes: WireNodes;
  #lastRequest = 0;
  #lastToken = 0;
  #closed: Error | undefined;

  constructor(channel: ByteChannel) {
    this.#channel = channel;
    this.#nodes = new WireNodes((type, path, payload) => this.#request(type, 0, path, payload));
    channel.attach({
      received: (bytes) => this.#received(bytes),
      closed: (reason) => this.#end(reason),
    });
  }

  read(path: string): Promise<string> {
    return this.#nodes.read(path);
  }

  write(path: string, value: string): Promise<void> {
    return this.#nodes.write(path, value);
  }

  directory(path: string): Promise<string[]> {
    return this.#nodes.directory(path);
  }

  remove(path: string): Promise<void> {
    return this.#nodes.remove(path);
  }

  permissions(path: string): Promise<NodePermission[]> {
    return this.#nodes.permissions(path);
  }

  setPermissions(path: string, permissions: readonly NodePermission[]): Promise<void> {
    return this.#nodes.setPermissions(path, permissions);
  }

  async watch(path: string, changed: (path: string) => void): Promise<Unwatch> {
    const token = `${++this.#lastToken}`;
    this.#watches.set(token, changed);
    try {
      await this.#request(xs.XS_WATCH, 0, path, textBytes(terminated([path, token])));
    } catch (error) {
      this.#watches.delete(token);
      throw error;
    }
    return async () => {
      if (this.#watches.delete(token))
        await this.#request(xs.XS_UNWATCH, 0, path, textBytes(terminated([path, token])));
    };
  }

  transaction<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    return retried(() => this.#attempt(body));
  }

  /** Ends the conversation; whatever waits rejects with EIO. */
  close(): void {
    this.#end(new XenstoreError('EIO', 'use', 'a closed client'));
  }

  async #attempt<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    const started = await this.#request(xs.XS_TRANSACTION_START, 0, 'transaction', textBytes('\0'));
    const id = Number(stringsIn(started)[0]);
    if (!Number.isInteger(id) || id < 1 || id > 0xffff_ffff)
      throw this.#violated(`transaction id "${textOf(started)}", expected a number from 1 to 4294967295`);
    let result: T;
    try {
      result = await body(new WireNodes((type, path, payload) => this.#request(type, id, path, payload)));
    } catch (error) {
      // If even this fails the channel is gone, and the transaction with it; the body's error tells more.
      await this.#endTransaction(id, 'F').catch(() => undefined);
      throw error;
    }
    await this.#endTransaction(id, 'T');
    return result;
  }

  #endTransaction(id: number, verdict: 'T' | 'F'): Promise<Uint8Array> {
    return this.#request(xs.XS_TRANSACTION_END, id, `transaction ${id}`, textBytes(`${verdict}\0`));
  }

  #request(type: number, transactionId: number, path: string, payload: Uint8Array): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) return reject(this.#closed);
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

type Request = (type: number, path: string, payload: Uint8Array) => Promise<Uint8Array>;

/** The operations on nodes, outside or inside a transaction. */
class WireNodes implements XenstoreNodes {
  readonly #request: Request;

  constructor(request: Request) {
    this.#request = request;
  }

  async read(path: string): Promise<string> {
    return decoder.decode(await this.#ask(xs.XS_READ, path));
  }

  async write(path: string, value: string): Promise<void> {
    await this.#request(xs.XS_WRITE, path, textBytes(`${path}\0${value}`));
  }

  async directory(path: string): Promise<string[]> {
    try {
      return stringsIn(await this.#ask(xs.XS_DIRECTORY, path)).sort();
    } catch (error) {
      if (!(error instanceof XenstoreError) || error.code !== 'E2BIG') throw error;
      return (await this.#directoryInParts(path)).sort();
    }
  }

  async remove(path: string): Promise<void> {
    await this.#ask(xs.XS_RM, path);
  }

  async permissions(path: string): Promise<NodePermission[]> {
    return stringsIn(await this.#ask(xs.XS_GET_PERMS, path)).map((entry) => {
      const parsed = parsePermission(entry);
      if (parsed === undefined)
        throw new ProtocolViolation(REPLY, `xenstore permission "${entry}" of ${path}`);
      return parsed;
    });
  }

  async setPermissions(path: string, permissions: readonly NodePermission[]): Promise<void> {
    const entries = permissions.map(({ domain, access }) => `${access}${domain}`);
    await this.#request(xs.XS_SET_PERMS, path, textBytes(terminated([path, ...entries])));
  }

  #ask(type: number, path: string): Promise<Uint8Array> {
    return this.#request(type, path, textBytes(`${path}\0`));
  }

  /** Parts of the list until the one that ends with an empty name; from the start again if the list changed. */
  async #directoryInParts(path: string): Promise<string[]> {
    let names: string[] = [];
    let offset = 0;
    let known: string | undefined;
    for (let parts = 0; parts < PARTS_MAX; parts++) {
      const payload = textBytes(terminated([path, `${offset}`]));
      const [generation, ...part] = stringsIn(await this.#request(xs.XS_DIRECTORY_PART, path, payload));
      if (offset > 0 && generation !== known) {
        names = [];
        offset = 0;
        continue;
      }
      known = generation;
      if (part.at(-1) === '') return [...names, ...part.slice(0, -1)];
      names.push(...part);
      offset += terminated(part).length;
    }
    throw new ProtocolViolation(
      REPLY,
      `xenstore list of children of ${path}: no end after ${PARTS_MAX} parts`,
    );
  }
}

function textBytes(text: string): Uint8Array {
  return encoder.encode(text);
}

function refusal(code: string, type: number, path: string): XenstoreError {
  return new XenstoreError(code, operations.get(type) ?? `request ${type}`, path);
}

/** The name in an error reply; one that the protocol does not have is EIO. */
function errorName(payload: Uint8Array): string {
  const [name = ''] = stringsIn(payload);
  return xs.XSD_ERRORS.find((each) => each === name) ?? 'EIO';
}
