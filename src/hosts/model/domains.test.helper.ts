// A small machine for tests: Xen just switched on, and domains with everything that they may use.

import type { GuestPageSize } from '../../dma/guest-memory.ts';
import { noTrace, type Tracer } from '../../trace.ts';
import { type DomainId, domainId } from '../../xen/ids.ts';
import type { DomainOptions } from './domain-options.ts';
import type { DomainRecord } from './domain-record.ts';
import type { WaitWhile } from './waiting.ts';
import { type DomainPorts, Xen } from './xen.ts';

/** Pages of a test domain unless it asks for more. */
export const TEST_PAGES = 64;
/** Handles of a test domain: those of one frame, of which one always stays free (grants/maptrack.ts). */
export const TEST_HANDLES = 255;

const KIB = 1024;

/** A domain as its own kernel and as the hypervisor see it. */
export interface TestDomain {
  readonly xen: Xen;
  readonly id: DomainId;
  readonly record: DomainRecord;
  readonly ports: DomainPorts;
}

/** Switches a machine on that has room for a few test domains. */
export function bootTestMachine(shared = false): Xen {
  return Xen.boot(8192 * KIB, 2048 * KIB, shared);
}

/** Creates a domain; small unless the options say otherwise, with one frame of grant table at most. */
export function addDomain(
  xen: Xen,
  id: number,
  options: Partial<DomainOptions> = {},
  tracer: Tracer = noTrace,
  waitWhile: WaitWhile = () => false,
  pageSize?: GuestPageSize,
): TestDomain {
  const record = xen.createDomain(id, {
    memory: TEST_PAGES * 4096,
    maxGrantFrames: 1,
    maxMaptrackFrames: 1,
    ...options,
  });
  return { xen, id: domainId(id), record, ports: xen.ports(domainId(id), waitWhile, tracer, 0, pageSize) };
}
