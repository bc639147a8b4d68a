// Port: the store through which a toolstack and two domains tell each other what exists and how to
// reach it (Xen docs/misc/xenstore.txt). Control path only, so it is comfortable and asynchronous.

import type { XsPermissionLetter } from '../abi/xenstore.ts';

/** A refused operation, by the errno name that the wire protocol carries ("ENOENT", "EACCES", …). */
export class XenstoreError extends Error {
  readonly code: string;

  constructor(code: string, operation: string, path: string) {
    super(`xenstore: ${operation} ${path}: ${code}`);
    this.name = 'XenstoreError';
    this.code = code;
  }
}

/** Stops a watch. */
export type Unwatch = () => Promise<void>;

/** One entry of a node's permission list. The first entry's domain owns the node, whatever its access. */
export interface NodePermission {
  /** A domain's id, or XS_PERMISSION_ANY_DOMAIN. */
  readonly domain: number;
  /** In the first entry: what every domain without an entry of its own may do. */
  readonly access: XsPermissionLetter;
}

/**
 * The nodes as one domain may see and change them, each operation by itself or inside a transaction.
 * Paths are absolute, or relative to the domain's own home. Values are text, UTF-8 in the store.
 * A refused operation changes nothing and rejects with a XenstoreError: EINVAL for a malformed path, ENOENT
 * for a missing node, EACCES for a forbidden one, ENOSPC at a quota, E2BIG for what fits no message.
 */
export interface XenstoreNodes {
  /** The value of a node. Rejects with ENOENT when there is none, EACCES when it may not be read. */
  read(path: string): Promise<string>;
  /** Sets a node, making its parents as needed. */
  write(path: string, value: string): Promise<void>;
  /** Names of a node's children, sorted. */
  directory(path: string): Promise<string[]>;
  /** Removes a node and all below it. No error if it is not there, as long as its parent is. */
  remove(path: string): Promise<void>;
  /** The node's permission list. */
  permissions(path: string): Promise<NodePermission[]>;
  /** Replaces the permission list; only the owner may, and only domain 0 may give a node another owner. */
  setPermissions(path: string, permissions: readonly NodePermission[]): Promise<void>;
}

/** What one domain may ask of the store. */
export interface Xenstore extends XenstoreNodes {
  /**
   * Calls `changed` once at once and then whenever a node at or below `path` is written or removed,
   * with the path that changed; relative if `path` is relative. Events that say the same are merged.
   */
  watch(path: string, changed: (path: string) => void): Promise<Unwatch>;
  /**
   * Runs `body` on a view that no one else changes, and makes all its changes visible at once. If others
   * changed meanwhile what `body` had read or written, it is run again from the start; rejects with EAGAIN
   * when that happens too often, and with the body's own error, having changed nothing.
   */
  transaction<T>(body: (nodes: XenstoreNodes) => Promise<T>): Promise<T>;
}
