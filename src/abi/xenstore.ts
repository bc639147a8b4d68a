// Xenstore as bytes: the message header, the ring page that a guest shares with the store, and every
// number and name that goes over them (public/io/xs_wire.h, docs/misc/xenstore-ring.txt).

import { struct } from './struct.ts';

/** What every message starts with; `len` bytes of payload follow. */
export const xsdSockmsg = struct('xsd_sockmsg', { type: 'u32', req_id: 'u32', tx_id: 'u32', len: 'u32' });

/** Bytes of each of the two queues in the ring page. */
export const XENSTORE_RING_SIZE = 1024;

/** The page shared by a guest and the store: two byte queues, their free-running indices, and signals. */
export const xenstoreDomainInterface = struct('xenstore_domain_interface', {
  req: { bytes: XENSTORE_RING_SIZE },
  rsp: { bytes: XENSTORE_RING_SIZE },
  req_cons: 'u32',
  req_prod: 'u32',
  rsp_cons: 'u32',
  rsp_prod: 'u32',
  server_features: 'u32',
  connection: 'u32',
  error: 'u32',
  evtchn_port: 'u32',
});

/** Longest payload in either direction; a client that exceeds it loses its connection. */
export const XENSTORE_PAYLOAD_MAX = 4096;
/** Longest path that starts with a slash. */
export const XENSTORE_ABS_PATH_MAX = 3072;
/** Longest path relative to the client's home. */
export const XENSTORE_REL_PATH_MAX = 2048;

export const XS_CONTROL = 0;
export const XS_DIRECTORY = 1;
export const XS_READ = 2;
export const XS_GET_PERMS = 3;
export const XS_WATCH = 4;
export const XS_UNWATCH = 5;
export const XS_TRANSACTION_START = 6;
export const XS_TRANSACTION_END = 7;
export const XS_INTRODUCE = 8;
export const XS_RELEASE = 9;
export const XS_GET_DOMAIN_PATH = 10;
export const XS_WRITE = 11;
export const XS_MKDIR = 12;
export const XS_RM = 13;
export const XS_SET_PERMS = 14;
export const XS_WATCH_EVENT = 15;
export const XS_ERROR = 16;
export const XS_IS_DOMAIN_INTRODUCED = 17;
export const XS_RESUME = 18;
export const XS_SET_TARGET = 19;
export const XS_RESET_WATCHES = 21;
export const XS_DIRECTORY_PART = 22;
export const XS_GET_FEATURE = 23;
export const XS_SET_FEATURE = 24;
export const XS_GET_QUOTA = 25;
export const XS_SET_QUOTA = 26;
/** A type that will never be supported. */
export const XS_INVALID = 0xffff;

/** The errors that a reply of type XS_ERROR may carry, in the header's order. */
export const XSD_ERRORS = [
  'EINVAL',
  'EACCES',
  'EEXIST',
  'EISDIR',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'EIO',
  'ENOTEMPTY',
  'ENOSYS',
  'EROFS',
  'EBUSY',
  'EAGAIN',
  'EISCONN',
  'E2BIG',
  'EPERM',
] as const;

/** What a node's permission list grants one domain: nothing, reading, writing, or both. */
export const XS_PERMISSION_LETTERS = ['n', 'r', 'w', 'b'] as const;
export type XsPermissionLetter = (typeof XS_PERMISSION_LETTERS)[number];
/** In a permission list, every domain without an earlier entry (DOMID_ANY of public/xen.h). */
export const XS_PERMISSION_ANY_DOMAIN = 0x7ff5;

/** Bits of `server_features`. */
export const XENSTORE_SERVER_FEATURE_RECONNECTION = 1;
export const XENSTORE_SERVER_FEATURE_ERROR = 2;
export const XENSTORE_SERVER_FEATURE_WATCHDEPTH = 4;
export const XENSTORE_SERVER_FEATURE_DOMID_ANY = 8;

/** Values of `connection`: only the guest sets RECONNECT, only the store takes it back. */
export const XENSTORE_CONNECTED = 0;
export const XENSTORE_RECONNECT = 1;

/** Values of `error`: why the store has stopped serving the ring. */
export const XENSTORE_ERROR_NONE = 0;
export const XENSTORE_ERROR_COMM = 1;
export const XENSTORE_ERROR_RINGIDX = 2;
export const XENSTORE_ERROR_PROTO = 3;

/** States of a paravirtual device's two ends, decimal under their `state` keys (public/io/xenbus.h). */
export const XenbusStateUnknown = 0;
export const XenbusStateInitialising = 1;
export const XenbusStateInitWait = 2;
export const XenbusStateInitialised = 3;
export const XenbusStateConnected = 4;
export const XenbusStateClosing = 5;
export const XenbusStateClosed = 6;
export const XenbusStateReconfiguring = 7;
export const XenbusStateReconfigured = 8;
