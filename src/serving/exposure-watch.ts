// What the backend could reach of its guests' memory and what of it was needed, from the events of all threads: summed
// up for each device, and handed to a trace file if there is one. Runs in the main thread, which no other waits for but
// the one that deals with frontends. After vhost-server.ts, before audit/exposure.ts.

import type { TraceConsumer, TraceEvent } from '../audit/events.ts';
import { Exposure } from '../audit/exposure.ts';
import { type ExposureObserver, noObserver } from '../audit/exposure-observer.ts';
import { TraceMerger } from '../audit/trace-merger.ts';
import { type TraceRing, traceRings } from '../audit/trace-ring.ts';
import { guestAt } from './traced-numbers.ts';

/** Events that a thread can report before they are fetched, and milliseconds between two times that they are. */
const RECORDS = 32_768;
const FETCH_INTERVAL = 10;
/** Events that are dealt with at a time: others of this thread are to have their turn. */
const BATCH = 50_000;

/** What one device's backend could reach, since the process was started. */
export interface ExposureSums {
  /** Pages that it was given, each time one was. */
  readonly pages: number;
  /** Of these, those that no request has spoken of. */
  readonly unneededPages: number;
  /** Bytes beside those that requests spoke of, in pages that it could read, and in those it could write as well. */
  readonly foreignReadableBytes: number;
  readonly foreignWritableBytes: number;
  /** Times that a page stayed within reach when no request used it any more, how long all of them were, and the longest. */
  readonly staleWindows: number;
  readonly staleSeconds: number;
  readonly longestStaleSeconds: number;
}

/** Sums up the windows that are over. */
class StaleSum implements Pick<ExposureObserver, 'stale'> {
  windows = 0;
  nanoseconds = 0;

  stale(_grant: unknown, nanoseconds: number): void {
    this.windows++;
    this.nanoseconds += nanoseconds;
  }
}

/** The accounts of one guest. */
class Account {
  readonly #stale = new StaleSum();
  readonly #exposure = new Exposure(
    { ...noObserver, stale: (grant, nanoseconds) => this.#stale.stale(grant, nanoseconds) },
    { side: 'backend', keepsBytes: false },
  );

  consume(event: TraceEvent): void {
    this.#exposure.consume(event);
  }

  get sums(): ExposureSums {
    const total = this.#exposure.total();
    return {
      pages: total.pagesGranted + total.pagesReached,
      unneededPages: total.pagesWithoutNeed,
      foreignReadableBytes: total.foreignReadableBytes,
      foreignWritableBytes: total.foreignWritableBytes,
      staleWindows: this.#stale.windows,
      staleSeconds: this.#stale.nanoseconds / 1e9,
      longestStaleSeconds: total.maxStaleNanoseconds / 1e9,
    };
  }
}

/** Watches the threads of one server. */
export class ExposureWatch {
  /** Where the control thread reports. */
  readonly control: TraceRing;
  /** Where each worker does. */
  readonly workers: readonly TraceRing[];
  readonly #accounts = new Map<number, Account>();
  readonly #merger: TraceMerger;
  readonly #timer: NodeJS.Timeout;

  /** @param trace takes all events, beside the sums */
  constructor(workers: number, trace?: TraceConsumer) {
    const [control, ...others] = traceRings(1 + workers, RECORDS);
    this.control = control;
    this.workers = others;
    const own: TraceConsumer = { consume: (event) => this.#account(event) };
    this.#merger = new TraceMerger([control, ...others], trace === undefined ? [own] : [own, trace]);
    this.#timer = setInterval(() => this.#merger.drain(BATCH), FETCH_INTERVAL);
    this.#timer.unref();
  }

  /** What the device at endpoint number `endpoint` has come to. */
  of(endpoint: number): ExposureSums {
    return this.#accountOf(guestAt(endpoint)).sums;
  }

  /** Events that are not in the sums, because a thread would have had to wait. */
  get lost(): number {
    return this.#merger.lost;
  }

  /** Takes what has been reported, and nothing after. Once is enough. */
  close(): void {
    clearInterval(this.#timer);
    this.#merger.close();
  }

  #account(event: TraceEvent): void {
    this.#accountOf('domain' in event ? event.domain : event.owner).consume(event);
  }

  #accountOf(domain: number): Account {
    let account = this.#accounts.get(domain);
    if (account === undefined) {
      account = new Account();
      this.#accounts.set(domain, account);
    }
    return account;
  }
}
