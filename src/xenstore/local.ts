// The port straight on the store, for code that lives in the same process as it: no wire, no ring. Calls
// take effect at once; watches are reported later, when the scheduler says so, never from inside a call.

import { XENSTORE_PAYLOAD_MAX } from '../abi/xenstore.ts';
import type { DomainId } from '../xen/ids.ts';
import {
  type NodePermission,
  type Unwatch,
  type Xenstore,
  XenstoreError,
  type XenstoreNodes,
} from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import type { Domain, DomainClient } from './domains.ts';
import { describe } from './permissions.ts';
import { retried } from './retried.ts';
import type { Store } from './store.ts';
import { Subscriber } from './subscriber.ts';
import { TransactionTable } from './transactions.ts';

/** Runs a function soon, once the caller is done. */
type Schedule = (run: () => void) => void;

/**
 * The store as domain `id` sees it. The domain is known to the store from now on; when it is released, its
 * watches end and every further call rejects with EIO.
 */
export function localXenstore(store: Store, id: DomainId, schedule: Schedule = queueMicrotask): Xenstore {
  return new LocalXenstore(store, store.domains.obtain(id), schedule);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The operations on nodes, as promises of text. */
abstract class LocalNodes implements XenstoreNodes {
  /** What may be done now; throws when nothing may be done any more. */
  protected abstract access(): NodeAccess;

  async read(path: string): Promise<string> {
    return decoder.decode(this.access().read(path).value);
  }

  async write(path: string, value: string): Promise<void> {
    const bytes = encoder.encode(value);
    // What the wire could not carry is refused here too, so that a program runs the same over both.
    if (path.length + 1 + bytes.length > XENSTORE_PAYLOAD_MAX)
      throw new XenstoreError('E2BIG', 'write', path);
    this.access().write(path, bytes);
  }

  async directory(path: string): Promise<string[]> {
    return this.access().read(path).children.all().sort();
  }

  async remove(path: string): Promise<void> {
    this.access().remove(path);
  }

  async permissions(path: string): Promise<NodePermission[]> {
    return describe(this.access().permissions(path).permissions);
  }

  async setPermissions(path: string, permissions: readonly NodePermission[]): Promise<void> {
    this.access().setPermissions(path, permissions);
  }
}

/** The operations inside one transaction, until it ends. */
class TransactionNodes extends LocalNodes {
  readonly #transactions: TransactionTable;
  readonly #id: number;

  constructor(transactions: TransactionTable, id: number) {
    super();
    this.#transactions = transactions;
    this.#id = id;
  }

  protected override access(): NodeAccess {
    const transaction = this.#transactions.find(this.#id);
    if (transaction === undefined) throw new XenstoreError('ENOENT', 'use', `ended transaction ${this.#id}`);
    return transaction.nodes;
  }
}

class LocalXenstore extends LocalNodes implements Xenstore, DomainClient {
  readonly #store: Store;
  readonly #domain: Domain;
  readonly #access: NodeAccess;
  readonly #transactions: TransactionTable;
  readonly #subscriber: Subscriber;
  readonly #schedule: Schedule;
  readonly #callbacks = new Map<string, (path: string) => void>();
  #lastToken = 0;
  #open = true;

  constructor(store: Store, domain: Domain, schedule: Schedule) {
    super();
    this.#store = store;
    this.#domain = domain;
    this.#schedule = schedule;
    this.#access = store.access(domain);
    this.#transactions = new TransactionTable(store, domain);
    this.#subscriber = new Subscriber(domain, store.now, () => this.#reportSoon());
    domain.clients.add(this);
  }

  async watch(path: string, changed: (path: string) => void): Promise<Unwatch> {
    this.#demandOpen();
    const token = `${++this.#lastToken}`;
    this.#store.watches.add(this.#subscriber, path, token);
    this.#callbacks.set(token, changed);
    return async () => {
      if (this.#callbacks.delete(token)) this.#store.watches.remove(this.#subscriber, path, token);
    };
  }

  transaction<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    return retried(() => this.#attempt(body));
  }

  reset(): void {
    this.#store.watches.removeAll(this.#subscriber);
    this.#transactions.endAll();
    this.#callbacks.clear();
  }

  close(): void {
    this.#open = false;
    this.reset();
    this.#domain.clients.delete(this);
  }

  protected override access(): NodeAccess {
    this.#demandOpen();
    return this.#access;
  }

  async #attempt<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T> {
    this.#demandOpen();
    const id = this.#transactions.start();
    try {
      const result = await body(new TransactionNodes(this.#transactions, id));
      this.#transactions.end(id, true);
      return result;
    } finally {
      if (this.#transactions.find(id) !== undefined) this.#transactions.end(id, false);
    }
  }

  #demandOpen(): void {
    if (!this.#open) throw new XenstoreError('EIO', 'use', `the store as released domain ${this.#domain.id}`);
  }

  /** One event for each turn of the scheduler, so that a callback that throws costs no other its event. */
  #reportSoon(): void {
    this.#schedule(() => {
      const event = this.#subscriber.take();
      if (this.#subscriber.waiting > 0) this.#reportSoon();
      if (event !== undefined) this.#callbacks.get(event.watch.token)?.(event.path);
    });
  }
}
