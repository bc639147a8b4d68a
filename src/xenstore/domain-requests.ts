// Requests about domains, their features and quotas, nearly all for the tools only (docs/misc/xenstore.txt).
// Before requests.ts.

import { DOMID_SELF } from '../abi/xen.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import type { Domain } from './domains.ts';
import { isQuotaName, type Limits, type QuotaName } from './quotas.ts';
import {
  decimal,
  domainNumber,
  exactly,
  guestNumber,
  malformed,
  OK,
  only,
  ordinaryNumber,
  type Reply,
  type Session,
} from './request.ts';
import { SERVER_FEATURES, type Store } from './store.ts';
import { stringsIn } from './wire.ts';

/**
 * INTRODUCE. The frame and the event channel are only checked: whoever embeds the store maps the ring page
 * and serves it (ring.ts). A domain introduced again starts with a clean connection.
 */
export function introduce({ store }: Session, payload: Uint8Array): Reply {
  const [id = '', frame = '', port = ''] = stringsIn(payload);
  const number = guestNumber(id);
  if (!/^-?\d{1,20}$/.test(frame) || decimal(port, 0xffff_ffff) === 0) throw malformed('introduce');
  const domain = store.domains.find(number);
  if (domain?.introduced) for (const client of domain.clients) client.reset();
  store.introduce(number);
  return OK;
}

/** RELEASE. */
export function release({ store }: Session, payload: Uint8Array): Reply {
  store.release(introducedGuest(store, payload));
  return OK;
}

/** IS_DOMAIN_INTRODUCED. */
export function isIntroduced({ store }: Session, payload: Uint8Array): Reply {
  const number = domainNumber(only(payload));
  return number === DOMID_SELF || store.domains.find(number)?.introduced ? 'T\0' : 'F\0';
}

/** RESUME: a later shutdown will be announced again. */
export function resume({ store }: Session, payload: Uint8Array): Reply {
  introducedGuest(store, payload).shutdown = false;
  return OK;
}

/** SET_TARGET: the first domain gets the rights of the second. */
export function setTarget({ store }: Session, payload: Uint8Array): Reply {
  const [domain, target] = exactly(2, payload).map((each) => store.domains.find(domainNumber(each)));
  if (!domain?.introduced || !target?.introduced) throw new XenstoreError('ENOENT', 'set', 'target');
  domain.target = target;
  return OK;
}

/** GET_FEATURE. */
export function getFeature({ store, domain }: Session, payload: Uint8Array): Reply {
  const [id, ...more] = stringsIn(payload);
  if (id === undefined) return `${domain.features}\0`;
  if (!domain.privileged) throw new XenstoreError('EACCES', 'get features of', id);
  if (more.length > 0) throw malformed('get feature');
  return `${store.domains.obtain(ordinaryNumber(id)).features}\0`;
}

/** SET_FEATURE, before the domain is introduced: then its ring page has the features, and keeps them. */
export function setFeature({ store }: Session, payload: Uint8Array): Reply {
  const [id, features] = exactly(2, payload);
  const domain = store.domains.obtain(ordinaryNumber(id!));
  if (domain.introduced) throw new XenstoreError('EBUSY', 'set features of', id!);
  const bits = decimal(features!, 0xffff_ffff);
  if ((bits & ~SERVER_FEATURES) !== 0) throw malformed('set feature');
  domain.features = bits;
  return OK;
}

/** GET_QUOTA: the names of all, a new domain's, or one domain's. */
export function getQuota({ store }: Session, payload: Uint8Array): Reply {
  const strings = stringsIn(payload);
  if (strings.length === 0) return `${Object.keys(store.domains.limits).join(' ')}\0`;
  if (strings.length > 2) throw malformed('get quota');
  const name = quotaName(strings[strings.length - 1]!);
  const limits = strings.length === 1 ? store.domains.limits : limitsOf(store, strings[0]!);
  return `${limits[name]}\0`;
}

/** SET_QUOTA. Without a domain: what domains that are not known yet will start with. */
export function setQuota({ store }: Session, payload: Uint8Array): Reply {
  const strings = stringsIn(payload);
  if (strings.length < 2 || strings.length > 3) throw malformed('set quota');
  const value = decimal(strings[strings.length - 1]!, 0x7fff_ffff);
  const name = quotaName(strings[strings.length - 2]!);
  const limits = strings.length === 2 ? store.domains.limits : limitsOf(store, strings[0]!);
  limits[name] = value;
  return OK;
}

function limitsOf(store: Store, id: string): Limits {
  return store.domains.obtain(ordinaryNumber(id)).limits;
}

function introducedGuest(store: Store, payload: Uint8Array): Domain {
  const domain = store.domains.find(guestNumber(only(payload)));
  if (!domain?.introduced) throw new XenstoreError('ENOENT', 'find', 'domain');
  return domain;
}

function quotaName(text: string): QuotaName {
  if (!isQuotaName(text)) throw malformed('quota');
  return text;
}
