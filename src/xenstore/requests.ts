// Every request of the wire protocol: arguments out of the payload, the operation on the store, the reply's
// payload (docs/misc/xenstore.txt). What a connection is and what it keeps is in connection.ts.

import * as xs from '../abi/xenstore.ts';
import { DOMID_SELF } from '../abi/xen.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import { control } from './control.ts';
import { type Domain, isOrdinaryDomain } from './domains.ts';
import { homeOf } from './paths.ts';
import { describe, parsePermission } from './permissions.ts';
import { isQuotaName, type QuotaName } from './quotas.ts';
import { SERVER_FEATURES, type Store } from './store.ts';
import type { Subscriber } from './subscriber.ts';
import type { TransactionTable } from './transactions.ts';
import { stringsIn, terminated, textOf } from './wire.ts';

/** Who asks, and what belongs to the asking connection. */
export interface Session {
  readonly store: Store;
  readonly domain: Domain;
  readonly nodes: NodeAccess;
  readonly transactions: TransactionTable;
  readonly subscriber: Subscriber;
}

/** A reply's payload; a string is one byte for each character. */
export type Reply = Uint8Array | string;

/** `nodes` are those of the request's transaction, or of the store itself. */
type Handler = (session: Session, payload: Uint8Array, nodes: NodeAccess, transactionId: number) => Reply;

interface RequestKind {
  readonly handle: Handler;
  /** Only domain 0 may ask. */
  readonly privileged?: true;
  /** The transaction id in the header means nothing. */
  readonly outside?: true;
}

const OK = 'OK\0';

const kinds = new Map<number, RequestKind>([
  [xs.XS_CONTROL, { handle: ({ store }, payload) => control(store, stringsIn(payload)), privileged: true }],
  [xs.XS_DIRECTORY, { handle: directory }],
  [xs.XS_READ, { handle: (_, payload, nodes) => nodes.read(only(payload)).value }],
  [xs.XS_GET_PERMS, { handle: getPermissions }],
  [xs.XS_WATCH, { handle: watch, outside: true }],
  [xs.XS_UNWATCH, { handle: unwatch, outside: true }],
  [xs.XS_TRANSACTION_START, { handle: startTransaction }],
  [xs.XS_TRANSACTION_END, { handle: endTransaction }],
  [xs.XS_INTRODUCE, { handle: introduce, privileged: true }],
  [xs.XS_RELEASE, { handle: release, privileged: true }],
  [xs.XS_GET_DOMAIN_PATH, { handle: (_, payload) => `${homeOf(domainNumber(only(payload)))}\0` }],
  [xs.XS_WRITE, { handle: write }],
  [xs.XS_MKDIR, { handle: makeDirectory }],
  [xs.XS_RM, { handle: remove }],
  [xs.XS_SET_PERMS, { handle: setPermissions }],
  [xs.XS_IS_DOMAIN_INTRODUCED, { handle: isIntroduced, privileged: true }],
  [xs.XS_RESUME, { handle: resume, privileged: true }],
  [xs.XS_SET_TARGET, { handle: setTarget, privileged: true }],
  [xs.XS_RESET_WATCHES, { handle: resetWatches }],
  [xs.XS_DIRECTORY_PART, { handle: directoryPart }],
  [xs.XS_GET_FEATURE, { handle: getFeature }],
  [xs.XS_SET_FEATURE, { handle: setFeature, privileged: true }],
  [xs.XS_GET_QUOTA, { handle: getQuota, privileged: true }],
  [xs.XS_SET_QUOTA, { handle: setQuota, privileged: true }],
]);

/** Does what a request asks; throws XenstoreError when it is refused. */
export function answer(session: Session, type: number, transactionId: number, payload: Uint8Array): Reply {
  const kind = kinds.get(type);
  if (kind === undefined) throw new XenstoreError('ENOSYS', 'request of type', `${type}`);
  if (kind.privileged && !session.domain.privileged)
    throw new XenstoreError('EACCES', 'request of type', `${type}`);
  if (kind.outside || transactionId === 0) return kind.handle(session, payload, session.nodes, transactionId);
  const transaction = session.transactions.find(transactionId);
  if (transaction === undefined) throw new XenstoreError('ENOENT', 'use', `transaction ${transactionId}`);
  return kind.handle(session, payload, transaction.nodes, transactionId);
}

// --- Nodes -------------------------------------------------------------------------------------------------

function directory(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  return terminated(nodes.read(only(payload)).children.all());
}

/** As many whole names as fit, from an offset into the whole list; an empty name ends the last part. */
function directoryPart(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const [path, offset] = exactly(2, payload);
  const node = nodes.read(path!);
  const list = terminated(node.children.all());
  const from = Math.min(decimal(offset!, 0xffff_ffff), list.length);
  const generation = `${node.generation}\0`;
  const room = xs.XENSTORE_PAYLOAD_MAX - generation.length - 1;
  if (list.length - from <= room) return `${generation}${list.slice(from)}\0`;
  return generation + list.slice(from, list.lastIndexOf('\0', from + room - 1) + 1);
}

function write(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const end = payload.indexOf(0);
  if (end === -1) throw malformed('write');
  nodes.write(textOf(payload.subarray(0, end)), payload.slice(end + 1));
  return OK;
}

function makeDirectory(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  nodes.makeDirectory(only(payload));
  return OK;
}

function remove(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  nodes.remove(only(payload));
  return OK;
}

function getPermissions(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const { permissions } = nodes.permissions(only(payload));
  return terminated(describe(permissions).map(({ domain, access }) => `${access}${domain}`));
}

function setPermissions(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const [path, ...entries] = stringsIn(payload);
  const permissions = entries.map((entry) => {
    const parsed = parsePermission(entry);
    if (parsed === undefined) throw malformed('set permissions');
    return parsed;
  });
  nodes.setPermissions(path ?? '', permissions);
  return OK;
}

// --- Watches -----------------------------------------------------------------------------------------------

function watch({ store, domain, subscriber }: Session, payload: Uint8Array): Reply {
  const [path, token, depth, ...more] = stringsIn(payload);
  const depthKnown = (domain.features & xs.XENSTORE_SERVER_FEATURE_WATCHDEPTH) !== 0;
  if (path === undefined || token === undefined || more.length > 0 || (depth !== undefined && !depthKnown))
    throw malformed('watch');
  store.watches.add(subscriber, path, token, depth === undefined ? undefined : decimal(depth, 0x7fff_ffff));
  return OK;
}

function unwatch({ store, subscriber }: Session, payload: Uint8Array): Reply {
  const [path, token] = stringsIn(payload);
  if (path === undefined || token === undefined) throw malformed('unwatch');
  store.watches.remove(subscriber, path, token);
  return OK;
}

function resetWatches({ store, subscriber, transactions }: Session): Reply {
  store.watches.removeAll(subscriber);
  transactions.endAll();
  return OK;
}

// --- Transactions ------------------------------------------------------------------------------------------

function startTransaction({ transactions }: Session, _: Uint8Array, __: NodeAccess, inside: number): Reply {
  if (inside !== 0) throw new XenstoreError('EBUSY', 'start', 'a transaction in a transaction');
  return `${transactions.start()}\0`;
}

function endTransaction(session: Session, payload: Uint8Array, _: NodeAccess, transactionId: number): Reply {
  const verdict = only(payload);
  if (verdict !== 'T' && verdict !== 'F') throw malformed('end of transaction');
  session.transactions.end(transactionId, verdict === 'T');
  return OK;
}

// --- Domains -----------------------------------------------------------------------------------------------

/**
 * The frame and the event channel are only checked: whoever embeds the store maps the ring page and serves
 * it (ring.ts). A domain introduced again starts with a clean connection.
 */
function introduce({ store }: Session, payload: Uint8Array): Reply {
  const [id, frame, port] = stringsIn(payload);
  const number = guestNumber(id);
  if (!/^-?\d{1,20}$/.test(frame ?? '') || decimal(port ?? '', 0xffff_ffff) === 0)
    throw malformed('introduce');
  if (store.domains.find(number)?.introduced)
    for (const client of store.domains.obtain(number).clients) client.reset();
  store.introduce(number);
  return OK;
}

function release({ store }: Session, payload: Uint8Array): Reply {
  store.release(introducedGuest(store, payload));
  return OK;
}

function isIntroduced({ store }: Session, payload: Uint8Array): Reply {
  const number = domainNumber(only(payload));
  return number === DOMID_SELF || store.domains.find(number)?.introduced ? 'T\0' : 'F\0';
}

function resume({ store }: Session, payload: Uint8Array): Reply {
  introducedGuest(store, payload).shutdown = false;
  return OK;
}

function setTarget({ store }: Session, payload: Uint8Array): Reply {
  const [domain, target] = exactly(2, payload).map((each) => store.domains.find(domainNumber(each)));
  if (!domain?.introduced || !target?.introduced) throw new XenstoreError('ENOENT', 'set', 'target');
  domain.target = target;
  return OK;
}

// --- Features and quotas -----------------------------------------------------------------------------------

function getFeature({ store, domain }: Session, payload: Uint8Array): Reply {
  const [id, ...more] = stringsIn(payload);
  if (id === undefined) return `${domain.features}\0`;
  if (!domain.privileged) throw new XenstoreError('EACCES', 'get features of', id);
  if (more.length > 0) throw malformed('get feature');
  return `${store.domains.obtain(ordinaryNumber(id)).features}\0`;
}

/** Only before the domain is introduced: its ring page has the features from then on, and keeps them. */
function setFeature({ store }: Session, payload: Uint8Array): Reply {
  const [id, features] = exactly(2, payload);
  const domain = store.domains.obtain(ordinaryNumber(id!));
  if (domain.introduced) throw new XenstoreError('EBUSY', 'set features of', id!);
  const bits = decimal(features!, 0xffff_ffff);
  if ((bits & ~SERVER_FEATURES) !== 0) throw malformed('set feature');
  domain.features = bits;
  return OK;
}

function getQuota({ store }: Session, payload: Uint8Array): Reply {
  const strings = stringsIn(payload);
  if (strings.length === 0) return `${Object.keys(store.domains.limits).join(' ')}\0`;
  if (strings.length > 2) throw malformed('get quota');
  const name = quotaName(strings[strings.length - 1]!);
  const limits = strings.length === 1 ? store.domains.limits : limitsOf(store, strings[0]!);
  return `${limits[name]}\0`;
}

/** Without a domain: what domains that are not known yet will start with. */
function setQuota({ store }: Session, payload: Uint8Array): Reply {
  const strings = stringsIn(payload);
  if (strings.length < 2 || strings.length > 3) throw malformed('set quota');
  const value = decimal(strings[strings.length - 1]!, 0x7fff_ffff);
  const name = quotaName(strings[strings.length - 2]!);
  const limits = strings.length === 2 ? store.domains.limits : limitsOf(store, strings[0]!);
  limits[name] = value;
  return OK;
}

function limitsOf(store: Store, id: string) {
  return store.domains.obtain(ordinaryNumber(id)).limits;
}

// --- Arguments ---------------------------------------------------------------------------------------------

function malformed(operation: string): XenstoreError {
  return new XenstoreError('EINVAL', operation, '(malformed arguments)');
}

/** The payload as exactly one string. */
function only(payload: Uint8Array): string {
  const end = payload.length - 1;
  if (end < 0 || payload.indexOf(0) !== end) throw malformed('request');
  return textOf(payload.subarray(0, end));
}

function exactly(count: number, payload: Uint8Array): string[] {
  const strings = stringsIn(payload);
  if (strings.length !== count) throw malformed('request');
  return strings;
}

/** A decimal number from 0 to `max`. */
function decimal(text: string, max: number): number {
  const value = Number(text);
  if (!/^\d{1,10}$/.test(text) || value > max) throw malformed('request');
  return value;
}

function domainNumber(text: string): number {
  return decimal(text, 0xffff);
}

function ordinaryNumber(text: string): number {
  const number = domainNumber(text);
  if (!isOrdinaryDomain(number)) throw malformed('request');
  return number;
}

function guestNumber(text: string | undefined): number {
  const number = ordinaryNumber(text ?? '');
  if (number === 0) throw malformed('request');
  return number;
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
