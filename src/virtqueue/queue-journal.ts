// What a device keeps about a queue outside of the rings, so that another device can go on where it stopped: after
// a crash (vhost-user inflight buffer) or on another machine (dirty log). Called by device-queue.ts.

/** Told of each chain, in the order in which things happen. All calls are on the hot path. */
export interface QueueJournal {
  /** Whether the next device learns from it what was in flight. */
  readonly keepsInFlight: boolean;
  /** The device has taken the chain that begins with `head`. */
  taken(head: number): void;
  /** Its used element is written; the driver cannot see it before this returns. */
  completing(head: number): void;
  /** The driver may see it: the used index has become `used`. */
  completed(head: number, used: number): void;
}

/** Where a queue goes on that was served before, by this device or another. */
export interface QueueStart {
  /** The next entry of the available ring to take. */
  readonly base: number;
  /** The next entry of the used ring to fill. */
  readonly used: number;
  /** Heads of chains that were taken and not completed, in the order in which to serve them: once each. */
  readonly again: readonly number[];
  readonly journal: QueueJournal | undefined;
}

/** The journals of a device's queues. */
export interface QueueJournals {
  /** Begins the journal of a queue of `size` that nobody has served. */
  begin(index: number, size: number): QueueStart;
  /** Where a queue goes on whose used ring is at `used`. Throws ProtocolViolation for one that was not kept. */
  resume(index: number, size: number, used: number): QueueStart;
}

/** A queue that nobody has served. */
export const FRESH_QUEUE: QueueStart = { base: 0, used: 0, again: [], journal: undefined };
