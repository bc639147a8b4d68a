// How much of the store one domain may use, and who is charged for what. Domain 0 is not limited.
//
// A guest must exhaust neither the store nor its neighbours' share of it (XSA-326): everything that a
// guest can make the store remember is counted here or has a fixed size.

/** What a new domain may have, by the name that GET_QUOTA and SET_QUOTA use; 0 means no limit. */
export const DEFAULT_LIMITS = {
  /** Nodes owned. */
  nodes: 1000,
  watches: 128,
  /** Transactions open at once. */
  transactions: 10,
  /** Nodes read or written in one transaction. */
  'transaction-nodes': 1024,
  /** Replies that wait until the client reads them; requests beyond are not looked at. */
  outstanding: 20,
  /** Watch events that wait, before further ones say only "something below your path changed". */
  events: 128,
  /** Bytes: nodes owned, watches, and what open transactions hold. */
  memory: 2_621_440,
  /** Entries in one node's permission list. */
  permissions: 5,
  /** Bytes of one node's value. */
  'node-size': 2048,
};

export type QuotaName = keyof typeof DEFAULT_LIMITS;
export type Limits = Record<QuotaName, number>;

/** What a domain has at the moment, of the quotas that count up and down. */
export interface Usage {
  nodes: number;
  memory: number;
  watches: number;
  transactions: number;
}

/** Whether `name` is a quota. */
export function isQuotaName(name: string): name is QuotaName {
  return Object.hasOwn(DEFAULT_LIMITS, name);
}

/** Somebody who has limits and usage: a domain. */
export interface Account {
  readonly privileged: boolean;
  readonly limits: Limits;
  readonly usage: Usage;
}

/** Whether `account` may not have `amount` of `quota`. */
export function exceeds(account: Account, quota: QuotaName, amount: number): boolean {
  const limit = account.limits[quota];
  return !account.privileged && limit !== 0 && amount > limit;
}
