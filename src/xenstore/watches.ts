// Who wants to hear about which paths (docs/misc/xenstore.txt, "Watches"). A change is matched by looking
// up its path and those above it, however many watches there are.

import { XenstoreError } from '../xen/xenstore.ts';
import type { Change } from './changes.ts';
import type { Domain } from './domains.ts';
import { depthOf, isRelative, parentOf, resolvePath } from './paths.ts';
import { MAY_READ, type Permissions, rightsOf } from './permissions.ts';
import { watchBytes } from './ledger.ts';
import { exceeds, type Usage } from './quotas.ts';
import type { Subscriber, Watch } from './subscriber.ts';

/** All watches by path. */
export class Watches {
  readonly #byPath = new Map<string, Set<Watch>>();
  #count = 0;

  /** How many there are. */
  get size(): number {
    return this.#count;
  }

  /** Adds a watch and reports its path at once: "look at it now". EINVAL, EEXIST, ENOSPC. */
  add(subscriber: Subscriber, path: string, token: string, depth?: number): Watch {
    const { domain } = subscriber;
    const full = this.#resolve(domain, path, 'watch');
    if (this.#find(subscriber, full, token) !== undefined) throw new XenstoreError('EEXIST', 'watch', path);
    const bytes = watchBytes(full, token);
    if (
      exceeds(domain, 'watches', domain.usage.watches + 1) ||
      exceeds(domain, 'memory', domain.usage.memory + bytes)
    )
      throw new XenstoreError('ENOSPC', 'watch', path);
    const prefix = isRelative(path) ? domain.home.length + 1 : 0;
    const watch = { subscriber, path: full, token, depth, prefix };
    this.#insert(watch);
    domain.usage.watches++;
    domain.usage.memory += bytes;
    subscriber.event(watch, full);
    return watch;
  }

  /** Takes back the watch with this path and token; what waits is still reported. EINVAL, ENOENT. */
  remove(subscriber: Subscriber, path: string, token: string): void {
    const watch = this.#find(subscriber, this.#resolve(subscriber.domain, path, 'unwatch'), token);
    if (watch === undefined) throw new XenstoreError('ENOENT', 'unwatch', path);
    this.#delete(watch);
  }

  /** Takes back every watch of a subscriber and forgets what waits for it. */
  removeAll(subscriber: Subscriber): void {
    for (const watch of [...subscriber.watches]) this.#delete(watch);
    subscriber.clear();
  }

  /** Reports a change of the tree to those it concerns and who may know. */
  fire(change: Change): void {
    const allowed = (domain: Domain) =>
      change.audience.some((permissions) => (rightsOf(domain, permissions) & MAY_READ) !== 0);
    const levels = depthOf(change.path);
    for (let at = change.path; ; at = parentOf(at)) {
      for (const watch of this.#byPath.get(at) ?? []) {
        const path = pathWithin(watch, at, change, levels);
        if (path !== undefined && allowed(watch.subscriber.domain)) watch.subscriber.event(watch, path);
      }
      if (change.exact || at === '/') return;
    }
  }

  /**
   * Reports that a domain came or went. A watch of depth 1 or more is told which, and a watch on
   * `event/domid` waits for that domain only.
   */
  fireSpecial(event: string, domid: number, permissions: Permissions): void {
    const named = `${event}/${domid}`;
    const tell = (watch: Watch, path: string) => {
      if ((rightsOf(watch.subscriber.domain, permissions) & MAY_READ) !== 0)
        watch.subscriber.event(watch, path);
    };
    for (const watch of this.#byPath.get(event) ?? [])
      if (watch.depth !== 0) tell(watch, watch.depth === undefined ? event : named);
    for (const watch of this.#byPath.get(named) ?? []) tell(watch, named);
  }

  /** Adds every watch to the account of its domain. */
  recount(accounts: ReadonlyMap<Domain, Usage>): void {
    for (const watches of this.#byPath.values())
      for (const { subscriber, path, token } of watches) {
        const usage = accounts.get(subscriber.domain)!;
        usage.watches++;
        usage.memory += watchBytes(path, token);
      }
  }

  #resolve(domain: Domain, path: string, operation: string): string {
    const full = resolvePath(path, domain.home);
    if (full === undefined) throw new XenstoreError('EINVAL', operation, path);
    return full;
  }

  #find(subscriber: Subscriber, full: string, token: string): Watch | undefined {
    for (const watch of this.#byPath.get(full) ?? [])
      if (watch.subscriber === subscriber && watch.token === token) return watch;
    return undefined;
  }

  #insert(watch: Watch): void {
    const others = this.#byPath.get(watch.path);
    if (others === undefined) this.#byPath.set(watch.path, new Set([watch]));
    else others.add(watch);
    watch.subscriber.watches.add(watch);
    this.#count++;
  }

  #delete(watch: Watch): void {
    const others = this.#byPath.get(watch.path)!;
    others.delete(watch);
    if (others.size === 0) this.#byPath.delete(watch.path);
    this.#count--;
    watch.subscriber.watches.delete(watch);
    const { usage } = watch.subscriber.domain;
    usage.watches--;
    usage.memory -= watchBytes(watch.path, watch.token);
  }
}

/**
 * The path to report to a watch at `at` for a change `levels` deep: the change's own, or the deepest of the
 * nodes made with it that the watch's depth reaches, or none.
 */
function pathWithin(watch: Watch, at: string, change: Change, levels: number): string | undefined {
  if (watch.depth === undefined) return change.path;
  const beyond = levels - depthOf(at) - watch.depth;
  if (beyond <= 0) return change.path;
  if (beyond >= change.created) return undefined;
  let path = change.path;
  for (let i = 0; i < beyond; i++) path = parentOf(path);
  return path;
}
