// One monotonic clock for all threads of the process, in nanoseconds as a number.

import { performance } from 'node:perf_hooks';

// performance.now() counts from the thread's own start but is cheap; hrtime is the same for all threads.
const origin = Number(process.hrtime.bigint()) - performance.now() * 1e6;

/** The same in milliseconds, for those who wait. */
export function milliseconds(): number {
  return nanoseconds() / 1e6;
}

/** Nanoseconds since some moment that is the same for every thread; exact to a fraction of a microsecond. */
export function nanoseconds(): number {
  return origin + performance.now() * 1e6;
}
