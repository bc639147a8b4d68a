// Marks a used ring in the dirty log when it is written. Between virtqueue/device-queue.ts and inflight-journal.ts.

import { splitRingSizes } from '../../abi/split-ring.ts';
import type { DirtyLog } from '../../memory/dirty-log.ts';
import type { QueueJournal } from '../../virtqueue/queue-journal.ts';

/** The used ring of one queue, and the queue's own journal if it has one. */
export class LoggedRing implements QueueJournal {
  readonly keepsInFlight: boolean;
  readonly #log: DirtyLog;
  readonly #address: number;
  readonly #length: number;
  readonly #inner: QueueJournal | undefined;

  /** @param address guest-physical, of the used ring of a queue of `size`. Throws ProtocolViolation past the log */
  constructor(log: DirtyLog, address: number, size: number, inner: QueueJournal | undefined) {
    this.#log = log;
    this.#address = address;
    this.#length = splitRingSizes(size).device;
    this.#inner = inner;
    this.keepsInFlight = inner?.keepsInFlight ?? false;
    // A log that is too short for it is refused now, and not when the ring stops.
    this.markRing();
  }

  taken(head: number): void {
    this.#inner?.taken(head);
  }

  completing(head: number): void {
    this.#inner?.completing(head);
  }

  completed(head: number, used: number): void {
    this.#inner?.completed(head, used);
    this.markRing();
  }

  /** All of it, because the device also writes flags and an index beside the elements; a ring has few pages. */
  markRing(): void {
    this.#log.mark(this.#address, this.#length);
  }
}
