// How much a driver puts up with before it resets its device, and before it gives the device up. Used by
// virtio-driver.ts; docs/recovery.md tells the whole story.

/** The limits of one device. */
export interface RecoveryLimits {
  /** References that may be in quarantine before the device is reset. */
  readonly quarantined: number;
  /** Resets within `window` after which the next fault ends its use; 0 is none at all. */
  readonly resets: number;
  /** Milliseconds, on the clock of `tick`. */
  readonly window: number;
}

/** What a guest does unless it is told otherwise. */
export const RECOVERY: RecoveryLimits = { quarantined: 64, resets: 3, window: 600_000 };
/** A device is given up at its first fault. */
export const NO_RECOVERY: RecoveryLimits = { quarantined: 0, resets: 0, window: 0 };

/**
 * How a device is: `working`; `degraded`, which means that it works but its backend holds on to pages; `waiting` for
 * a backend, which keeps what is asked for until there is one; or `failed` for good.
 */
export type DeviceHealth = 'working' | 'degraded' | 'waiting' | 'failed';

/** Counts resets, so that a device which is never well is not reset for ever. */
export class ResetBudget {
  readonly #times: number[] = [];
  /** All resets so far. */
  total = 0;

  /** Whether one more reset is allowed at `now`; if so, it is counted. */
  take(now: number, { resets, window }: RecoveryLimits): boolean {
    while (this.#times.length > 0 && now - this.#times[0] > window) this.#times.shift();
    if (this.#times.length >= resets) return false;
    this.#times.push(now);
    this.total++;
    return true;
  }
}
