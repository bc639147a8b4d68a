// Port: the owner's side of a grant table. A frontend's kernel writes entries into frames of its own;
// nothing here is a hypercall but growing the table. Used by dma/, implemented in hosts/.

import type { DomainId, FrameNumber, GrantRef } from './ids.ts';

/** A domain's own grant table. References are not allocated here but in dma/references.ts. */
export interface GrantTable {
  /** Entries that exist now, reserved ones included. */
  readonly entries: number;
  /** Entries that may exist at most (max_grant_frames). */
  readonly maxEntries: number;
  /** Whether parts of pages can be granted: entries of version 2 can say so, those of version 1 cannot. */
  readonly grantsParts: boolean;
  /**
   * Makes the table at least `entries` long. Returns false, and changes nothing, beyond the limit or when
   * the platform has no memory for it.
   */
  grow(entries: number): boolean;
  /**
   * Grants `count` frames from `frame` to `peer` through the references from `first`, which must be free.
   * Publishes domain and frame before the flags, so that a peer never sees half an entry.
   */
  grant(first: GrantRef, count: number, peer: DomainId, frame: FrameNumber, readonly: boolean): void;
  /**
   * Grants `length` bytes from byte `offset` of one frame through a free reference: the peer can copy exactly
   * these, and cannot map the page (GTF_sub_page). Only where `grantsParts`.
   */
  grantPart(
    ref: GrantRef,
    peer: DomainId,
    frame: FrameNumber,
    offset: number,
    length: number,
    readonly: boolean,
  ): void;
  /**
   * Ends the peer's access through `count` references from `first`, each by one compare-and-swap (never
   * look, then act: XSA-396). Entries that the peer still maps are left as they are.
   *
   * @returns how many of them are still mapped; 0 when access has ended everywhere
   */
  revoke(first: GrantRef, count: number): number;
  /** Whether the entry is free: not granted, or revoked. */
  isFree(ref: GrantRef): boolean;
}
