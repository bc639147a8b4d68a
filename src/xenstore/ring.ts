// The page that a guest shares with the store, from both ends: the store's, which serves a connection, and
// the guest's, which is a channel for its client (docs/misc/xenstore-ring.txt). After ring-queue.ts.

import * as xs from '../abi/xenstore.ts';
import type { Region } from '../abi/region.ts';
import { ProtocolViolation } from '../errors.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import type { ByteChannel, ByteReceiver } from './client.ts';
import { Connection } from './connection.ts';
import type { Domain } from './domains.ts';
import { Consumer, Producer, REQUESTS, RESPONSES, RING_INDEX, ringWord } from './ring-queue.ts';
import type { Store } from './store.ts';

/** Moves in each direction for one poll, so that one guest cannot keep the store to itself. */
const MOVES = 16;

const FEATURES = ringWord('server_features');
const CONNECTION = ringWord('connection');
const ERROR = ringWord('error');

/** What the store's end of a ring tells its surroundings. */
interface RingSignals {
  /** Something moved or the state changed: signal the guest's event channel. */
  notify(): void;
  /** Something has to be sent that no poll() will notice by itself: call poll() soon. */
  wake(): void;
  /** The domain has been released: the page is not looked at any more. */
  released(): void;
}

/**
 * The store's end. It owns the page's feature, connection and error fields and starts with empty queues.
 * Nothing the guest writes does more than end its own connection: the error field then says why, and
 * it may ask for a fresh start through the connection field.
 */
export class RingServer {
  readonly #page: Region;
  readonly #store: Store;
  readonly #domain: Domain;
  readonly #signals: RingSignals;
  #connection: Connection | undefined;
  #requests: Consumer;
  #responses: Producer;
  #released = false;

  constructor(page: Region, store: Store, domain: Domain, signals: RingSignals) {
    this.#page = page;
    this.#store = store;
    this.#domain = domain;
    this.#signals = signals;
    Atomics.store(page.i32, FEATURES, domain.features);
    [this.#requests, this.#responses] = this.#start();
  }

  /**
   * Moves what can be moved. Call it whenever the guest has signalled, or `wake` was called. Returns after
   * how many milliseconds to call it again in any case, or undefined if not before a signal.
   */
  poll(): number | undefined {
    if (this.#released) return undefined;
    if (this.#reconnectionAsked()) this.#restart();
    if (this.#connection === undefined) return undefined;
    try {
      return this.#move(this.#connection);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#break(error.clause === RING_INDEX ? xs.XENSTORE_ERROR_RINGIDX : xs.XENSTORE_ERROR_PROTO);
      return undefined;
    }
  }

  #move(connection: Connection): number | undefined {
    let moved = false;
    for (let move = 0; move < MOVES; move++) {
      // Asked before: if it is over by the time of the look, the look finds what waits.
      const { delay } = connection;
      const taken = connection.receive(this.#requests.look());
      this.#requests.took(taken);
      const put = this.#responses.put(connection.peek());
      connection.sent(put);
      if (taken + put === 0) {
        if (moved) this.#signals.notify();
        return delay || undefined;
      }
      moved = true;
    }
    this.#signals.notify();
    return 0;
  }

  /** An empty ring and a connection that knows nothing yet. */
  #start(): [Consumer, Producer] {
    const { i32 } = this.#page;
    for (const { consumer, producer } of [REQUESTS, RESPONSES]) {
      Atomics.store(i32, consumer, 0);
      Atomics.store(i32, producer, 0);
    }
    Atomics.store(i32, ERROR, xs.XENSTORE_ERROR_NONE);
    const connection = new Connection(this.#store, this.#domain, this.#signals.wake, () => {
      if (this.#connection === connection) this.#endForGood();
    });
    this.#connection = connection;
    Atomics.store(i32, CONNECTION, xs.XENSTORE_CONNECTED);
    return [new Consumer(this.#page, REQUESTS, 0), new Producer(this.#page, RESPONSES, 0)];
  }

  #endForGood(): void {
    this.#released = true;
    this.#signals.released();
  }

  #reconnectionAsked(): boolean {
    const offered = (this.#domain.features & xs.XENSTORE_SERVER_FEATURE_RECONNECTION) !== 0;
    return offered && Atomics.load(this.#page.i32, CONNECTION) === xs.XENSTORE_RECONNECT;
  }

  #restart(): void {
    this.#drop();
    [this.#requests, this.#responses] = this.#start();
    this.#signals.notify();
  }

  #break(error: number): void {
    this.#drop();
    if ((this.#domain.features & xs.XENSTORE_SERVER_FEATURE_ERROR) !== 0)
      Atomics.store(this.#page.i32, ERROR, error);
    this.#signals.notify();
  }

  /** Ends the connection, but not for good. */
  #drop(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
  }
}

/** The guest's end, as a channel for a client (client.ts). The store may be as hostile as a guest. */
export class RingChannel implements ByteChannel {
  readonly #page: Region;
  readonly #notify: () => void;
  readonly #outgoing: Uint8Array[] = [];
  #receiver: ByteReceiver | undefined;
  #ends: RingEnds | undefined;
  #open = true;

  /** `notify` signals the store's end of the event channel. */
  constructor(page: Region, notify: () => void) {
    this.#page = page;
    this.#notify = notify;
  }

  attach(receiver: ByteReceiver): void {
    this.#receiver = receiver;
  }

  send(bytes: Uint8Array): void {
    if (!this.#open) return;
    this.#outgoing.push(bytes);
    this.#guarded(({ requests }) => this.#putOutgoing(requests));
  }

  close(): void {
    this.#open = false;
    this.#outgoing.length = 0;
  }

  /** Moves what can be moved; to be called whenever the store has signalled. */
  poll(): void {
    this.#guarded(({ requests, responses }) => {
      const incoming = responses.look();
      responses.took(incoming.length);
      if (incoming.length > 0) this.#receiver?.received(incoming);
      return this.#putOutgoing(requests) || incoming.length > 0;
    });
  }

  /** Moves bytes while the ring is in service, and signals if any moved; ends the channel if it is broken. */
  #guarded(move: (ends: RingEnds) => boolean): void {
    // While the store has not confirmed a reconnection every other field means nothing.
    if (!this.#open || Atomics.load(this.#page.i32, CONNECTION) !== xs.XENSTORE_CONNECTED) return;
    this.#ends ??= guestEnds(this.#page);
    try {
      this.#demandService();
      if (move(this.#ends)) this.#notify();
    } catch (error) {
      if (!(error instanceof ProtocolViolation || error instanceof XenstoreError)) throw error;
      this.close();
      this.#receiver?.closed(error);
    }
  }

  #demandService(): void {
    if ((Atomics.load(this.#page.i32, FEATURES) & xs.XENSTORE_SERVER_FEATURE_ERROR) === 0) return;
    const error = Atomics.load(this.#page.i32, ERROR);
    if (error !== xs.XENSTORE_ERROR_NONE)
      throw new XenstoreError('EIO', 'use', `the ring that the store gave up with error ${error}`);
  }

  /** Whether any of the bytes to send found room. */
  #putOutgoing(requests: Producer): boolean {
    let moved = false;
    for (let bytes = this.#outgoing[0]; bytes !== undefined; bytes = this.#outgoing[0]) {
      const put = requests.put(bytes);
      moved ||= put > 0;
      if (put < bytes.length) {
        this.#outgoing[0] = bytes.subarray(put);
        return moved;
      }
      this.#outgoing.shift();
    }
    return moved;
  }
}

interface RingEnds {
  readonly requests: Producer;
  readonly responses: Consumer;
}

/** The guest's ends, from where the page says the queues are: not necessarily at 0. */
function guestEnds(page: Region): RingEnds {
  return {
    requests: new Producer(page, REQUESTS, Atomics.load(page.i32, REQUESTS.producer) >>> 0),
    responses: new Consumer(page, RESPONSES, Atomics.load(page.i32, RESPONSES.consumer) >>> 0),
  };
}
