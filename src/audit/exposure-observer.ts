// What the accounting (exposure-ledger.ts) decides, told at the moment it does: how the audit of a trace
// learns which grant, which need and which request stand behind a figure. A run is accounted without one.

import type { MapRefusedEvent, TouchEvent, TraceEvent } from './events.ts';
import type { Grant, Need, Reach } from './exposure-state.ts';

/** Takes the decisions. The objects are the accounting's own: they change with the next event. */
export interface ExposureObserver {
  /** A page is granted. */
  granted(grant: Grant): void;
  /** `need` was the first in the grant, and bytes `start` to `end` of its page are not its device's. */
  foreign(grant: Grant, need: Need, start: number, end: number): void;
  /** `need` is to be read only, and the page is granted for writing. */
  overPermission(grant: Grant, need: Need): void;
  /** No need used the page for so long; for `atWork` of it, its device had a request to serve. */
  stale(grant: Grant, nanoseconds: number, atWork: number): void;
  /** Access could not be ended, because the backend maps the page. */
  busy(grant: Grant): void;
  /** The page can no longer be reached through the grant. */
  ended(grant: Grant): void;
  /** The grant is not over at the end of the run. */
  live(grant: Grant): void;
  /** The hypervisor refused a mapping; of no grant that exists, if there is none. */
  refused(event: MapRefusedEvent, grant: Grant | undefined): void;
  /** A backend touched bytes that no need in use holds, the first of them in the page of `grant`, if it is one. */
  strayed(event: TouchEvent, grant: Grant | undefined): void;
  /** A domain reaches frames of another without any grant. */
  reached(reach: Reach): void;
  /** The event cannot be true after those before it. */
  contradiction(event: TraceEvent, reason: string): void;
}

const nothing = (): undefined => undefined;

/** The observer that does nothing. */
export const noObserver: ExposureObserver = {
  granted: nothing,
  foreign: nothing,
  overPermission: nothing,
  stale: nothing,
  busy: nothing,
  ended: nothing,
  live: nothing,
  refused: nothing,
  strayed: nothing,
  reached: nothing,
  contradiction: nothing,
};
