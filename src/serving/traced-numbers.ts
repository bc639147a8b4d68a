// Who is who in a trace of served devices. Used by device-reach.ts, queue-thread.ts and exposure-watch.ts.

/** This process, as a domain. */
export const HOST = 0;

/** The one device of each guest. */
export const DEVICE = 0;

/** The guest whose frontend is at endpoint number `endpoint`: one after the other, as one domain. */
export function guestAt(endpoint: number): number {
  return endpoint + 1;
}
