// The buffers of a chain in memory that is there all the time: nothing is mapped for a request, and nothing has to be
// let go of. Base of the accesses of plain-memory.ts, region-table.ts and iotlb-memory.ts.

import type { ChainAccess } from './device-memory.ts';
import { Segments } from './segments.ts';

/** What such accesses have in common; where an address leads is each one's own. */
export abstract class ResidentAccess implements ChainAccess {
  readonly readable = new Segments();
  readonly writable = new Segments();

  abstract map(low: number, high: number, length: number, writable: boolean): number;

  ready(): number {
    return 0;
  }

  release(): number {
    this.readable.clear();
    this.writable.clear();
    return 0;
  }
}
