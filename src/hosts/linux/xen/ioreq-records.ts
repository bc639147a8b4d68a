// Port: where the numbers of ioreq servers are kept while the program that made them does not run.
//
// A server belongs to the domain and not to the process: when that is killed, the server stays in Xen with all its
// ranges, and a guest that touches a register waits. A successor that knows the number goes on where it ended.

import type { DomainId } from '../../../xen/ids.ts';

/** The numbers that are kept. */
export interface IoreqServerRecords {
  /** The server that was kept for a guest, if any. Asked before one is made. */
  load(guest: DomainId): number | undefined;
  /** Keeps the number of a server that was made; undefined when it was destroyed. */
  save(guest: DomainId, id: number | undefined): void;
}
