// The process itself, for the metrics: what it has used, and since when. Used by operation.ts.

import { version } from '../version.ts';
import type { ProcessFigures } from './families.ts';

const MICROSECOND = 1e-6;

/** What this process has used until now. */
export function processFigures(): ProcessFigures {
  const { user, system } = process.cpuUsage();
  return {
    version: version(),
    cpuSeconds: (user + system) * MICROSECOND,
    residentBytes: process.memoryUsage.rss(),
    startTime: performance.timeOrigin / 1000,
  };
}
