// Who may do what to a node: an owner, what everyone may do, and entries for single domains
// (docs/misc/xenstore.txt, "Each node has one or multiple permission entries").

import {
  XENSTORE_SERVER_FEATURE_DOMID_ANY,
  XS_PERMISSION_ANY_DOMAIN,
  XS_PERMISSION_LETTERS,
} from '../abi/xenstore.ts';
import type { NodePermission } from '../xen/xenstore.ts';
import { type Domain, type Domains, isOrdinaryDomain } from './domains.ts';

/** Rights as bits; the letters n, r, w, b are their first four combinations. */
export const MAY_READ = 1;
export const MAY_WRITE = 2;
export const MAY_OWN = 4;
const EVERYTHING = MAY_READ | MAY_WRITE | MAY_OWN;

/** One entry: a domain's record, so that a later domain with the same id is not meant. */
export interface Permission {
  readonly domain: Domain;
  /** MAY_READ and MAY_WRITE, or neither. */
  readonly rights: number;
}

/** Never empty: the first entry's domain is the owner, its rights are those of domains not listed. */
export type Permissions = readonly [Permission, ...Permission[]];

/** What `domain` may do to a node. The first entry that matches decides. */
export function rightsOf(domain: Domain, permissions: Permissions): number {
  const owner = permissions[0];
  if (domain.privileged || owner.domain === domain || owner.domain === domain.target) return EVERYTHING;
  for (let i = 1; i < permissions.length; i++) {
    const entry = permissions[i]!;
    if (entry.domain === domain || entry.domain === domain.target || isAnyone(entry.domain))
      return entry.rights;
  }
  return owner.rights;
}

function isAnyone(domain: Domain): boolean {
  return domain.id === XS_PERMISSION_ANY_DOMAIN;
}

/** The list of a new node: its parent's, owned by the guest that makes it; the tools give nothing away. */
export function inherited(parent: Permissions, creator: Domain): Permissions {
  const [owner, ...others] = parent;
  return [{ domain: creator.privileged ? owner.domain : creator, rights: owner.rights }, ...others];
}

/** The list without the entries of `gone`, owned by `heir` if `gone` was the owner; itself if no change. */
export function without(permissions: Permissions, gone: Domain, heir: Domain): Permissions {
  if (!permissions.some((entry) => entry.domain === gone)) return permissions;
  const [owner, ...others] = permissions;
  const first = owner.domain === gone ? { domain: heir, rights: owner.rights } : owner;
  return [first, ...others.filter((entry) => entry.domain !== gone)];
}

/** A list as the port and the wire show it. */
export function describe(permissions: Permissions): NodePermission[] {
  return permissions.map(({ domain, rights }) => ({
    domain: domain.id,
    access: XS_PERMISSION_LETTERS[rights],
  }));
}

/**
 * A list from its description, or undefined if there is no owner in it. The tools may name a domain that
 * the store does not know yet; a guest may not prepare rights for one, so its entry is left out.
 */
export function understand(
  description: readonly NodePermission[],
  domains: Domains,
  caller: Domain,
): Permissions | undefined {
  const [owner, ...others] = description.map(({ domain, access }) => ({
    domain: known(domain, domains, caller),
    rights: XS_PERMISSION_LETTERS.indexOf(access),
  }));
  if (owner?.domain === undefined || isAnyone(owner.domain)) return undefined;
  return [
    { domain: owner.domain, rights: owner.rights },
    ...others.filter((entry): entry is Permission => entry.domain !== undefined),
  ];
}

function known(id: number, domains: Domains, caller: Domain): Domain | undefined {
  const anyone = id === XS_PERMISSION_ANY_DOMAIN;
  if (anyone && (caller.features & XENSTORE_SERVER_FEATURE_DOMID_ANY) === 0) return undefined;
  return caller.privileged && isOrdinaryDomain(id) ? domains.obtain(id) : domains.find(id);
}

/** Reads an entry such as "r5"; undefined if it is none. */
export function parsePermission(text: string): NodePermission | undefined {
  const access = XS_PERMISSION_LETTERS.find((letter) => text.startsWith(letter));
  const domain = Number(text.slice(1));
  if (access === undefined || !/^.\d{1,5}$/.test(text) || domain > 0xffff) return undefined;
  return { domain, access };
}
