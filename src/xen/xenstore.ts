// Port: the store through which a toolstack and two domains tell each other what exists and how to
// reach it (Xen docs/misc/xenstore.txt). Control path only, so it is comfortable and asynchronous.

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

/** What one domain may ask of the store. Paths are absolute, or relative to the domain's own home. */
export interface Xenstore {
  /** The value of a node. Rejects with ENOENT when there is none, EACCES when it may not be read. */
  read(path: string): Promise<string>;
  /** Sets a node, making its parents as needed. */
  write(path: string, value: string): Promise<void>;
  /** Names of a node's children, sorted. */
  directory(path: string): Promise<string[]>;
  /** Removes a node and all below it. */
  remove(path: string): Promise<void>;
  /**
   * Calls `changed` once at once and then whenever a node at or below `path` is written or removed,
   * with the path that changed.
   */
  watch(path: string, changed: (path: string) => void): Promise<Unwatch>;
}
