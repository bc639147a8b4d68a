// Requests about nodes, watches and transactions (docs/misc/xenstore.txt). Before requests.ts.

import * as xs from '../abi/xenstore.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import { describe, parsePermission } from './permissions.ts';
import { decimal, exactly, malformed, OK, only, type Reply, type Session } from './request.ts';
import { stringsIn, terminated, textOf } from './wire.ts';

/** DIRECTORY: the names of the children. */
export function directory(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  return terminated(nodes.read(only(payload)).children.all());
}

/** DIRECTORY_PART: as many whole names as fit, from an offset into the whole list; an empty name ends the last part. */
export function directoryPart(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const [path, offset] = exactly(2, payload);
  const node = nodes.read(path!);
  const list = terminated(node.children.all());
  const from = Math.min(decimal(offset!, 0xffff_ffff), list.length);
  const generation = `${node.generation}\0`;
  const room = xs.XENSTORE_PAYLOAD_MAX - generation.length - 1;
  if (list.length - from <= room) return `${generation}${list.slice(from)}\0`;
  return generation + list.slice(from, list.lastIndexOf('\0', from + room - 1) + 1);
}

/** WRITE: everything after the path is the value. */
export function write(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const end = payload.indexOf(0);
  if (end === -1) throw malformed('write');
  nodes.write(textOf(payload.subarray(0, end)), payload.slice(end + 1));
  return OK;
}

/** MKDIR. */
export function makeDirectory(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  nodes.makeDirectory(only(payload));
  return OK;
}

/** RM. */
export function remove(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  nodes.remove(only(payload));
  return OK;
}

/** GET_PERMS. */
export function getPermissions(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const { permissions } = nodes.permissions(only(payload));
  return terminated(describe(permissions).map(({ domain, access }) => `${access}${domain}`));
}

/** SET_PERMS. */
export function setPermissions(_: Session, payload: Uint8Array, nodes: NodeAccess): Reply {
  const [path, ...entries] = stringsIn(payload);
  const permissions = entries.map((entry) => {
    const parsed = parsePermission(entry);
    if (parsed === undefined) throw malformed('set permissions');
    return parsed;
  });
  nodes.setPermissions(path ?? '', permissions);
  return OK;
}

/** WATCH, with a depth if the domain is offered that. */
export function watch({ store, domain, subscriber }: Session, payload: Uint8Array): Reply {
  const [path, token, depth, ...more] = stringsIn(payload);
  const depthKnown = (domain.features & xs.XENSTORE_SERVER_FEATURE_WATCHDEPTH) !== 0;
  if (path === undefined || token === undefined || more.length > 0 || (depth !== undefined && !depthKnown))
    throw malformed('watch');
  store.watches.add(subscriber, path, token, depth === undefined ? undefined : decimal(depth, 0x7fff_ffff));
  return OK;
}

/** UNWATCH. */
export function unwatch({ store, subscriber }: Session, payload: Uint8Array): Reply {
  const [path, token] = stringsIn(payload);
  if (path === undefined || token === undefined) throw malformed('unwatch');
  store.watches.remove(subscriber, path, token);
  return OK;
}

/** RESET_WATCHES: the transactions too. */
export function resetWatches({ store, subscriber, transactions }: Session): Reply {
  store.watches.removeAll(subscriber);
  transactions.endAll();
  return OK;
}

/** TRANSACTION_START. */
export function startTransaction(
  { transactions }: Session,
  _: Uint8Array,
  __: NodeAccess,
  inside: number,
): Reply {
  if (inside !== 0) throw new XenstoreError('EBUSY', 'start', 'a transaction in a transaction');
  return `${transactions.start()}\0`;
}

/** TRANSACTION_END. */
export function endTransaction(
  session: Session,
  payload: Uint8Array,
  _: NodeAccess,
  transactionId: number,
): Reply {
  const verdict = only(payload);
  if (verdict !== 'T' && verdict !== 'F') throw malformed('end of transaction');
  session.transactions.end(transactionId, verdict === 'T');
  return OK;
}
