// Port within dma/: what the bounce pool needs of whoever makes its pages reachable for a backend. Implemented by
// grants.ts (each page is granted when it is used) and shared-window.ts (all of them are shared, always).

import type { GrantTable } from '../xen/grant-table.ts';
import type { GrantingDomain } from './granting-domain.ts';

/** Runs of pages that a backend can reach, named by consecutive references. */
export interface PageSharing {
  /** Whose pages they are. `memory` gives the pages; copies may reach beyond those. */
  readonly domain: Pick<GrantingDomain, 'id' | 'memory' | 'pools' | 'tracer'> & {
    readonly table: Pick<GrantTable, 'maxEntries'>;
  };
  /**
   * Makes `count` pages from `frame` reachable.
   *
   * @returns the first reference, or -1 when that cannot be done now
   */
  share(frame: number, count: number, readonly: boolean): number;
  /** Ends that. Returns false when the backend still reaches some of them: they are in quarantine. */
  unshare(first: number, count: number): boolean;
}
