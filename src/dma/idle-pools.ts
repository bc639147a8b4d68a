// What the devices of a domain hold without using it: pages of their bounce pools, and the references of those
// that stay granted for a while. When references or pages run out, whoever needs them takes them from here,
// so that one device's comfort never is another's failure. After grants.ts and bounce-pages.ts.

/** The pool of one device. */
export interface IdlePool {
  /** Ends access to what was idle longest. Returns false when nothing granted is idle. */
  revokeOldest(): boolean;
  /** Gives all pages that are not in use back to the guest. Returns false when there are none. */
  releaseIdle(): boolean;
}

/** The pools of all devices of a domain. */
export class IdlePools {
  readonly #pools = new Set<IdlePool>();

  add(pool: IdlePool): void {
    this.#pools.add(pool);
  }

  remove(pool: IdlePool): void {
    this.#pools.delete(pool);
  }

  /** Has one device end access to something idle. Returns false when none of them can. */
  reclaimReferences(): boolean {
    for (const pool of this.#pools) if (pool.revokeOldest()) return true;
    return false;
  }

  /** Has all devices give their idle pages back. Returns false when they have none. */
  reclaimPages(): boolean {
    let any = false;
    for (const pool of this.#pools) if (pool.releaseIdle()) any = true;
    return any;
  }
}
