// The store: every node by its path, the domains that own them, the watches on them. All users work on it
// through access.ts, directly or in a transaction (transactions.ts); connection.ts and local.ts come next.
//
// It runs to completion on each call and keeps no timer, so a caller that wants determinism has it.

import {
  XENSTORE_SERVER_FEATURE_DOMID_ANY,
  XENSTORE_SERVER_FEATURE_ERROR,
  XENSTORE_SERVER_FEATURE_RECONNECTION,
  XENSTORE_SERVER_FEATURE_WATCHDEPTH,
} from '../abi/xenstore.ts';
import { assert } from '../errors.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import { NodeAccess } from './access.ts';
import { changeAt } from './changes.ts';
import { type Domain, Domains } from './domains.ts';
import { ChildNames, type Edits, type Node, removal, type View } from './node.ts';
import { INTRODUCE_DOMAIN, isSpecial, RELEASE_DOMAIN } from './paths.ts';
import { without } from './permissions.ts';
import { Ledger, nodeBytes } from './ledger.ts';
import { DEFAULT_LIMITS, type Limits, type Usage } from './quotas.ts';
import { Watches } from './watches.ts';
import { WriteRate } from './write-rate.ts';

/** Every feature that the store offers in a guest's ring page. */
export const SERVER_FEATURES =
  XENSTORE_SERVER_FEATURE_RECONNECTION |
  XENSTORE_SERVER_FEATURE_ERROR |
  XENSTORE_SERVER_FEATURE_WATCHDEPTH |
  XENSTORE_SERVER_FEATURE_DOMID_ANY;

interface StoreOptions {
  /** Quotas of a guest that differ from DEFAULT_LIMITS. */
  readonly limits?: Partial<Limits>;
  /** A clock that never goes back, in milliseconds. */
  readonly now?: () => number;
}

/** What the store needs to know of a transaction (transactions.ts). */
export interface OpenTransaction {
  readonly domain: Domain;
  /** Bytes it holds, counted from scratch. */
  recount(): number;
}

/** The tree and everything about it. */
export class Store implements View {
  readonly domains: Domains;
  readonly watches = new Watches();
  readonly writeRate: WriteRate;
  readonly now: () => number;
  /** Transactions that have not ended, whoever has them. */
  readonly transactions = new Set<OpenTransaction>();
  readonly #nodes = new Map<string, Node>();
  #generation = 0;

  constructor({ limits = {}, now = () => performance.now() }: StoreOptions = {}) {
    this.now = now;
    this.domains = new Domains({ ...DEFAULT_LIMITS, ...limits }, SERVER_FEATURES);
    this.writeRate = new WriteRate(now, this.domains);
    const first = ['/', INTRODUCE_DOMAIN, RELEASE_DOMAIN].map((path) => [path, this.#firstNode()] as const);
    this.apply(this.domains.control, new Map(first), []);
  }

  /** What `domain` may do to the nodes of `view`. */
  access(domain: Domain, view: View = this): NodeAccess {
    return new NodeAccess(this.domains, domain, view);
  }

  get(path: string): Node | undefined {
    return this.#nodes.get(path);
  }

  nextGeneration(): number {
    return ++this.#generation;
  }

  apply(caller: Domain, edits: Edits, touched: readonly string[]): void {
    const ledger = new Ledger();
    for (const [path, node] of edits) ledger.replace(path, this.#nodes.get(path), node);
    if (!caller.privileged && ledger.exceeds())
      throw new XenstoreError('ENOSPC', 'change', touched[0] ?? '/');
    const before = this.watches.size === 0 ? undefined : this.#records(edits);
    for (const [path, node] of edits)
      if (node === undefined) this.#nodes.delete(path);
      else this.#nodes.set(path, node);
    ledger.settle();
    if (this.transactions.size > 0) this.writeRate.charge(caller);
    if (before !== undefined) this.#announce(touched, before);
  }

  /** Starts to talk to the domain with this id; says so to the watchers, once. */
  introduce(id: number): Domain {
    const domain = this.domains.obtain(id);
    if (domain.introduced) return domain;
    domain.introduced = true;
    domain.shutdown = false;
    this.#raise(INTRODUCE_DOMAIN, id);
    return domain;
  }

  /** Ends the domain: its connections, its nodes, and its rights to everybody else's. */
  release(domain: Domain): void {
    assert(
      domain.alive && !domain.privileged,
      `domain ${domain.id} is to be released: it must be a living guest`,
    );
    for (const client of [...domain.clients]) client.close();
    const announced = domain.introduced;
    this.#disown(domain);
    this.domains.remove(domain);
    if (announced) this.#raise(RELEASE_DOMAIN, domain.id);
  }

  /** Tells the watchers, once, that the domain has shut down or crashed. */
  announceShutdown(domain: Domain): void {
    if (domain.shutdown || !domain.introduced) return;
    domain.shutdown = true;
    this.#raise(RELEASE_DOMAIN, domain.id);
  }

  /** What every domain uses, counted from scratch: equal to each domain's `usage`, or there is a bug. */
  recount(): Map<Domain, Usage> {
    const counted = new Map<Domain, Usage>();
    for (const domain of this.domains)
      counted.set(domain, { nodes: 0, memory: 0, watches: 0, transactions: 0 });
    for (const [path, node] of this.#nodes) {
      const usage = counted.get(node.permissions[0].domain)!;
      usage.nodes++;
      usage.memory += nodeBytes(path, node);
    }
    for (const transaction of this.transactions) {
      const usage = counted.get(transaction.domain)!;
      usage.transactions++;
      usage.memory += transaction.recount();
    }
    this.watches.recount(counted);
    return counted;
  }

  /** Every path, in no particular order. */
  paths(): IterableIterator<string> {
    return this.#nodes.keys();
  }

  #firstNode(): Node {
    return {
      value: new Uint8Array(0),
      permissions: [{ domain: this.domains.control, rights: 0 }],
      children: ChildNames.none,
      generation: this.nextGeneration(),
    };
  }

  /** The records that the edits will replace. */
  #records(edits: Edits): Edits {
    const records = new Map<string, Node | undefined>();
    for (const path of edits.keys()) records.set(path, this.#nodes.get(path));
    return records;
  }

  #announce(touched: readonly string[], records: Edits): void {
    const before = (path: string) => (records.has(path) ? records.get(path) : this.#nodes.get(path));
    const after = (path: string) => this.#nodes.get(path);
    for (const path of touched) {
      const change = changeAt(path, before, after);
      if (change !== undefined) this.watches.fire(change);
    }
  }

  #raise(event: string, id: number): void {
    const { permissions } = this.#nodes.get(event)!;
    this.watches.fireSpecial(event, id, permissions);
  }

  /** Removes the nodes that `domain` owns, with all below them, and strikes it from every permission list. */
  #disown(domain: Domain): void {
    const control = this.domains.control;
    const owned = (node: Node | undefined) => node?.permissions[0].domain === domain;
    for (const path of [...this.#nodes.keys()]) {
      // The root and the special names stay; domain 0 takes them back below.
      if (path === '/' || isSpecial(path) || !owned(this.#nodes.get(path))) continue;
      const { edits, removed } = removal(this, path);
      this.apply(control, edits, removed);
    }
    const edits = new Map<string, Node>();
    for (const [path, node] of this.#nodes) {
      const permissions = without(node.permissions, domain, control);
      if (permissions !== node.permissions)
        edits.set(path, { ...node, permissions, generation: this.nextGeneration() });
    }
    this.apply(control, edits, []);
  }
}
