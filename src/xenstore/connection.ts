// One client of the store over some transport of bytes (ring.ts, cli/xenstored.ts): requests in, replies
// and watch events out. What the client may leave lying about is bounded: half a message, a number of replies
// that it does not read, its watches and their events, its transactions.

import { XENSTORE_PAYLOAD_MAX, XS_ERROR, XS_WATCH_EVENT } from '../abi/xenstore.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import type { Domain, DomainClient } from './domains.ts';
import type { Reply, Session } from './request.ts';
import { answer } from './requests.ts';
import { exceeds } from './quotas.ts';
import type { Store } from './store.ts';
import { Subscriber } from './subscriber.ts';
import { TransactionTable } from './transactions.ts';
import { MessageReader, MessageWriter } from './wire.ts';

/** Unread bytes at which a client without a quota of unread replies is no longer listened to. */
const UNREAD_MAX = 1 << 20;
/** Events are made into messages only while fewer bytes than this wait, so that they can still be merged. */
const EVENTS_BELOW = 4096;

/** One end of a conversation with the store. */
export class Connection implements DomainClient, Session {
  readonly store: Store;
  readonly domain: Domain;
  readonly nodes: NodeAccess;
  readonly transactions: TransactionTable;
  readonly subscriber: Subscriber;
  readonly #reader = new MessageReader();
  readonly #writer = new MessageWriter();
  readonly #ended: () => void;
  #unread = 0;
  #serving = false;
  #open = true;

  /**
   * @param wake called when there is something to send although nothing was received; from inside another
   *   connection's receive(), so it should note that, or schedule something, and return
   * @param ended called when the store ends the connection, because its domain has gone
   */
  constructor(store: Store, domain: Domain, wake: () => void, ended: () => void) {
    this.store = store;
    this.domain = domain;
    this.nodes = store.access(domain);
    this.transactions = new TransactionTable(store, domain);
    this.subscriber = new Subscriber(domain, store.now, () => {
      if (!this.#serving) wake();
    });
    this.#ended = ended;
    domain.clients.add(this);
  }

  /** Whether the client is listened to: not while it leaves too many replies unread, or writes too fast. */
  get listening(): boolean {
    if (!this.#open) return false;
    if (this.domain.privileged) return this.#writer.length < UNREAD_MAX;
    return !exceeds(this.domain, 'outstanding', this.#unread + 1) && this.delay === 0;
  }

  /** Milliseconds for which the client is not listened to because it writes too fast: then give it again. */
  get delay(): number {
    return this.store.writeRate.delay(this.domain);
  }

  /**
   * Takes what the client has sent, cut anywhere, and does what it asks. Returns how many bytes were taken:
   * fewer than given when the client is not listened to any longer; the rest is to be given again.
   * Throws ProtocolViolation when the conversation cannot go on; the transport then ends it.
   */
  receive(input: Uint8Array): number {
    let taken = 0;
    this.#serving = true;
    try {
      while (taken < input.length && this.listening) {
        const whole = this.#reader.take(input, taken);
        taken += this.#reader.taken;
        if (whole) this.#serve();
      }
    } finally {
      this.#serving = false;
    }
    return taken;
  }

  /** What is to be sent, as far as it is known; valid until the next call. */
  peek(): Uint8Array {
    this.#addEvents();
    return this.#writer.peek();
  }

  /** Says that the first `count` bytes of peek() have been sent. */
  sent(count: number): void {
    this.#writer.drop(count);
    if (this.#writer.length === 0) this.#unread = 0;
  }

  /** What is to be sent, for good. */
  take(): Uint8Array<ArrayBuffer> {
    this.#addEvents();
    this.#unread = 0;
    return this.#writer.take();
  }

  reset(): void {
    this.store.watches.removeAll(this.subscriber);
    this.transactions.endAll();
    this.#reader.reset();
    this.#writer.take();
    this.#unread = 0;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.reset();
    this.domain.clients.delete(this);
    this.#ended();
  }

  #serve(): void {
    const { type, requestId, transactionId, payload } = this.#reader;
    this.#unread++;
    let reply: Reply;
    try {
      reply = answer(this, type, transactionId, payload);
      if (reply.length > XENSTORE_PAYLOAD_MAX) throw new XenstoreError('E2BIG', 'reply to', `type ${type}`);
    } catch (error) {
      if (!(error instanceof XenstoreError)) throw error;
      this.#writer.add(XS_ERROR, requestId, transactionId, `${error.code}\0`);
      return;
    }
    this.#writer.add(type, requestId, transactionId, reply);
  }

  #addEvents(): void {
    while (this.#writer.length < EVENTS_BELOW) {
      const event = this.subscriber.take();
      if (event === undefined) return;
      this.#writer.add(XS_WATCH_EVENT, 0, 0, `${event.path}\0${event.watch.token}\0`);
    }
  }
}
