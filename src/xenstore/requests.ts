// Every request of the wire protocol by its type, with who may ask it and where (docs/misc/xenstore.txt).
// What a connection is and what it keeps is in connection.ts.

import * as xs from '../abi/xenstore.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import { control } from './control.ts';
import * as domains from './domain-requests.ts';
import * as nodes from './node-requests.ts';
import { homeOf } from './paths.ts';
import { domainNumber, type Handler, only, type Reply, type Session } from './request.ts';
import { stringsIn } from './wire.ts';

interface RequestKind {
  readonly handle: Handler;
  /** Only domain 0 may ask. */
  readonly privileged?: true;
  /** The transaction id in the header means nothing. */
  readonly outside?: true;
}

const kinds = new Map<number, RequestKind>([
  [xs.XS_CONTROL, { handle: ({ store }, payload) => control(store, stringsIn(payload)), privileged: true }],
  [xs.XS_DIRECTORY, { handle: nodes.directory }],
  [xs.XS_READ, { handle: (_, payload, view) => view.read(only(payload)).value }],
  [xs.XS_GET_PERMS, { handle: nodes.getPermissions }],
  [xs.XS_WATCH, { handle: nodes.watch, outside: true }],
  [xs.XS_UNWATCH, { handle: nodes.unwatch, outside: true }],
  [xs.XS_TRANSACTION_START, { handle: nodes.startTransaction }],
  [xs.XS_TRANSACTION_END, { handle: nodes.endTransaction }],
  [xs.XS_INTRODUCE, { handle: domains.introduce, privileged: true }],
  [xs.XS_RELEASE, { handle: domains.release, privileged: true }],
  [xs.XS_GET_DOMAIN_PATH, { handle: (_, payload) => `${homeOf(domainNumber(only(payload)))}\0` }],
  [xs.XS_WRITE, { handle: nodes.write }],
  [xs.XS_MKDIR, { handle: nodes.makeDirectory }],
  [xs.XS_RM, { handle: nodes.remove }],
  [xs.XS_SET_PERMS, { handle: nodes.setPermissions }],
  [xs.XS_IS_DOMAIN_INTRODUCED, { handle: domains.isIntroduced, privileged: true }],
  [xs.XS_RESUME, { handle: domains.resume, privileged: true }],
  [xs.XS_SET_TARGET, { handle: domains.setTarget, privileged: true }],
  [xs.XS_RESET_WATCHES, { handle: nodes.resetWatches }],
  [xs.XS_DIRECTORY_PART, { handle: nodes.directoryPart }],
  [xs.XS_GET_FEATURE, { handle: domains.getFeature }],
  [xs.XS_SET_FEATURE, { handle: domains.setFeature, privileged: true }],
  [xs.XS_GET_QUOTA, { handle: domains.getQuota, privileged: true }],
  [xs.XS_SET_QUOTA, { handle: domains.setQuota, privileged: true }],
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
