// What the accounting says of one device or of a whole run, and the running sums behind it.
// Filled by exposure.ts, shown by report.ts.

import { FrameBytes } from './byte-ranges.ts';

/** How much memory was asked for, given, reachable without cause, and for how long. */
export interface ExposureFigures {
  /** Pages granted, each time one is, whole or in part. */
  readonly pagesGranted: number;
  /** Sum of the sizes of all needs: what the drivers asked to share. */
  readonly bytesNeeded: number;
  /**
   * Bytes granted: 4096 for every page, less where a grant is of a part of one; and 4096 for every page reached
   * without a grant. A grant that serves many requests counts once: to compare modes that keep pages granted
   * with others, look at exposedByteSeconds.
   */
  readonly bytesExposed: number;
  /**
   * Granted bytes that belonged neither to a live need of the same device nor to a page private to it, taken
   * when the first need opened the grant, summed over the grants; and bytes reached without a grant that
   * belonged to no need shared with the same domain when that began.
   */
  readonly foreignReadableBytes: number;
  /** The same for grants that let the backend write. */
  readonly foreignWritableBytes: number;
  /**
   * Longest time that a page stayed granted or mapped while no need used it any more: the last one had
   * ended, or the request that it served had been reported complete. 0 when every revoke came first.
   */
  readonly maxStaleNanoseconds: number;
  /** Grants that are not over: granted, quarantined or mapped now. Leaked, if the device is closed. */
  readonly leakedGrants: number;
  /** The longest stale time of a page, of which only the part counts in which the device had a request to serve. */
  readonly maxStaleAtWorkNanoseconds: number;
  /** How long the latter may be, as the device has declared: 0 unless its mode keeps pages granted. */
  readonly staleLimitNanoseconds: number;
  /** The foreign bytes as bytes of guest memory, each counted once however often it was exposed. */
  readonly distinctForeignReadableBytes: number;
  readonly distinctForeignWritableBytes: number;
  /** Needs that the device may only read, in a page granted for writing. */
  readonly overPermission: number;
  /** Exposed bytes times the seconds they were, up to the last event. */
  readonly exposedByteSeconds: number;
  /** Foreign bytes (readable) times the seconds that their page was exposed, up to the last event. */
  readonly foreignByteSeconds: number;
  /** Needed bytes times the seconds they were, up to the last event. */
  readonly neededByteSeconds: number;
  /** Pages that a backend could reach without any grant, each time it could. */
  readonly pagesReached: number;
  /** Pages mapped by a backend, each time one is. */
  readonly pagesMapped: number;
  readonly mapsRefused: number;
  /** Bytes that backends reported to have read. */
  readonly bytesRead: number;
  /** Bytes that backends reported to have written. */
  readonly bytesWritten: number;
  /** Reads and writes of a backend that reached a byte outside every live need of the grant's device. */
  readonly touchesOutsideNeed: number;
  /** Grants whose revoke failed because the backend held on to the page. */
  readonly quarantinedGrants: number;
  /** Requests completed. */
  readonly requests: number;
  /** Requests completed with a status other than 0. */
  readonly requestsFailed: number;
  /** Requests not completed yet. */
  readonly requestsOpen: number;
  readonly maxLatencyNanoseconds: number;
  readonly meanLatencyNanoseconds: number;
}

/** The running sums of one device. Times are nanoseconds. */
export class Tally {
  pagesGranted = 0;
  pagesReached = 0;
  bytesNeeded = 0;
  bytesExposed = 0;
  foreignReadableBytes = 0;
  foreignWritableBytes = 0;
  overPermission = 0;
  exposedByteTime = 0;
  foreignByteTime = 0;
  neededByteTime = 0;
  pagesMapped = 0;
  mapsRefused = 0;
  bytesRead = 0;
  bytesWritten = 0;
  touchesOutsideNeed = 0;
  liveGrants = 0;
  quarantinedGrants = 0;
  requests = 0;
  requestsFailed = 0;
  requestsOpen = 0;
  totalLatency = 0;
  maxLatency = 0;
  maxStale = 0;
  maxStaleAtWork = 0;
  staleLimit = 0;

  /** Adds another's sums to these. */
  add(other: Tally): void {
    this.pagesGranted += other.pagesGranted;
    this.pagesReached += other.pagesReached;
    this.bytesNeeded += other.bytesNeeded;
    this.bytesExposed += other.bytesExposed;
    this.foreignReadableBytes += other.foreignReadableBytes;
    this.foreignWritableBytes += other.foreignWritableBytes;
    this.overPermission += other.overPermission;
    this.exposedByteTime += other.exposedByteTime;
    this.foreignByteTime += other.foreignByteTime;
    this.neededByteTime += other.neededByteTime;
    this.pagesMapped += other.pagesMapped;
    this.mapsRefused += other.mapsRefused;
    this.bytesRead += other.bytesRead;
    this.bytesWritten += other.bytesWritten;
    this.touchesOutsideNeed += other.touchesOutsideNeed;
    this.liveGrants += other.liveGrants;
    this.quarantinedGrants += other.quarantinedGrants;
    this.requests += other.requests;
    this.requestsFailed += other.requestsFailed;
    this.requestsOpen += other.requestsOpen;
    this.totalLatency += other.totalLatency;
    this.maxLatency = Math.max(this.maxLatency, other.maxLatency);
    this.maxStale = Math.max(this.maxStale, other.maxStale);
    this.maxStaleAtWork = Math.max(this.maxStaleAtWork, other.maxStaleAtWork);
    this.staleLimit = Math.max(this.staleLimit, other.staleLimit);
  }
}

/** Foreign bytes of guest memory, each counted once. */
export class ForeignBytes {
  readonly readable = new FrameBytes();
  readonly writable = new FrameBytes();

  /** Adds bytes `start` to `end` (exclusive) of a frame that a backend could read, and write unless `readonly`. */
  add(frame: number, start: number, end: number, readonly: boolean): void {
    this.readable.add(frame, start, end);
    if (!readonly) this.writable.add(frame, start, end);
  }

  /** Adds all bytes of the frames from `first` up to and without `end`, which a backend could write as well. */
  addFrames(first: number, end: number): void {
    this.readable.addFrames(first, end);
    this.writable.addFrames(first, end);
  }
}

const NANOSECONDS = 1e9;

/** The figures of running sums; `foreign` lists the sets whose distinct bytes belong to them. */
export function figuresOf(tally: Tally, foreign: readonly ForeignBytes[]): ExposureFigures {
  return {
    pagesGranted: tally.pagesGranted,
    bytesNeeded: tally.bytesNeeded,
    bytesExposed: tally.bytesExposed,
    foreignReadableBytes: tally.foreignReadableBytes,
    foreignWritableBytes: tally.foreignWritableBytes,
    maxStaleNanoseconds: tally.maxStale,
    leakedGrants: tally.liveGrants,
    maxStaleAtWorkNanoseconds: tally.maxStaleAtWork,
    staleLimitNanoseconds: tally.staleLimit,
    distinctForeignReadableBytes: foreign.reduce((sum, { readable }) => sum + readable.size, 0),
    distinctForeignWritableBytes: foreign.reduce((sum, { writable }) => sum + writable.size, 0),
    overPermission: tally.overPermission,
    exposedByteSeconds: tally.exposedByteTime / NANOSECONDS,
    foreignByteSeconds: tally.foreignByteTime / NANOSECONDS,
    neededByteSeconds: tally.neededByteTime / NANOSECONDS,
    pagesReached: tally.pagesReached,
    pagesMapped: tally.pagesMapped,
    mapsRefused: tally.mapsRefused,
    bytesRead: tally.bytesRead,
    bytesWritten: tally.bytesWritten,
    touchesOutsideNeed: tally.touchesOutsideNeed,
    quarantinedGrants: tally.quarantinedGrants,
    requests: tally.requests,
    requestsFailed: tally.requestsFailed,
    requestsOpen: tally.requestsOpen,
    maxLatencyNanoseconds: tally.maxLatency,
    meanLatencyNanoseconds: tally.requests > 0 ? tally.totalLatency / tally.requests : 0,
  };
}
