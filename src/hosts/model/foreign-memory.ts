// All of a guest's memory in the address space of its device model, for a device that uses no grants: what a
// backend on a real host does with privcmd before its first request. Before foreign-pages.ts, after
// machine/backend-domain.ts. That it is there, and until when, is reported; nothing else of it can be seen.

import { MAPTRACK_HANDLES_PER_FRAME } from '../../abi/grant.ts';
import { regionOver } from '../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { Tracer } from '../../trace.ts';
import type { ForeignMemory } from '../../xen/backend-host.ts';
import type { DomainRecord } from './domain-record.ts';
import type { Domains } from './domains.ts';
import { addForeign, removeForeign } from './foreign-pages.ts';
import { mayServe } from './ioreq/rights.ts';
import { P2M_NONE, p2mType, PHYSMAP_FRAMES } from './physmap.ts';
import type { Machine } from './state.ts';

/** What a domain needs to map others. */
interface Mapper {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly mapper: DomainRecord;
  readonly tracer: Tracer;
}

/**
 * Maps the memory that `guest` was built with, page by page.
 *
 * @throws RangeError when the mapper is not the guest's device model, a page is not where it was, or there is no
 * room; nothing is mapped then
 */
export function mapForeignMemory(options: Mapper, guest: DomainRecord): ForeignMemory {
  const { machine, domains, mapper, tracer } = options;
  const { ramFrame, ramFrames } = guest;
  const first = guest.map.ram;
  const refuse = (why: string) =>
    new RangeError(`domain ${mapper.id} cannot map the memory of domain ${guest.id}: ${why}`);
  if (!mayServe(machine, mapper, guest)) throw refuse('the toolstack has not named it as device model');
  const gfn = freeRun(mapper, ramFrames);
  if (gfn < 0) throw refuse('its own address space is full');
  // Reported before anything can be reached, as every event that opens access.
  tracer.reach(mapper.id, guest.id, first, ramFrames);
  let mapped = 0;
  const close = () => {
    while (mapped > 0) removeForeign(machine, domains, mapper, gfn + --mapped);
    tracer.reachEnd(mapper.id, guest.id, first, ramFrames);
  };
  for (; mapped < ramFrames; mapped++) {
    const frame = guest.ownFrame(first + mapped);
    // The region is one piece, as the memory was when the guest was built.
    if (frame === ramFrame + mapped && addForeign(machine, domains, mapper, gfn + mapped, guest, frame))
      continue;
    const missing = first + mapped;
    close();
    throw refuse(`frame 0x${missing.toString(16)} is not the guest's any more, or memory is used up`);
  }
  const region = regionOver(machine.state.memory, ramFrame * XEN_PAGE_SIZE, ramFrames * XEN_PAGE_SIZE);
  return { region, base: first * XEN_PAGE_SIZE, close };
}

/** The first of `count` frame numbers in a row where nothing stands, behind the places for grants; or -1. */
function freeRun({ window, maxMaptrackFrames, physmap }: DomainRecord, count: number): number {
  let run = 0;
  for (let gfn = window + maxMaptrackFrames * MAPTRACK_HANDLES_PER_FRAME; gfn < PHYSMAP_FRAMES; gfn++) {
    run = p2mType(physmap.get(gfn)) === P2M_NONE ? run + 1 : 0;
    if (run === count) return gfn - count + 1;
  }
  return -1;
}
