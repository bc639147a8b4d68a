// The bytes of frames that nobody shares with a domain which reaches them without any grant: what is foreign
// in such access. Used by exposure-ledger.ts. The cost grows with what is live, not with the frames reached.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { ForeignBytes } from './exposure-figures.ts';
import type { DomainState, Frame, Reach } from './exposure-state.ts';

/** Adds the bytes that `reach` lets its mapper have unasked to `found`. Returns how many they are. */
export function addUnshared(domain: DomainState, reach: Reach, found: ForeignBytes): number {
  const last = reach.frame + reach.count;
  const shared = Array.from(domain.frames.values())
    .filter((frame) => frame.number >= reach.frame && frame.number < last && isShared(frame, reach.mapper))
    .sort((a, b) => a.number - b.number);
  let size = 0;
  let next = reach.frame;
  for (const frame of shared) {
    if (frame.number > next) found.addFrames(next, frame.number);
    size += (frame.number - next) * XEN_PAGE_SIZE + addGaps(frame, reach.mapper, found);
    next = frame.number + 1;
  }
  if (last > next) found.addFrames(next, last);
  return size + (last - next) * XEN_PAGE_SIZE;
}

function isShared(frame: Frame, mapper: number): boolean {
  return frame.pieces.some(({ grant }) => grant.peer === mapper);
}

function addGaps(frame: Frame, mapper: number, found: ForeignBytes): number {
  let size = 0;
  let reached = 0;
  const gapUntil = (start: number) => {
    if (start <= reached) return;
    found.add(frame.number, reached, start, false);
    size += start - reached;
  };
  for (const { grant, start, end } of frame.pieces) {
    if (grant.peer !== mapper) continue;
    gapUntil(start);
    reached = Math.max(reached, end);
  }
  gapUntil(XEN_PAGE_SIZE);
  return size;
}
