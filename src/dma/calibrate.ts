// Finds out on this machine from which length on a buffer of whole pages is cheaper to grant than to copy: the
// threshold of mode `auto`. Takes a few milliseconds. Before auto-sharing.ts.
//
// Measured is what the frontend pays. What the backend pays for mapping is the same on both ways, as it maps
// the pages of each request; one that kept pool pages mapped would have to be added to the direct way.

import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE, noTrace } from '../trace.ts';
import { AutoSharing, DIRECT_FROM } from './auto-sharing.ts';
import { KEEP_FOR_A_WHILE } from './bounce-pages.ts';
import type { GrantingDomain } from './granting-domain.ts';
import { Grants } from './grants.ts';

/** Lengths that are tried, in pages, longest first. */
const LENGTHS = [64, 32, 16, 8, 4, 2, 1];
/** Rounds for each length: the fastest counts, since others of the machine only make it slower. */
const ROUNDS = 6;
/** Calls in a round, so that a clock of microseconds is fine enough. */
const CALLS = 4;

/** The fastest of the rounds of mapping and unmapping `size` bytes for either direction, or NaN. */
function costOf(sharing: AutoSharing, address: number, size: number, now: () => number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = now();
    for (let call = 0; call < CALLS; call++) {
      const direction = call & 1 ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
      const place = sharing.share(address, size, direction, true);
      if (place < 0) return Number.NaN;
      sharing.unshare(place / XEN_PAGE_SIZE, 0, size, direction, true);
    }
    least = Math.min(least, now() - start);
  }
  return least;
}

/**
 * Bytes from which on every length together gains most, so that one slow measurement decides nothing.
 *
 * @param gains of granting, for a page of a buffer of each length
 */
function bestLength(gains: readonly number[]): number {
  let best = Number.POSITIVE_INFINITY;
  let most = 0;
  let sum = 0;
  for (const [index, gain] of gains.entries()) {
    sum += gain;
    if (sum > most) [most, best] = [sum, LENGTHS[index] * XEN_PAGE_SIZE];
  }
  return Number.isNaN(sum) ? DIRECT_FROM : best;
}

/**
 * Measures on pages that are allocated for it and granted to the domain itself, so that nobody gets to see them.
 *
 * @param now a clock; in which unit does not matter
 * @returns bytes; Infinity when copying is always cheaper, DIRECT_FROM when there is not enough memory to measure
 */
export function measureDirectFrom(domain: GrantingDomain, now: () => number): number {
  const { memory } = domain;
  const address = memory.allocatePages(LENGTHS[0]);
  if (address === undefined) return DIRECT_FROM;
  const grants = new Grants({ ...domain, tracer: noTrace }, domain.id);
  const direct = new AutoSharing(grants, 0, KEEP_FOR_A_WHILE, 0);
  const pool = new AutoSharing(grants, 0, KEEP_FOR_A_WHILE, Number.POSITIVE_INFINITY);
  const gains = () =>
    LENGTHS.map((pages) => {
      const size = pages * XEN_PAGE_SIZE;
      const [granting, copying] = [direct, pool].map((sharing) => costOf(sharing, address, size, now));
      return (copying - granting) / pages;
    });
  // The first time is for the engine to learn the code, which copying needs less of.
  gains();
  const cheaperFrom = bestLength(gains());
  direct.close();
  pool.close();
  memory.freePages(address, LENGTHS[0]);
  return cheaperFrom;
}
