// Exposure mode `copy`: exactly the caller's bytes are granted, in place, for as long as the buffer is mapped, so that
// a backend can copy them (GNTTABOP_copy) and not map the page. Foreign bytes exposed: none. Needs entries of version 2.
// After grant-dma.ts, before grants.ts; the backend's side is memory/grant-copy-memory.ts.

import { DirectSharing } from './direct-sharing.ts';
import type { Grants } from './grants.ts';

/** Grants of parts of the caller's pages. All else is as with grants of whole pages. */
export class CopySharing extends DirectSharing {
  protected override grant(grants: Grants, address: number, size: number, readonly: boolean): number {
    return grants.shareBytes(address, size, readonly);
  }
}
