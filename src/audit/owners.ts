// Whose the foreign bytes of a granted page are: another device's, in its buffers or in its private pages, or
// nobody's that the trace knows, which is the kernel. Used by findings.ts.

import type { Grant } from './exposure-state.ts';

/** Bytes of one owner. */
export interface OwnerBytes {
  /** `buffer`: a buffer that another device shares; `private`: another device's private page; `kernel`: the rest. */
  readonly kind: 'buffer' | 'private' | 'kernel';
  /** The other device; undefined for the kernel. */
  readonly device?: number;
  readonly bytes: number;
}

/** Whose the bytes `start` to `end` (exclusive) of the page are, none of which the grant's device needs. */
export function ownersOf(grant: Grant, start: number, end: number): OwnerBytes[] {
  const { frame, device } = grant;
  const owners: OwnerBytes[] = [];
  let reached = start;
  const restUntil = (until: number) => {
    if (until <= reached) return;
    const other = frame.privateTo;
    const bytes = until - reached;
    if (other === undefined || other === device) owners.push({ kind: 'kernel', bytes });
    else owners.push({ kind: 'private', device: other.device, bytes });
    reached = until;
  };
  for (const piece of frame.pieces) {
    if (piece.need.device === device || piece.end <= reached) continue;
    if (reached >= end || piece.start >= end) break;
    restUntil(piece.start);
    const until = Math.min(piece.end, end);
    owners.push({ kind: 'buffer', device: piece.need.device.device, bytes: until - reached });
    reached = until;
  }
  restUntil(end);
  return owners;
}

/** Bytes by owner, summed. */
export class OwnerSums {
  readonly #sums = new Map<string, OwnerBytes>();

  add(owner: OwnerBytes): void {
    const key = `${owner.kind}/${owner.device}`;
    const bytes = (this.#sums.get(key)?.bytes ?? 0) + owner.bytes;
    this.#sums.set(key, { ...owner, bytes });
  }

  /** The owners, the one of most bytes first. */
  list(): OwnerBytes[] {
    return [...this.#sums.values()].sort((a, b) => b.bytes - a.bytes);
  }
}
