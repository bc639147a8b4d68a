// The rules for frames that a domain reaches without any grant: no device's, and foreign but for the bytes that
// somebody shares with that domain. Used by exposure-ledger.ts. The cost grows with what is live, not with the
// frames reached.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { ReachEndEvent, ReachEvent } from './events.ts';
import type { ForeignBytes, Tally } from './exposure-figures.ts';
import { type DomainState, type Frame, Reach } from './exposure-state.ts';

/** Counts access that begins to frames of `domain`. */
export function beginReach(event: ReachEvent, domain: DomainState, tally: Tally, now: number): Reach {
  const reach = new Reach(event, now);
  reach.foreign = addUnshared(domain, reach, domain.foreign);
  domain.reaches.push(reach);
  tally.pagesReached += reach.count;
  tally.bytesExposed += reach.bytes;
  tally.foreignReadableBytes += reach.foreign;
  tally.foreignWritableBytes += reach.foreign;
  return reach;
}

/** Counts access that ends. Returns undefined when there is no such access. */
export function endReach(
  event: ReachEndEvent,
  { reaches }: DomainState,
  tally: Tally,
  now: number,
): Reach | undefined {
  const at = reaches.findIndex(
    ({ mapper, frame, count }) => mapper === event.mapper && frame === event.frame && count === event.count,
  );
  if (at < 0) return undefined;
  const [reach] = reaches.splice(at, 1);
  reach.addTime(tally, now);
  return reach;
}

/** Adds the bytes that `reach` lets its mapper have unasked to `found`. Returns how many they are. */
function addUnshared(domain: DomainState, reach: Reach, found: ForeignBytes | undefined): number {
  const last = reach.frame + reach.count;
  const shared = Array.from(domain.frames.values())
    .filter((frame) => frame.number >= reach.frame && frame.number < last && isShared(frame, reach.mapper))
    .sort((a, b) => a.number - b.number);
  let size = 0;
  let next = reach.frame;
  for (const frame of shared) {
    if (frame.number > next) found?.addFrames(next, frame.number);
    size += (frame.number - next) * XEN_PAGE_SIZE + addGaps(frame, reach.mapper, found);
    next = frame.number + 1;
  }
  if (last > next) found?.addFrames(next, last);
  return size + (last - next) * XEN_PAGE_SIZE;
}

function isShared(frame: Frame, mapper: number): boolean {
  return frame.pieces.some(({ grant }) => grant.peer === mapper);
}

function addGaps(frame: Frame, mapper: number, found: ForeignBytes | undefined): number {
  let size = 0;
  let reached = 0;
  const gapUntil = (start: number) => {
    if (start <= reached) return;
    found?.add(frame.number, reached, start, false);
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
