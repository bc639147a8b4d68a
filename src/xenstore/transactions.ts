// A transaction: its user's changes kept apart until they are committed, all or none.
//
// The first look at a node keeps its record, and later looks find that record or the transaction's own
// change, whatever others do meanwhile. A commit demands that every node looked at still has the record that
// was kept: then all of it might as well have happened at the moment of the commit. Otherwise nothing
// happens and the user tries again (EAGAIN).

import { XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import type { Domain } from './domains.ts';
import type { Edits, Node, View } from './node.ts';
import { accessBytes, editBytes, Ledger } from './ledger.ts';
import { exceeds } from './quotas.ts';
import type { OpenTransaction, Store } from './store.ts';

/** One transaction of one domain. */
export class Transaction implements View, OpenTransaction {
  readonly domain: Domain;
  /** The operations inside. */
  readonly nodes: NodeAccess;
  readonly #store: Store;
  readonly #seen = new Map<string, Node | undefined>();
  readonly #edits = new Map<string, Node | undefined>();
  readonly #touched = new Set<string>();
  readonly #ledger = new Ledger();
  #held = 0;

  /** Starts it; ENOSPC when the domain has too many open. */
  constructor(store: Store, domain: Domain) {
    if (exceeds(domain, 'transactions', domain.usage.transactions + 1))
      throw new XenstoreError('ENOSPC', 'start', 'transaction');
    this.domain = domain;
    this.#store = store;
    this.nodes = store.access(domain, this);
    domain.usage.transactions++;
    store.transactions.add(this);
  }

  get(path: string): Node | undefined {
    if (this.#edits.has(path)) return this.#edits.get(path);
    if (this.#seen.has(path)) return this.#seen.get(path);
    const bytes = accessBytes(path);
    if (
      exceeds(this.domain, 'transaction-nodes', this.#seen.size + 1) ||
      exceeds(this.domain, 'memory', this.domain.usage.memory + bytes)
    )
      throw new XenstoreError('ENOSPC', 'look in a transaction at', path);
    const node = this.#store.get(path);
    this.#seen.set(path, node);
    this.#hold(bytes);
    return node;
  }

  nextGeneration(): number {
    return this.#store.nextGeneration();
  }

  apply(caller: Domain, edits: Edits, touched: readonly string[]): void {
    let bytes = 0;
    for (const [path, node] of edits) {
      bytes += editBytes(path, node) - editBytes(path, this.#edits.get(path));
      this.#ledger.replace(path, this.get(path), node);
    }
    const tooMuch =
      this.#ledger.exceeds() ||
      (bytes > 0 && exceeds(this.domain, 'memory', this.domain.usage.memory + bytes));
    if (tooMuch && !caller.privileged) {
      for (const [path, node] of edits) this.#ledger.replace(path, node, this.get(path));
      throw new XenstoreError('ENOSPC', 'change in a transaction', touched[0] ?? '/');
    }
    this.#hold(bytes);
    for (const [path, node] of edits) this.#edits.set(path, node);
    for (const path of touched) this.#touched.add(path);
  }

  /** Ends it with its changes made, or with none and false, because others changed what it had looked at. */
  commit(): boolean {
    this.#end();
    for (const [path, node] of this.#seen) if (this.#store.get(path) !== node) return false;
    // A domain that has gone meanwhile must neither own a node nor have rights to one.
    for (const node of this.#edits.values())
      if (node?.permissions.some((entry) => !entry.domain.alive)) return false;
    if (this.#edits.size > 0) this.#store.apply(this.domain, this.#edits, [...this.#touched]);
    return true;
  }

  /** Ends it without its changes. */
  abort(): void {
    this.#end();
  }

  /** Bytes it holds, counted from scratch. */
  recount(): number {
    let bytes = 0;
    for (const path of this.#seen.keys()) bytes += accessBytes(path);
    for (const [path, node] of this.#edits) bytes += editBytes(path, node);
    return bytes;
  }

  #hold(bytes: number): void {
    this.#held += bytes;
    this.domain.usage.memory += bytes;
  }

  #end(): void {
    this.#store.transactions.delete(this);
    this.domain.usage.transactions--;
    this.#hold(-this.#held);
  }
}

/** The open transactions of one client, by the ids that it knows them by. */
export class TransactionTable {
  readonly #store: Store;
  readonly #domain: Domain;
  readonly #byId = new Map<number, Transaction>();
  #lastId = 0;

  constructor(store: Store, domain: Domain) {
    this.#store = store;
    this.#domain = domain;
  }

  /** Starts one; returns its id, never 0. */
  start(): number {
    const transaction = new Transaction(this.#store, this.#domain);
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#lastId === 0 || this.#byId.has(this.#lastId));
    this.#byId.set(this.#lastId, transaction);
    return this.#lastId;
  }

  find(id: number): Transaction | undefined {
    return this.#byId.get(id);
  }

  /** Ends one with its changes, if `commit`: ENOENT, EAGAIN, or ENOSPC, and then it is gone as well. */
  end(id: number, commit: boolean): void {
    const transaction = this.#byId.get(id);
    if (transaction === undefined) throw new XenstoreError('ENOENT', 'end', `transaction ${id}`);
    this.#byId.delete(id);
    if (!commit) transaction.abort();
    else if (!transaction.commit()) throw new XenstoreError('EAGAIN', 'commit', `transaction ${id}`);
  }

  /** Aborts all. */
  endAll(): void {
    for (const transaction of this.#byId.values()) transaction.abort();
    this.#byId.clear();
  }
}
