// The domains that the store knows. A domain is a record, not a number: whoever held a domain id before
// keeps nothing that its successor could find, because permissions and ownership refer to the record.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { XS_PERMISSION_ANY_DOMAIN } from '../abi/xenstore.ts';
import { assert } from '../errors.ts';
import { homeOf } from './paths.ts';
import type { Account, Limits, Usage } from './quotas.ts';

/** A connection or a local user of the store: what ends when its domain does. */
export interface DomainClient {
  /** Drops watches, transactions and half a message, and goes on. */
  reset(): void;
  /** Ends for good. */
  close(): void;
}

/** One life of a domain id. */
export class Domain implements Account {
  readonly id: number;
  /** Tells this holder of the id from earlier and later ones. */
  readonly generation: number;
  /** Where its relative paths start. */
  readonly home: string;
  readonly limits: Limits;
  readonly usage: Usage = { nodes: 0, memory: 0, watches: 0, transactions: 0 };
  readonly clients = new Set<DomainClient>();
  /** False once the domain has been released; nothing that refers to it counts any more. */
  alive = true;
  /** Whether the store talks to it: INTRODUCE has been seen, RELEASE has not. */
  introduced = false;
  /** Whether its shutdown has been announced. */
  shutdown = false;
  /** What `server_features` of its ring offers. */
  features: number;
  /** The domain whose rights it also has (SET_TARGET): a device model acting for its guest. */
  target: Domain | undefined;

  constructor(id: number, generation: number, limits: Limits, features: number) {
    this.id = id;
    this.generation = generation;
    this.home = homeOf(id);
    this.limits = limits;
    this.features = features;
  }

  /** Domain 0 runs the tools: no permission and no quota holds it. */
  get privileged(): boolean {
    return this.id === 0;
  }
}

/** Every domain alive, by id. */
export class Domains {
  /** What a new domain starts with. */
  readonly limits: Limits;
  readonly #features: number;
  readonly #byId = new Map<number, Domain>();
  #generations = 0;

  constructor(limits: Limits, features: number) {
    this.limits = limits;
    this.#features = features;
    // Named in permission lists only; it is nobody's connection.
    this.#create(XS_PERMISSION_ANY_DOMAIN);
    this.#create(0).introduced = true;
  }

  /** The domain that holds `id` now. */
  find(id: number): Domain | undefined {
    return this.#byId.get(id);
  }

  /** The domain that holds `id` now; a new record if nobody does. `id` must be an ordinary domain's. */
  obtain(id: number): Domain {
    assert(isOrdinaryDomain(id), `domain id ${id}: expected 0 to ${DOMID_FIRST_RESERVED - 1}`);
    return this.#byId.get(id) ?? this.#create(id);
  }

  /** Domain 0. */
  get control(): Domain {
    return this.obtain(0);
  }

  /** Guests that the store talks to. */
  get introducedGuests(): number {
    let count = 0;
    for (const domain of this.#byId.values()) if (domain.introduced && !domain.privileged) count++;
    return count;
  }

  [Symbol.iterator](): IterableIterator<Domain> {
    return this.#byId.values();
  }

  /** Ends this life of the domain's id. */
  remove(domain: Domain): void {
    domain.alive = false;
    domain.introduced = false;
    this.#byId.delete(domain.id);
    for (const other of this.#byId.values()) if (other.target === domain) other.target = undefined;
  }

  #create(id: number): Domain {
    const domain = new Domain(id, ++this.#generations, { ...this.limits }, this.#features);
    this.#byId.set(id, domain);
    return domain;
  }
}

/** Whether `id` can be a domain's: not one of the reserved numbers. */
export function isOrdinaryDomain(id: number): boolean {
  return Number.isInteger(id) && id >= 0 && id < DOMID_FIRST_RESERVED;
}
